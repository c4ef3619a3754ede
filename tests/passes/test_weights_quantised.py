from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from builders import model_of, node, ramp
from onnxprune_passes.weights import find_weights
from weighing import axes_of, only_weight

QUANTISED: dict[str, Any] = {
    "zero": np.array([1, 2, 3, 4, 5, 6, 7], np.int8),
    "scale": ramp(7) / 8,
    "one": np.array(3, np.int8),
    "step": np.array(0.5, np.float32),
}


def test_a_scalar_zero_point_broadcasts() -> None:
    nodes = (node("DequantizeLinear", "w", "step", "one", out="d"), node("MatMul", "x", "d"))
    weight = only_weight(model_of(*nodes, w=ramp(5, 7, dtype=np.int8), **QUANTISED))
    assert weight.quantised
    assert weight.zero_point is not None
    assert weight.scale is not None
    assert (weight.zero_point.tolist(), weight.scale.tolist()) == ([[3]], [[0.5]])
    assert axes_of(weight) == [(1, 0)]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16])
def test_no_zero_point_means_zero(dtype: Any) -> None:
    nodes = (node("DequantizeLinear", "w", "step", out="d"), node("MatMul", "x", "d"))
    weight = only_weight(model_of(*nodes, w=ramp(5, 7, dtype=dtype), **QUANTISED))
    assert weight.zero_point is not None
    assert (weight.zero_point.tolist(), weight.zero_point.dtype) == ([[0]], dtype)


@pytest.mark.parametrize(
    ("before", "after", "axis", "shape", "laid"),
    [
        ([], [], 1, (5, 7), (1, 7)),
        ([], [], -1, (5, 7), (1, 7)),
        ([], [], 0, (7, 5), (7, 1)),
        ([], ["Transpose"], 0, (7, 5), (7, 1)),
        (["Transpose"], [], 1, (7, 5), (7, 1)),
    ],
)
def test_a_zero_point_a_channel_lies_along_its_axis(
    before: list[str], after: list[str], axis: int, shape: tuple[int, int], laid: tuple[int, int]
) -> None:
    nodes: list[onnx.NodeProto] = []
    name = "w"
    for op_type in (*before, "DequantizeLinear", *after):
        extra = ("scale", "zero") if op_type == "DequantizeLinear" else ()
        attributes: dict[str, Any] = {"axis": axis} if extra else {}
        nodes.append(node(op_type, name, *extra, out=f"s{len(nodes)}", **attributes))
        name = nodes[-1].output[0]
    weight = only_weight(model_of(*nodes, node("MatMul", "x", name), w=ramp(*shape, dtype=np.int8), **QUANTISED))
    assert weight.zero_point is not None
    assert weight.scale is not None
    assert weight.zero_point.shape == weight.scale.shape == laid
    assert weight.zero_point.reshape(-1).tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_steps_that_cannot_be_laid_along_the_tensor_leave_it_alone() -> None:
    way: list[tuple[str, ...]] = [("w", "computed"), ("w", "step", "computed"), ("shaped", "scale")]
    for inputs in way:
        nodes = [
            node("Relu", "x", out="computed"),
            node("Reshape", "w", "to", out="shaped"),
            node("DequantizeLinear", *inputs, out="d"),
            node("MatMul", "x", "d"),
        ]
        arrays = {**QUANTISED, "to": np.array([5, 7], np.int64)}
        assert find_weights(model_of(*nodes, w=ramp(5, 7, dtype=np.int8), **arrays)) == ()


@pytest.mark.parametrize(
    ("user", "zero", "scale"),
    [
        (node("ConvInteger", "x", "w", "one", "zero"), list(range(1, 8)), [1]),
        (node("ConvInteger", "x", "w", "", "one"), [3], [1]),
        (node("ConvInteger", "x", "w"), [0], [1]),
        (
            node("QLinearConv", "x", "step", "one", "w", "scale", "zero", "step", "one"),
            list(range(1, 8)),
            (ramp(7) / 8).tolist(),
        ),
        (node("QLinearConv", "x", "step", "one", "w", "step", "one", "step", "one"), [3], [0.5]),
    ],
)
def test_integer_convolutions_have_their_zero_points_with_them(
    user: onnx.NodeProto, zero: list[int], scale: list[float]
) -> None:
    weight = only_weight(model_of(user, w=ramp(7, 2, 3, dtype=np.int8), **QUANTISED))
    assert weight.zero_point is not None
    assert weight.scale is not None
    assert (weight.zero_point.reshape(-1).tolist(), weight.scale.reshape(-1).tolist()) == (zero, scale)
    assert weight.zero_point.shape in ((7, 1, 1), (1, 1, 1))
    assert axes_of(weight) == [(0, 1)]


def test_integer_products_have_theirs() -> None:
    cases = [
        (node("MatMulInteger", "x", "w", "one", "zero"), (5, 7), (1, 7)),
        (node("MatMulInteger", "w", "x", "zero"), (7, 5), (7, 1)),
        (node("QLinearMatMul", "x", "step", "one", "w", "scale", "zero", "step", "one"), (5, 7), (1, 7)),
    ]
    for user, shape, laid in cases:
        weight = only_weight(model_of(user, w=ramp(*shape, dtype=np.int8), **QUANTISED))
        assert weight.zero_point is not None
        assert weight.zero_point.shape == laid
