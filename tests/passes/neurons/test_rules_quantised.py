"""Weights behind DequantizeLinear, and activations between QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.pipeline import State

NDArray = npt.NDArray[Any]
IMAGE = "g (float[N,2,4,4] x) => (float[N,2,h,w] y)"
COLUMNS = "g (float[N,3,5] x) => (float[N,2,5] y)"


def integers(
    shape: tuple[int, ...], dead: dict[int, list[int]], zero: int = 0, dtype: type[np.integer[Any]] = np.int8
) -> NDArray:
    """Small integers, none of them `zero`, with slices of nothing but `zero`."""
    values = np.random.default_rng(sum(shape)).integers(1, 4, shape) * np.random.default_rng(1).choice([-1, 1], shape)
    for axis, places in dead.items():
        for place in places:
            values[(slice(None),) * axis + (place,)] = 0
    found: NDArray = (values + zero).astype(dtype)
    return found


def vector(*values: int, dtype: type[np.integer[Any]] = np.int8) -> NDArray:
    return np.array(values, dtype)


ONE, HALF = np.float32(1.0), np.float32(0.5)
WEIGHTS = {
    "q1": integers((4, 2, 1, 1), {0: [1]}),
    "s1": np.array([1, 0.5, 2, 1], np.float32),
    "z1": vector(0, 0, 0, 0),
    "q2": integers((2, 4, 1, 1), {1: [3]}),
    "s2": np.array([1, 0.5], np.float32),
    "z2": vector(0, 0),
    "b1": vector(1, 4, -3, 2, dtype=np.int32),
    "b2": vector(0, 5, dtype=np.int32),
}
DEQUANTISED = """w1 = DequantizeLinear<axis=0>(q1, s1, z1) w2 = DequantizeLinear<axis=0>(q2, s2, z2)
c1 = DequantizeLinear<axis=0>(b1, s1) c2 = DequantizeLinear<axis=0>(b2, s2)"""
DENSE = {"q1": integers((4, 3), {0: [1]}), "q2": integers((2, 4), {1: [3]}), "one": ONE, "half": HALF}

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "quantised_scale_a_filter": (
        f"{IMAGE} {{ {DEQUANTISED} c = Conv(x, w1, c1) r = Relu(c) y = Conv(r, w2, c2) }}",
        WEIGHTS,
        {},
    ),
    "quantised_activations": (
        f"""{IMAGE} {{ {DEQUANTISED} xq = QuantizeLinear(x, one, zero) xd = DequantizeLinear(xq, one, zero)
        c = Conv(xd, w1, c1) r = Relu(c) rq = QuantizeLinear(r, one, zero) rd = DequantizeLinear(rq, one, zero)
        y = Conv(rd, w2, c2) }}""",
        {**WEIGHTS, "one": ONE, "zero": np.int8(3)},
        {},
    ),
    "quantised_activations_by_channel": (
        f"""{IMAGE} {{ {DEQUANTISED} c = Conv(x, w1, c1) n = Neg(c) rq = QuantizeLinear<axis=1>(n, by, to)
        rd = DequantizeLinear<axis=1>(rq, by, to) y = Conv(rd, w2, c2) }}""",
        {**WEIGHTS, "by": np.array([1, 2, 0.5, 1], np.float32), "to": vector(1, 2, 3, 4)},
        {},
    ),
    "quantised_zero_points": (
        f"""{COLUMNS} {{ w1 = DequantizeLinear(q1, half, five) w2 = DequantizeLinear(q2, one, three)
        h = MatMul(w1, x) r = Relu(h) y = MatMul(w2, r) }}""",
        {
            **DENSE,
            "q1": integers((4, 3), {0: [1]}, 5, np.uint8),
            "q2": integers((2, 4), {1: [3]}, 3, np.uint8),
            "five": np.uint8(5),
            "three": np.uint8(3),
        },
        {},
    ),
    "quantised_turned": (
        f"""{COLUMNS} {{ d1 = DequantizeLinear<axis=-1>(q1, s1) w1 = Transpose(d1) w2 = DequantizeLinear(q2, one)
        h = MatMul(w1, x) y = MatMul(w2, h) }}""",
        {**DENSE, "q1": integers((3, 4), {1: [1]}), "s1": np.array([1, 2, 0.5, 1], np.float32)},
        {},
    ),
    "quantised_constants_fold": (
        f"""{COLUMNS} {{ w1 = DequantizeLinear(q1, one) w2 = DequantizeLinear<axis=0>(q2, s2)
        c2 = DequantizeLinear(b2, one)
        p = MatMul(w1, x) h = Add(p, b1) r = Relu(h) o = MatMul(w2, r) y = Add(o, c2) }}""",
        {
            **DENSE,
            "b1": np.array([[1], [2], [3], [4]], np.float32),
            "b2": vector(1, 2, dtype=np.int32).reshape(2, 1),
            "s2": np.array([1, 0.5], np.float32),
        },
        {},
    ),
    "quantised_scales_shared": (
        f"""{COLUMNS} {{ w1 = DequantizeLinear<axis=0>(q1, s) w3 = DequantizeLinear<axis=0>(q3, s)
        w2 = DequantizeLinear(q2, one)
        h = MatMul(w1, x) k = MatMul(w3, x) a = MatMul(w2, h) b = MatMul(w2, k) y = Add(a, b) }}""",
        {
            **DENSE,
            "q3": integers((4, 3), {0: [0, 1]}),
            "s": np.array([1, 0.5, 2, 1], np.float32),
        },
        {},
    ),
    "quantised_scale_read_elsewhere": (
        f"""{COLUMNS} {{ w1 = DequantizeLinear<axis=0>(q1, s)
        w2 = DequantizeLinear(q2, one)
        h = MatMul(w1, x) m = ReduceMax<keepdims=0>(s) k = MatMul(w2, h) y = Add(k, m) }}""",
        {**DENSE, "s": np.array([1, 0.5, 2, 1], np.float32)},
        {},
    ),
    "quantised_scale_cast": (
        f"""{COLUMNS} {{ s = Cast<to=1>(sh) w1 = DequantizeLinear<axis=0>(q1, s) w2 = DequantizeLinear(q2, one)
        h = MatMul(w1, x) y = MatMul(w2, h) }}""",
        {**DENSE, "sh": np.array([1, 0.5, 2, 1], np.float16)},
        {},
    ),
    "quantised_scale_computed": (
        f"""{COLUMNS.replace("x)", "x, float s)")} {{ w1 = DequantizeLinear<axis=0>(q1, s)
        w2 = DequantizeLinear(q2, one)
        h = MatMul(w1, x) y = MatMul(w2, h) }}""",
        DENSE,
        {},
    ),
    "quantised_blocks": (
        f"""{COLUMNS} {{ w1 = DequantizeLinear<axis=1, block_size=3>(q1, s) w2 = DequantizeLinear(q2, one)
        h = MatMul(w1, x) y = MatMul(w2, h) }}""",
        {**DENSE, "s": np.array([[1], [0.5], [2], [1]], np.float32)},
        {"opset": 21, "ir": 10},
    ),
    "quantised_neurons_are_outputs": (
        "g (float[N,3] x) => (float[N,2] y) { w = DequantizeLinear(q, s, z) y = MatMul(x, w) }",
        {"q": np.array([[3, 4], [3, 4], [3, 6]], np.int8), "s": np.float32(0.5), "z": np.int8(3)},
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, golden: Callable[..., None]) -> None:
    golden(name, *CASES[name])


def test_scales_and_zero_points_are_cut(build: Callable[..., Any], shapes: Callable[..., Any]) -> None:
    text, weights, _ = CASES["quantised_scale_a_filter"]
    found = shapes(RemoveDeadNeurons()(State(build(text, weights))))
    assert found["q1"] == (2, 2, 1, 1)
    assert found["s1"] == found["z1"] == found["b1"] == (2,)
    assert found["q2"] == (2, 2, 1, 1)
    assert found["s2"] == found["z2"] == found["b2"] == (2,)
