"""Comparing two models: the numbers and what they are allowed to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx.parser
import pytest
from onnxprune_passes.errors import DataError, VerifyError

from onnxprune.feeds import Feeds
from onnxprune.runtime import open_session
from onnxprune.verify import (
    Comparison,
    OutputComparison,
    Reference,
    accuracy,
    compare,
    compare_references,
    compare_with,
    run_all,
    top1_agreement,
)

HEAD = '<ir_version: 8, opset_import: ["" : 18]> g '
INF, NAN = float("inf"), float("nan")


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.onnx"
    path.write_bytes(onnx.parser.parse_model(HEAD + text).SerializeToString())
    return path


def feeds_of(*batches: Any, labels: tuple[Any, ...] | None = None) -> Feeds:
    return Feeds(tuple({"x": np.asarray(batch)} for batch in batches), labels, "test")


def measured(*pairs: tuple[Any, Any]) -> OutputComparison:
    """One output `y`, given as (before, after) per batch."""
    before, after = (
        Reference(name, True, None, tuple({"y": np.asarray(pair[index])} for pair in pairs), ())
        for index, name in enumerate(("before", "after"))
    )
    (output,) = compare_references(before, after).outputs
    return output


def comparison_of(output: OutputComparison, *, optimize: bool = True) -> Comparison:
    return Comparison("before", "after", optimize, 1, (output,), None, None, ())


def f32(*values: float) -> Any:
    return np.array(values, np.float32)


def test_a_model_equals_itself(tmp_path: Path) -> None:
    path = write(tmp_path, "a", "(float[N, 3] x) => (float[N, 3] y, float[N, 3] z) { y = Relu(x) z = Exp(x) }")
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    comparison = compare(path, path, feeds_of(x, 2 * x), optimize=True)
    assert comparison.equal
    assert (comparison.max_error, comparison.mean_error, comparison.agreement) == (0.0, 0.0, 1.0)
    assert comparison.failures(exact=True) == ()
    assert [(output.name, output.dtype, output.count) for output in comparison.outputs] == [
        ("y", "float32", 24),
        ("z", "float32", 24),
    ]
    assert (comparison.before, comparison.after, comparison.batches) == (str(path), str(path), 2)
    assert comparison.accuracy_before is None


def test_errors_are_scaled_by_the_output_over_all_batches(tmp_path: Path) -> None:
    before = write(tmp_path, "a", "(float[N] x) => (float[N] y) { y = Identity(x) }")
    after = write(tmp_path, "b", "(float[N] x) => (float[N] y) <float c = {1}> { y = Add(x, c) }")
    comparison = compare(before, after, feeds_of(f32(1, 2), f32(-8, 0)), optimize=False)
    (output,) = comparison.outputs
    assert (output.scale, output.max_error, output.mean_error, output.max_difference) == (8.0, 0.125, 0.125, 1.0)
    assert (output.unequal, output.count, output.equal) == (4, 4, False)
    assert comparison.failures() == ("output y: error 0.125 of its size (8), allowed 1e-05 (optimisations off)",)
    assert comparison.failures(exact=True) == ("output y: 4 of 4 elements differ, allowed 0 (optimisations off)",)


def test_the_reference_is_run_once_at_its_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "a", "(float[N] x) => (float[N] y) { y = Identity(x) }")
    opened: list[tuple[str, bool, int | None]] = []

    def spy(model: Any, *, optimize: bool, threads: int | None) -> Any:
        opened.append((Path(model).name, optimize, threads))
        return open_session(model, optimize=optimize, threads=threads)

    monkeypatch.setattr("onnxprune.verify.measure.open_session", spy)
    feeds = feeds_of(f32(1))
    reference = run_all(path, feeds, optimize=False, threads=1)
    for name in ("b", "c"):
        compare_with(reference, write(tmp_path, name, "(float[N] x) => (float[N] y) { y = Neg(x) }"), feeds)
    assert opened == [("a.onnx", False, 1), ("b.onnx", False, 1), ("c.onnx", False, 1)]


@pytest.mark.parametrize(
    ("before", "after", "nonfinite", "max_error"),
    [
        ([NAN, INF, -INF, 2], [NAN, INF, -INF, 2], 0, 0.0),
        ([NAN, INF, -INF, 2], [NAN, INF, -INF, 1], 0, 0.5),
        ([NAN, 1, INF, 2], [1, NAN, -INF, 2], 3, 0.0),
        ([INF, 1], [3e38, 1], 1, 0.0),
        ([NAN, NAN], [NAN, 0], 1, 0.0),
    ],
)
def test_nan_and_inf(before: list[float], after: list[float], nonfinite: int, max_error: float) -> None:
    output = measured((f32(*before), f32(*after)))
    assert (output.nonfinite_mismatches, output.max_error) == (nonfinite, max_error)
    assert output.equal == (nonfinite == 0 and max_error == 0)
    problems = comparison_of(output).failures()
    assert any("NaN or Inf in one model only" in problem for problem in problems) == bool(nonfinite)
    assert bool(problems) == (not output.equal)


def test_an_output_of_zeros_is_measured_absolutely() -> None:
    output = measured((f32(0, 0), f32(0, 0.25)))
    assert (output.scale, output.max_error) == (1.0, 0.25)
    assert measured((f32(0, 0), f32(0, -0.0))).equal


def test_empty_outputs_are_equal() -> None:
    output = measured((np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)))
    assert (output.count, output.max_error, output.mean_error, output.equal, output.agreement) == (0, 0, 0, True, None)


def test_the_mean_is_over_elements_finite_in_both() -> None:
    assert measured((f32(4, NAN, 4, 4), f32(4, NAN, 2, 4))).mean_error == pytest.approx(1 / 6)


def test_large_outputs_are_measured_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.verify.measure._CHUNK", 7)
    before = np.arange(100, dtype=np.float32).reshape(10, 10)
    after = before.copy()
    after[9, 9] -= 99
    after[0, 3] = NAN
    output = measured((before, after))
    assert (output.scale, output.max_error, output.unequal, output.nonfinite_mismatches) == (99.0, 1.0, 2, 1)
    assert output.agreement == 0.8


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (np.zeros((2, 4), np.float32), r"output y: is float32\[2, 4\], expected float32\[2, 3\] \(optimisations on\)"),
        (np.zeros((2, 3), np.float64), r"output y: is float64\[2, 3\], expected float32\[2, 3\] \(optimisations on\)"),
    ],
)
def test_other_shapes_and_types_are_failures(after: Any, expected: str) -> None:
    output = measured((np.zeros((2, 3), np.float32), after))
    assert not output.equal
    assert output.max_error == output.mean_error == INF
    for exact in (False, True):
        (problem,) = comparison_of(output).failures(exact=exact)
        assert problem == expected.replace("\\", "")


def test_a_missing_output_cannot_be_compared_and_an_extra_one_is_noted(tmp_path: Path) -> None:
    one = write(tmp_path, "one", "(float[2] x) => (float[2] y) { y = Relu(x) }")
    two = write(tmp_path, "two", "(float[2] x) => (float[2] y, float[2] z) { y = Relu(x) z = Neg(x) }")
    with pytest.raises(VerifyError, match=r"one\.onnx: no output z, which .*two\.onnx has; found \['y'\]"):
        compare(two, one, feeds_of(f32(1, 2)), optimize=True)
    assert compare(one, two, feeds_of(f32(1, 2)), optimize=True).notes == (f"output z is in {two} only",)


def test_a_model_that_compares_nothing_fails(tmp_path: Path) -> None:
    text = "(float[2] x) => (int4[2] y) <float s = {1}, int4 z = {0}> { y = QuantizeLinear(x, s, z) }"
    path = write(tmp_path, "a", text)
    model = onnx.load(path)
    model.ir_version, model.opset_import[0].version = 10, 21
    path.write_bytes(model.SerializeToString())
    comparison = compare(path, path, feeds_of(f32(1, 2)), optimize=False)
    assert comparison.notes == ("output y tensor(int4)[2] is not compared: numpy has no array for it",)
    assert "nothing was compared" in comparison.failures()[0]
    assert "nothing was compared" in compare(path, path, feeds_of(), optimize=False).failures()[0]


def test_labels_give_both_accuracies(tmp_path: Path) -> None:
    head = "(float[N, 3] x) => (float[1] k, float[N, 3] y) { k = Constant<value_floats = [1.0]>() y = "
    before, after = (write(tmp_path, op_type, f"{head} {op_type}(x) }}") for op_type in ("Relu", "Neg"))
    x = np.eye(3, dtype=np.float32)
    feeds = feeds_of(x, x[:1], labels=(np.array([0, 1, 1]), np.array([1])))
    comparison = compare(before, after, feeds, optimize=True)
    assert (comparison.accuracy_before, comparison.accuracy_after) == (0.5, 0.25)
    assert comparison.agreement == 0.0
    assert comparison.notes == ()


def test_labels_that_fit_no_output_are_noted(tmp_path: Path) -> None:
    path = write(tmp_path, "a", "(float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }")
    feeds = feeds_of(np.eye(3, dtype=np.float32), labels=(np.arange(2),))
    comparison = compare(path, path, feeds, optimize=True)
    assert comparison.accuracy_before is None
    assert comparison.notes == ("labels are not used: no output has one row of class scores per label",)


def test_accuracy_counts_rows_of_any_rank() -> None:
    scores = np.array([[[1, 2], [3, 1]], [[5, 0], [0, 5]]], np.float32)
    assert accuracy(scores, np.array([[1, 0], [0, 0]])) == 0.75
    assert accuracy(scores.astype(ml_dtypes.bfloat16), np.array([[1, 0], [0, 1]])) == 1.0


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((2, 3), np.float32), np.array([0]), r"labels of shape \[1\].*scores of shape \[2, 3\]"),
        (np.zeros((2, 3), np.float32), np.array([0, 3]), r"from 0 to 3, but the scores have 3 classes"),
        (np.zeros((2, 3), np.float32), np.array([-1, 0]), r"from -1 to 0"),
        (np.zeros((2, 3), np.int64), np.array([0, 1]), r"do not count"),
    ],
)
def test_accuracy_refuses_labels_that_do_not_fit(scores: Any, labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        accuracy(scores, labels)


def test_top1_agreement_counts_rows_and_takes_the_first_of_ties() -> None:
    before = np.array([[1, 1, 0], [0, 2, 1], [3, 2, 1], [0, 0, 1]], np.float32)
    after = np.array([[2, 1, 0], [0, 1, 2], [3, 2, 1], [0, 1, 1]], np.float32)
    assert top1_agreement(before, after) == 0.5
    with pytest.raises(DataError, match="expected two floating-point arrays of one shape"):
        top1_agreement(before, after[:, :2])


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_outputs_without_classes_have_no_agreement(shape: tuple[int, ...]) -> None:
    assert measured((np.zeros(shape, np.float32), np.zeros(shape, np.float32))).agreement is None


def test_the_level_of_optimisation_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, "a", "(float[N] x) => (float[N] y) { y = Identity(x) }")
    feeds = feeds_of(f32(1))
    off, on = (run_all(path, feeds, optimize=optimize) for optimize in (False, True))
    assert (compare_references(off, on).optimize, compare_references(on, off).optimize) == (False, True)
