"""Weights and biases behind Reshape, Flatten, Squeeze, Unsqueeze and Cast: the stored tensor is cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

ROWS = "g (float[N,3] x) => (float[N,2] y)"
IMAGE = "g (float[N,2,4,4] x) => (float[N,2,h,w] y)"
B1 = [1.0, 2.0, 3.0, 4.0]
CONV = {"w1": ((4, 2, 1, 1), {0: [1]}), "b1": B1, "w2": ((2, 4, 1, 1), {1: [3]})}
FLAT = "g (float[N,2,2,2] x) => (float[N,3] y)"
Case = tuple[str, dict[str, Any], dict[str, Any]]

CASES: dict[str, Case] = {
    "view_merged": (
        f"{FLAT} {{ c = Conv(x, w1, b1) f = Flatten(c) w = Reshape(w2, to) y = MatMul(f, w) }}",
        {"w1": CONV["w1"], "b1": B1, "w2": ((4, 2, 2, 3), {0: [3]}), "to": [16, 3]},
        {},
    ),
    "view_merged_by_the_rest": (
        f"{FLAT} {{ c = Conv(x, w1, b1) f = Flatten(c) w = Reshape(w2, to) y = Gemm<transB=1>(f, w) }}",
        {"w1": CONV["w1"], "b1": B1, "w2": ((3, 4, 2, 2), {1: [3]}), "to": [0, -1]},
        {},
    ),
    "view_flattened": (
        f"{FLAT} {{ c = Conv(x, w1, b1) f = Flatten(c) w = Flatten(w2) y = Gemm<transB=1>(f, w) }}",
        {"w1": CONV["w1"], "b1": B1, "w2": ((3, 4, 2, 2), {1: [3]})},
        {},
    ),
    "view_merged_out": (
        f"{ROWS} {{ w = Reshape(w1, to) h = MatMul(x, w) y = MatMul(h, w2) }}",
        {"w1": ((3, 4, 2), {1: [1]}), "to": [3, 8], "w2": ((8, 2), {0: [0, 4, 5]})},
        {},
    ),
    "view_split": (
        f"{ROWS} {{ w = Reshape(w1, to) h = MatMul(x, w) y = MatMul(h, w2) }}",
        {"w1": ((12,), {0: [0, 4, 8]}), "to": [3, 4], "w2": ((4, 2), {0: [1]})},
        {},
    ),
    "view_unsqueezed": (
        f"{IMAGE} {{ k1 = Unsqueeze(w1, ends) c = Conv(x, k1, b1) k2 = Unsqueeze(w2, ends) y = Conv(c, k2) }}",
        {"w1": ((4, 2), {0: [1]}), "b1": B1, "w2": ((2, 4), {1: [3]}), "ends": [-2, -1]},
        {},
    ),
    "view_unsqueezed_attribute": (
        f"{IMAGE} {{ k1 = Unsqueeze<axes=[2,3]>(w1) c = Conv(x, k1, b1) y = Conv(c, w2) }}",
        {**CONV, "w1": ((4, 2), {0: [1]})},
        {"opset": 11},
    ),
    "view_squeezed": (
        f"{ROWS} {{ v1 = Squeeze(w1) h = MatMul(x, v1) v2 = Squeeze(w2, ends) y = MatMul(h, v2) }}",
        {"w1": ((3, 4, 1), {1: [1]}), "w2": ((1, 4, 2), {1: [3]}), "ends": [0]},
        {},
    ),
    "view_squeezed_to_one": (
        f"{ROWS} {{ v1 = Squeeze(w1) h = MatMul(x, v1) y = MatMul(h, w2) }}",
        {"w1": ((3, 4, 1), {1: [0, 1, 2]}), "w2": ((4, 2),)},
        {},
    ),
    "view_turned_and_merged": (
        f"{FLAT} {{ c = Conv(x, w1, b1) f = Flatten(c) t = Transpose<perm=[2,0,1]>(w2) w = Reshape(t, to) "
        "y = MatMul(f, w) }",
        {"w1": CONV["w1"], "b1": B1, "w2": ((4, 3, 4), {2: [3]}), "to": [16, 3]},
        {},
    ),
    "view_bias": (
        f"{IMAGE} {{ c = Conv(x, w1) b = Reshape(b1, to) m = Add(c, b) y = Conv(m, w2) }}",
        {**CONV, "to": [1, -1, 1, 1]},
        {},
    ),
    "view_wide_cast": (
        f"{ROWS} {{ v1 = Cast<to=1>(w1) h = MatMul(x, v1) y = MatMul(h, w2) }}",
        {"w1": np.array([[1, 0, 2, 3], [2, 0, 1, 1], [3, 0, 1, 2]], np.float16), "w2": ((4, 2), {0: [3]})},
        {},
    ),
    "view_narrow_cast": (
        """g (float16[N,3] x) => (float16[N,2] y) { v1 = Cast<to=10>(w1) c1 = Cast<to=10>(b1) m = MatMul(x, v1)
        h = Add(m, c1) v2 = Cast<to=10>(w2) y = MatMul(h, v2) }""",
        {"w1": ((3, 4), {1: [1]}), "b1": B1, "w2": ((4, 2), {0: [3]})},
        {},
    ),
    "view_quantised": (
        f"{FLAT} {{ c = Conv(x, w1, b1) f = Flatten(c) d = DequantizeLinear(w2, step) w = Reshape(d, to) "
        "y = MatMul(f, w) }",
        {
            "w1": CONV["w1"],
            "b1": B1,
            "w2": np.repeat(np.array([1, -2, 3, 0], np.int8), 12).reshape(4, 2, 2, 3),
            "step": np.float32(0.5),
            "to": [16, 3],
        },
        {},
    ),
    "view_read_along_another_axis": (
        f"{FLAT[:-1]}, float[N,3] z) {{ c = Conv(x, w1, b1) f = Flatten(c) w = Reshape(w2, to) y = MatMul(f, w) "
        "k = ReduceSum(w2, inner) z = Add(y, k) }",
        {"w1": CONV["w1"], "b1": B1, "w2": ((4, 2, 2, 3), {0: [3]}), "to": [16, 3], "inner": [0, 1, 2]},
        {},
    ),
    "view_of_gates": (
        """g (float[5,1,3] x) => (float[5,1,2] y) { w = Unsqueeze(wi, zero) r = Unsqueeze(wh, zero)
        s = LSTM<hidden_size=4>(x, w, r) q = Squeeze(s, one) y = MatMul(q, wo) }""",
        {
            "wi": np.tile(np.array([[1, -1, 1], [2, 1, -1], [1, 1, 1], [-1, 2, 1]], np.float32) / 4, (4, 1)),
            "wh": np.tile(np.array([[1, 0, 1, -1]], np.float32) / 4, (16, 1)),
            "zero": [0],
            "one": [1],
            "wo": np.array([[1, 2], [0, 0], [1, 1], [2, 1]], np.float32) / 4,
        },
        {"exact": False},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, golden: Callable[..., None]) -> None:
    golden(name, *CASES[name])
