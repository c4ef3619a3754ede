"""Ops on each coordinate by itself: activations, broadcasting arithmetic, residual additions, gates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

B1, B2 = [1.0, 2.0, 3.0, 4.0], [0.0, 5.0]
ROWS = "g (float[N,3] x) => (float[N,2] y)"
IMAGE = "g (float[N,2,4,4] x) => (float[N,2,h,w] y)"
DENSE = {"w1": ((4, 3), {0: [1]}), "b1": B1, "w2": ((2, 4), {1: [3]}), "b2": B2}
CONV = {"w1": ((4, 2, 1, 1), {0: [1]}), "b1": B1, "w2": ((2, 4, 2, 2), {1: [3]}), "b2": B2}


def dense(middle: str) -> str:
    return f"{ROWS} {{ h = Gemm<transB=1>(x, w1, b1) {middle} y = Gemm<transB=1>(m, w2, b2) }}"


def conv(middle: str) -> str:
    return f"{IMAGE} {{ c = Conv(x, w1, b1) {middle} y = Conv(m, w2, b2) }}"


Case = tuple[str, dict[str, Any], dict[str, Any]]

CASES: dict[str, Case] = {
    "leaky_relu": (dense("n = Neg(h) m = LeakyRelu<alpha=0.25>(n)"), DENSE, {}),
    "clip_inputs": (dense("m = Clip(h, low, high)"), {**DENSE, "low": np.float32(-1), "high": np.float32(1)}, {}),
    "clip_attributes": (dense("m = Clip<min=-1.0, max=1.0>(h)"), DENSE, {"opset": 8}),
    "sigmoid": (dense("m = Sigmoid(h)"), DENSE, {"exact": False}),
    "gelu": (dense("m = Gelu(h)"), DENSE, {"exact": False, "opset": 20}),
    "cast": (
        dense("d = Cast<to=11>(h) r = Relu(d) m = Cast<to=1>(r)"),
        DENSE,
        {},
    ),
    "dropout": (dense("m, mask = Dropout(h)"), DENSE, {}),
    "identity": (dense("m = Identity(h)"), DENSE, {}),
    "prelu": (conv("m = PRelu(c, slope)"), {**CONV, "slope": ((4, 1, 1),)}, {}),
    "add_vector": (conv("m = Add(c, v)"), {**CONV, "v": ((1, 4, 1, 1),)}, {}),
    "mul_scalar": (conv("m = Mul(c, v)"), {**CONV, "v": [2.0]}, {}),
    "add_map": (conv("m = Add(c, v)"), {**CONV, "v": ((1, 4, 4, 4),)}, {}),
    "add_same_for_all": (conv("m = Add(c, v)"), {**CONV, "v": ((4, 4),)}, {}),
    "sub_mul_div": (
        dense("s = Sub(h, v) t = Mul(u, s) m = Div(t, d)"),
        {**DENSE, "v": ((4,),), "u": ((1, 4),), "d": [2.0, 4.0, -2.0, 1.0]},
        {},
    ),
    "max_of_three": (dense("m = Max(h, v, zero)"), {**DENSE, "v": ((4,),), "zero": np.float32(0)}, {}),
    "where": (dense("p = Greater(h, zero) m = Where(p, h, v)"), {**DENSE, "v": ((4,),), "zero": np.float32(0)}, {}),
    "residual": (
        f"{ROWS} {{ h = Gemm<transB=1>(x, w1, b1) r = Relu(h) i = Gemm<transB=1>(r, w3) s = Add(h, i) "
        "y = Gemm<transB=1>(s, w2, b2) }",
        {
            "w1": ((4, 3), {0: [0, 1]}),
            "b1": B1,
            "w3": ((4, 4), {0: [1, 2], 1: [3]}),
            "w2": ((2, 4), {1: [3]}),
            "b2": B2,
        },
        {},
    ),
    "gate": (
        f"{IMAGE} {{ c = Conv(x, w1, b1) p = GlobalMaxPool(c) s = Conv(p, w3, b3) t = Relu(s) m = Mul(c, t) "
        "y = Conv(m, w2, b2) }",
        {**CONV, "w3": ((4, 4, 1, 1), {0: [2], 1: [3]}), "b3": [1.0, 2.0, -3.0, 4.0]},
        {},
    ),
    "add_graph_input": (
        "g (float[N,3] x, float[N,4] z) => (float[N,2] y) { h = Gemm<transB=1>(x, w1, b1) m = Add(h, z) "
        "y = Gemm<transB=1>(m, w2, b2) }",
        DENSE,
        {},
    ),
    "mul_by_broadcast_input": (
        "g (float[N,3] x, float[N,1] z) => (float[N,2] y) { h = Gemm<transB=1>(x, w1, b1) m = Mul(h, z) "
        "y = Gemm<transB=1>(m, w2, b2) }",
        {**DENSE, "b1": [1.0, 0.0, 3.0, 4.0]},
        {},
    ),
    "add_of_unknown_size": (
        "g (float[N,3] x, float[M] z) => (float[N,2] y) { h = Gemm<transB=1>(x, w1, b1) q = Add(z, z) m = Add(h, q) "
        "y = Gemm<transB=1>(m, w2, b2) }",
        DENSE,
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, golden: Callable[..., None]) -> None:
    golden(name, *CASES[name])
