"""What a comparison allows, by the type of the output and of the weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx.parser
import pytest

from onnxprune.verify import Comparison, Reference, compare_references, quantised_steps


def measured(before: Any, after: Any) -> Comparison:
    """The comparison of one output `y` over one batch."""
    return compare_references(
        Reference("before", True, None, ({"y": before},), ()), Reference("after", True, None, ({"y": after},), ())
    )


@pytest.mark.parametrize(
    ("dtype", "precision", "error", "fails"),
    [
        (np.float32, "float32", 0.9e-5, False),
        (np.float32, "float32", 1.1e-5, True),
        (np.float64, "float64", 0.9e-5, False),
        (np.float64, "float32", 1.1e-5, True),
        (np.float32, "float16", 2 * 2**-10, False),
        (np.float32, "float16", 3 * 2**-10, True),
        (np.float16, "float32", 2 * 2**-10, False),
        (np.float16, "float16", 3 * 2**-10, True),
        (np.float16, "bfloat16", 2 * 2**-7, False),
        (ml_dtypes.bfloat16, "float32", 2 * 2**-7, False),
        (ml_dtypes.bfloat16, "bfloat16", 3 * 2**-7, True),
        (ml_dtypes.float8_e4m3fn, "float32", 2 * 2**-3, False),
        (ml_dtypes.float8_e4m3fn, "float32", 3 * 2**-3, True),
    ],
)
def test_the_coarsest_of_output_and_weights_sets_the_tolerance(
    dtype: Any, precision: str, error: float, fails: bool
) -> None:
    comparison = measured(np.array([1, 0.5]).astype(dtype), np.array([1 + error, 0.5]).astype(dtype))
    assert comparison.outputs[0].dtype == np.dtype(dtype).name
    assert bool(comparison.failures(precision)) == fails


@pytest.mark.parametrize(
    ("dtype", "changed", "by", "expected"),
    [
        (np.int8, 1, 1, []),
        (np.uint8, 2, 1, ["2.00% of the elements differ, allowed 1%"]),
        (np.uint8, 1, 2, ["differs by 2 steps, allowed 1"]),
        (np.int64, 1, 1000, []),
        (np.int32, 2, 1, ["2.00% of the elements differ, allowed 1%"]),
    ],
)
def test_integer_outputs(dtype: Any, changed: int, by: int, expected: list[str]) -> None:
    before = np.full(100, 5, dtype)
    after = before.copy()
    after[:changed] += np.array(by, dtype)
    problems = measured(before, after).failures()
    assert list(problems) == [f"output y: {problem} (optimisations on)" for problem in expected]


def test_large_integers_are_told_apart() -> None:
    big = 2**62
    assert measured(np.array([big]), np.array([big + 1])).outputs[0].unequal == 1


@pytest.mark.parametrize("values", [np.array([True, False]), np.array(["a", "b"], object)])
def test_booleans_and_strings(values: Any) -> None:
    assert measured(values, values.copy()).equal
    reversed_ = measured(values, values[::-1])
    assert reversed_.outputs[0].unequal == 2
    assert reversed_.failures() == ("output y: 100.00% of the elements differ, allowed 1% (optimisations on)",)


@pytest.mark.parametrize(
    ("changed", "by", "steps", "fails"),
    [
        (1, 0.5, {"y": 0.5}, False),
        (1, 1.0, {"y": 0.5}, True),
        (2, 0.5, {"y": 0.5}, True),
        (1, 0.5, {}, False),
        (1, 0.6, {}, True),
    ],
)
def test_float_outputs_of_quantised_models(changed: int, by: float, steps: dict[str, float], fails: bool) -> None:
    before = np.full(100, 63.5, np.float32)
    after = before.copy()
    after[:changed] -= np.float32(by)
    comparison = replace(measured(before, after), steps=steps)
    assert bool(comparison.failures("int8")) == fails
    assert comparison.failures("float32")


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision 'float' is unknown"):
        measured(np.ones(1), np.ones(1)).failures("float")


def test_quantised_steps_are_the_scales_of_the_outputs(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 18]> g (float[4] x) => (float[2, 2] y, float[4] z)
        <float s = {0.25}, uint8 o = {3}, int64[2] two = {2, 2}>
        { q = QuantizeLinear(x, s, o) d = DequantizeLinear(q, s, o) y = Reshape(d, two) z = Relu(d) }"""
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    assert quantised_steps(path) == {"y": 0.25}
