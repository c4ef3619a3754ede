from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from onnxprune_passes.encode import encode_model
from onnxprune_passes.errors import VerifyError
from onnxprune_passes.pipeline import State

import onnxprune.products
from onnxprune.prune import prune_file
from onnxprune.recipe import PruneOptions
from onnxprune.report import Report

Array = npt.NDArray[Any]


def _pruned(model: Path, **options: Any) -> tuple[Report, Path]:
    made = PruneOptions(model=str(model), **options)
    return prune_file(made), model.with_name(f"{model.stem}.pruned.onnx")


@dataclass(frozen=True)
class _Breaks:
    """Stands in for the removal of dead neurons and changes what the model computes."""

    change: Callable[[Array], Array]
    name: str = "remove-dead-neurons"

    def __call__(self, state: State) -> State:
        bias = state.model.initializers["fc3.bias"]
        changed = state.model.with_initializers({"fc3.bias": self.change(bias)})
        return State(changed, state.masks, state.log)


@pytest.mark.parametrize("encode", ["dense", "auto"])
def test_a_model_that_answers_differently_is_not_written(
    net: Path, monkeypatch: pytest.MonkeyPatch, encode: str
) -> None:
    monkeypatch.setattr(onnxprune.products, "RemoveDeadNeurons", lambda: _Breaks(lambda bias: bias + np.float32(0.01)))
    report = prune_file(PruneOptions(model=str(net), encode=encode, json=str(net.with_name("r.json"))))  # type: ignore[arg-type]
    assert sorted(path.name for path in net.parent.iterdir()) == ["net.onnx", "r.json"]
    assert (report.status, report.verified, report.output) == ("failed", False, None)
    assert report.error is not None
    assert "pruned -> shrunk: output y" in report.error
    assert "--no-shrink" in report.error
    assert msgspec.json.decode(net.with_name("r.json").read_bytes(), type=Report) == report


def test_a_difference_within_tolerance_passes(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxprune.products, "RemoveDeadNeurons", lambda: _Breaks(lambda bias: bias + np.float32(1e-6)))
    report, output = _pruned(net)
    assert report.verified
    assert output.exists()


def test_a_tensor_that_does_not_decode_to_its_bytes_is_found(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = encode_model

    def wrong(model: Any, *args: Any, **options: Any) -> Any:
        weight = model.initializers["fc1.weight"].copy()
        weight[0, np.flatnonzero(weight[0])[0]] *= np.float32(1 + 1e-6)
        return right(model.with_initializers({"fc1.weight": weight}), *args, **options)

    monkeypatch.setattr(onnxprune.products, "encode_model", wrong)
    report, output = _pruned(net, sparsity=0.9)
    assert not output.exists()
    assert report.error is not None
    assert "densify does not give back fc1.weight" in report.error
    assert [(one.by, one.different) for one in report.decoded] == [
        ("densify", ("fc1.weight",)),
        ("onnxruntime (off)", ("fc1.weight",)),
        ("onnxruntime (default)", ("fc1.weight",)),
    ]


def test_a_model_that_does_not_run_is_named_and_not_written(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(_bias: Array) -> Array:
        return np.zeros(7, np.float32)

    monkeypatch.setattr(onnxprune.products, "RemoveDeadNeurons", lambda: _Breaks(wrong))
    with pytest.raises(VerifyError, match="the shrunk model cannot be run"):
        prune_file(PruneOptions(model=str(net), json=str(net.with_name("r.json"))))
    report = msgspec.json.decode(net.with_name("r.json").read_bytes(), type=Report)
    assert report.status == "error"
    assert report.error is not None
    assert "the shrunk model cannot be run" in report.error
    assert sorted(path.name for path in net.parent.iterdir()) == ["net.onnx", "r.json"]


def test_no_masks_are_written_when_a_check_fails(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxprune.products, "RemoveDeadNeurons", lambda: _Breaks(lambda bias: bias + np.float32(1)))
    _pruned(net, save_masks=str(net.with_name("masks.npz")))
    assert list(net.parent.iterdir()) == [net]
