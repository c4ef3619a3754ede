"""Graphs run through one of the folding passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Pass, State

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def folded(same_answers: Callable[..., None]) -> Callable[..., State]:
    """`folded(one, model, exact=True)`: the state after the pass, its answers and its idempotence checked."""

    def run(one: Pass, model: Model, exact: bool = True, before: State | None = None) -> State:
        state = State(model) if before is None else before
        after = one(state)
        assert one(after) is after
        assert after.log or after is state
        if after.model is not model:
            same_answers(model, after.model, exact)
        return after

    return run


@pytest.fixture
def golden(
    golden_text: Callable[..., None], folded: Callable[..., State]
) -> Callable[[Pass, str, str, Mapping[str, Any], Mapping[str, Any]], None]:
    """`golden(one, name, text, weights, options)`: run the pass and compare with golden/NAME.txt."""

    def check(one: Pass, name: str, text: str, weights: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        rest = {key: value for key, value in options.items() if key != "exact"}
        exact = options.get("exact", True)
        golden_text(GOLDEN / f"{name}.txt", text, weights, rest, lambda model: folded(one, model, exact))

    return check
