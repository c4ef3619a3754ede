"""`--values shared:auto` with data: the smallest file within a budget that is measured in onnxruntime."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from onnxprune_passes.encode import densify
from onnxprune_passes.errors import SelectionError
from onnxprune_passes.storage import load

from onnxprune.cli.main import cli
from onnxprune.records import SharedValues
from onnxprune.report import Report
from onnxprune.resolve import options_from
from onnxprune.shared_values.forms import Form, Forms, Tensor
from onnxprune.shared_values.measure import Measured, Measurer
from onnxprune.shared_values.search import Budget, Search
from onnxprune.steps import Steps

Array = npt.NDArray[Any]
AUTO = ("--sparsity", "0.8", "--values", "shared:auto")


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def _report(model: Path, *args: object) -> Report:
    file = model.with_name("report.json")
    result = _run(model, "--json", file, *AUTO, *args)
    assert result.exit_code == 0, result.output
    return msgspec.json.decode(file.read_bytes(), type=Report)


def _measured(report: Report) -> SharedValues:
    assert report.shared_values is not None
    return report.shared_values


def _nbytes(report: Report) -> int:
    assert report.output is not None
    return report.output.bytes


@pytest.fixture
def unlabelled(net: Path) -> Path:
    path = net.with_name("unlabelled.npz")
    np.savez(path, x=np.random.default_rng(3).standard_normal((40, 64)).astype(np.float32))
    return path


def _outputs(model: Path, data: Path) -> Array:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": np.load(data)["x"]})[0])


def test_outputs_stay_within_the_error(net: Path, unlabelled: Path) -> None:
    plain = net.with_name("plain.onnx")
    assert _run(net, "--sparsity", "0.8", "--output", plain).exit_code == 0
    wanted = _outputs(plain, unlabelled).astype(np.float64)
    sizes = []
    for allowed in (0.3, 0.05, 0.005):
        report = _report(net, "--data", unlabelled, "--values-max-error", allowed)
        found = _measured(report)
        moved = _outputs(net.with_name("net.pruned.onnx"), unlabelled) - wanted
        error = float(np.sqrt(np.sum(moved**2) / np.sum(wanted**2)))
        assert found.error == pytest.approx(error, rel=1e-3)
        assert error <= allowed
        assert (found.max_error, found.max_drop, found.metric, found.after) == (allowed, None, None, None)
        sizes.append(_nbytes(report))
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3


def test_without_a_budget_outputs_move_by_5_percent_and_the_tensors_hold_what_was_chosen(
    net: Path, unlabelled: Path
) -> None:
    report = _report(net, "--data", unlabelled)
    found = _measured(report)
    assert found.max_error == 0.05
    assert found.samples_of_error == 40
    dense = densify(load(net.with_name("net.pruned.onnx"))).initializers
    chosen = {tensor.name: tensor.values for tensor in found.tensors}
    assert "fc1.bias" in chosen  # biases take bytes too
    for name, values in chosen.items():
        kept = dense[name][dense[name] != 0]
        if values.startswith("shared:"):
            assert np.unique(kept).size <= 2 ** int(values.removeprefix("shared:")) - 1
    again = _report(net, "--data", unlabelled)
    assert _measured(again) == found


def test_the_metric_stays_within_the_drop(net: Path, labelled: Path) -> None:
    sizes = {}
    for allowed in (0.0, 0.3):
        report = _report(net, "--data", labelled, "--values-max-drop", allowed)
        found = _measured(report)
        assert found.metric == "accuracy"
        assert found.samples == 50
        assert found.before is not None
        assert found.after is not None
        assert report.accuracy is not None
        assert found.after == pytest.approx(report.accuracy.after)
        assert found.before - found.after <= allowed + 1e-12
        sizes[allowed] = _nbytes(report)
    assert sizes[0.3] < sizes[0.0]
    assert "accuracy" in next(change.summary for change in report.changes if change.by == "share-values")


def test_without_a_budget_labels_give_a_drop_of_a_tenth_of_a_point(net: Path, labelled: Path) -> None:
    found = _measured(_report(net, "--data", labelled))
    assert (found.max_drop, found.max_error) == (0.001, None)


def test_both_budgets_hold(net: Path, labelled: Path) -> None:
    found = _measured(_report(net, "--data", labelled, "--values-max-drop", "0.5", "--values-max-error", "0.01"))
    assert found.error is not None
    assert found.error <= 0.01


def test_without_data_nothing_is_measured(net: Path) -> None:
    report = _report(net)
    assert report.shared_values is None
    assert any(change.by == "share-values" for change in report.changes)


@pytest.mark.parametrize("option", ["--values-max-drop", "--values-max-error"])
def test_budgets_that_nothing_is_measured_against(net: Path, labelled: Path, option: str) -> None:
    result = _run(net, *AUTO, option, "0.1")
    assert result.exit_code == 2
    assert f"{option} needs --data" in result.stderr
    result = _run(net, "--values", "shared:4", "--data", labelled, option, "0.1")
    assert result.exit_code == 2
    assert f"{option} belongs to --values shared:auto" in result.stderr
    with pytest.raises(SelectionError, match="finite"):
        options_from("m.onnx", {"values": "shared:auto", "data": "d", option.removeprefix("--"): float("inf")})


def test_a_drop_needs_labels(net: Path, unlabelled: Path) -> None:
    result = _run(net, *AUTO, "--data", unlabelled, "--values-max-drop", "0.1")
    assert result.exit_code == 1
    assert "--values-max-drop needs labels" in result.stderr


def test_forms_that_a_tensor_cannot_have(arrays: dict[str, Array], net: Path) -> None:
    model = load(net)
    changes = {
        "fc1.weight": arrays["fc1.weight"] * np.float32(1e5),  # beyond float16
        "fc2.weight": np.where(arrays["fc2.weight"] > 1, np.nan, arrays["fc2.weight"]).astype(np.float32),
        "fc3.weight": np.sign(arrays["fc3.weight"]),  # two values: codes of two bits already
    }
    forms = Forms(model.with_initializers(changes), "auto", "test", keep_inputs=False, inline=False)
    names = {tensor.key: [form.name for form in tensor.forms] for tensor in forms.tensors}
    assert names["fc1.weight"] == ["f32", *(f"shared:{bits}" for bits in range(8, 0, -1))]
    assert names["fc3.weight"] == ["f32", "shared:1"]
    assert "fc2.weight" not in names
    (skip,) = (skip for skip in forms.skips if skip.name == "fc2.weight")
    assert "NaN" in skip.reason


# The search itself, against every state there is


@dataclass
class _Additive:
    """Errors whose squares add up, each tensor with a weight of its own."""

    weights: tuple[float, ...]
    before: float | None = None
    calls: int = 0

    def __call__(self, model: Any, *, joint: bool) -> Measured:
        del joint
        self.calls += 1
        return Measured(
            float(np.sqrt(sum(w * 4.0**place for w, place in zip(self.weights, model, strict=True) if place)))
        )

    def drop(self, _found: Measured) -> float:
        return 0.0


class _Fixed(Forms):
    """Tensors of given sizes, whose bytes fall with the bits; a model is its state."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        widths = {"f32": 32, "f16": 16, **{f"shared:{bits}": bits for bits in range(8, 0, -1)}}
        self.tensors = tuple(
            Tensor(f"t{size}", tuple(Form(name, size * bits) for name, bits in widths.items())) for size in sizes
        )
        self.skips = ()

    def model(self, state: Any) -> Any:
        return state


@pytest.mark.parametrize("seed", range(8))
def test_the_search_finds_nearly_the_smallest_file(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = tuple(int(size) for size in rng.integers(10, 1000, 3))
    measure: Any = _Additive(tuple(float(weight) for weight in 10.0 ** rng.uniform(-8, -6, 3)))
    forms = _Fixed(sizes)

    def nbytes_of(state: Any) -> int:
        return sum(tensor.forms[place].nbytes for tensor, place in zip(forms.tensors, state, strict=True))

    search = Search(forms, measure, Budget(None, 0.1), nbytes_of, Steps(1))
    best = search.best()
    assert search.measured[best].error <= 0.1
    states = list(itertools.product(range(10), repeat=3))
    smallest = min(nbytes_of(state) for state in states if measure(state, joint=True).error <= 0.1)
    assert nbytes_of(best) <= 1.1 * smallest
    assert search.count < 80  # of 1000 states


def test_error_is_over_the_outputs(net: Path, unlabelled: Path, tmp_path: Path) -> None:
    from onnxprune.verification import Source, inputs_for

    model = load(net)
    measure = Measurer(model, inputs_for(net, tmp_path, Source(str(unlabelled))), None, tmp_path)
    assert measure(model, joint=True) == Measured(0.0, None)
    doubled = model.with_initializers(
        {"fc3.weight": model.initializers["fc3.weight"] * 2, "fc3.bias": model.initializers["fc3.bias"] * 2}
    )
    assert measure(doubled, joint=False).error == pytest.approx(1.0, rel=1e-4)


def test_one_width_for_all_is_tried_where_functions_cost_more_than_they_save() -> None:
    """The error falls on the second tensor alone, so that the way down keeps that wide and the first narrow."""
    measure: Any = _Additive((1e-12, 1e-6))
    forms = _Fixed((1000, 1010))

    def nbytes_of(state: Any) -> int:
        chosen: list[Form] = [tensor.forms[place] for tensor, place in zip(forms.tensors, state, strict=True)]
        return sum(form.nbytes for form in chosen) + 10_000 * len({form.name for form in chosen} - {"f32"})

    search = Search(forms, measure, Budget(None, 0.1), nbytes_of, Steps(1))
    names = {tensor.forms[place].name for tensor, place in zip(forms.tensors, search.best(), strict=True)}
    assert len(names - {"f32"}) == 1
