"""Models run through `RemoveDeadNeurons`; what they are built with is in the conftest above."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import State

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def shrink(same_answers: Callable[..., None]) -> Callable[..., State]:
    """`shrink(model, exact=True)`: the state after RemoveDeadNeurons, its answers and its idempotence checked."""

    def run(model: Model, exact: bool = True) -> State:
        before = State(model)
        after = RemoveDeadNeurons()(before)
        assert RemoveDeadNeurons()(after) is after
        assert before.log == ()
        if after.model is not model:
            same_answers(model, after.model, exact)
        return after

    return run


@pytest.fixture
def golden(
    golden_text: Callable[..., None], shrink: Callable[..., State]
) -> Callable[[str, str, Mapping[str, Any], Mapping[str, Any]], None]:
    """`golden(name, text, weights, options)`: shrink the graph and compare with golden/NAME.txt.

    `options` of `build`, and `exact`.
    """

    def check(name: str, text: str, weights: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        rest = {key: value for key, value in options.items() if key != "exact"}
        exact = options.get("exact", True)
        golden_text(GOLDEN / f"{name}.txt", text, weights, rest, lambda model: shrink(model, exact))

    return check
