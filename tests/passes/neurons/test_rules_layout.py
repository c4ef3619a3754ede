"""Transpose, Reshape, Flatten, Squeeze, Unsqueeze, Shape, Expand, Tile: sizes given, copied and computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

B1, B2 = [1.0, 2.0, 3.0, 4.0], [0.0, 5.0]
CONV = {"w1": ((4, 2, 1, 1), {0: [1]}), "b1": B1}
DENSE = {"w1": ((4, 3), {0: [1]}), "b1": B1, "w2": ((2, 4), {1: [3]}), "b2": B2}
FLAT = {**CONV, "w2": ((36, 2), {0: [*range(27, 36)]}), "b2": B2}
"""36 features: 4 channels of 3 x 3; the last channel is output-dead."""


def flat(middle: str, shape: str = "N,2,3,3", out: str = "N") -> str:
    return f"g (float[{shape}] x) => (float[{out},2] y) {{ c = Conv(x, w1, b1) {middle} y = Gemm(f, w2, b2) }}"


def dense(middle: str) -> str:
    return (
        f"g (float[N,3] x) => (float[N,2] y) {{ h = Gemm<transB=1>(x, w1, b1) {middle} y = Gemm<transB=1>(m, w2, b2) }}"
    )


def image(middle: str) -> str:
    return f"g (float[N,2,3,3] x) => (float[N,2,h,w] y) {{ c = Conv(x, w1, b1) {middle} y = Conv(m, w2, b2) }}"


Case = tuple[str, dict[str, Any], dict[str, Any]]
SHUFFLE = {
    "w1": ((4, 2, 1, 1), {0: [1, 3]}),
    "b1": B1,
    "w2": ((2, 4, 1, 1), {1: [1]}),
    "b2": B2,
}

CASES: dict[str, Case] = {
    "flatten": (flat("f = Flatten(c)"), FLAT, {}),
    "reshape_named": (flat("f = Reshape(c, to)", shape="5,2,3,3", out="5"), {**FLAT, "to": [5, 36]}, {}),
    "reshape_named_by_an_old_input": (
        flat("f = Reshape(c, to)", shape="5,2,3,3", out="5"),
        {**FLAT, "to": [5, 36]},
        {"opset": 8, "ir": 3},
    ),
    "reshape_rest_in_front": (flat("f = Reshape(c, to)"), {**FLAT, "to": [-1, 36]}, {}),
    "reshape_rest_behind": (flat("f = Reshape(c, to)"), {**FLAT, "to": [0, -1]}, {}),
    "reshape_copies": (
        image("s = Reshape(c, flat) m = Reshape(s, back)"),
        {**CONV, "flat": [0, 0, -1], "back": [0, 0, 3, 3], "w2": ((2, 4, 1, 1), {1: [3]}), "b2": B2},
        {},
    ),
    "reshape_shared_target": (
        """g (float[N,2,3,3] x) => (float[N,2] y, float[N,36] z) { c = Conv(x, w1, b1) f = Reshape(c, to)
            y = Gemm(f, w2, b2) d = Conv(x, w3) z = Reshape(d, to) }""",
        {**FLAT, "w3": ((4, 2, 1, 1),), "to": [-1, 36]},
        {},
    ),
    "reshape_computed_batch": (
        flat("s = Shape(c) n = Gather(s, zero) u = Unsqueeze(n, axes) t = Concat<axis=0>(u, rest) f = Reshape(c, t)"),
        {**FLAT, "zero": np.int64(0), "axes": [0], "rest": [-1]},
        {},
    ),
    "reshape_computed_batch_and_named_size": (
        flat("s = Shape(c) n = Gather(s, zero) u = Unsqueeze(n, axes) t = Concat<axis=0>(u, rest) f = Reshape(c, t)"),
        {**FLAT, "zero": np.int64(0), "axes": [0], "rest": [36]},
        {},
    ),
    "reshape_follows_shape": (
        image(
            "s = Shape(c) a = Slice(s, zero, two) t = Concat<axis=0>(a, rest) r = Reshape(c, t) q = Relu(r) "
            "m = Reshape(q, back)"
        ),
        {**CONV, "zero": [0], "two": [2], "rest": [-1], "back": [0, 0, 3, 3], "w2": ((2, 4, 1, 1), {1: [3]}), "b2": B2},
        {},
    ),
    "reshape_computes_with_the_size": (
        flat("s = Shape(c) n = Gather(s, one) k = Mul(n, nine) t = Concat<axis=0>(rest, k) f = Reshape(c, t)"),
        {**FLAT, "one": [1], "nine": [9], "rest": [-1]},
        {},
    ),
    "reshape_by_an_initializer_among_the_inputs": (
        flat("f = Reshape(c, to)"),
        {**FLAT, "to": [-1, 36]},
        {"ir": 3, "opset": 8},
    ),
    "reshape_of_unknown_width": (
        """g (float[N,2,3,W] x) => (float[N,a,W] y) { c = Conv(x, w1, b1) f = Reshape(c, to) y = MatMul(w2, f) }""",
        {**CONV, "to": [0, 12, -1], "w2": ((2, 12), {1: [9, 10, 11]})},
        {},
    ),
    "reshape_merges_unknown_width": (
        "g (float[1,2,W,W] x) => (float[1,a,1] y) { c = Conv(x, w1, b1) f = Reshape(c, to) y = MatMul(f, w2) }",
        {**CONV, "to": [1, -1, 1], "w2": np.ones((1, 1), np.float32)},
        {},
    ),
    "channel_shuffle": (
        image("r = Reshape(c, split) t = Transpose<perm=[0,2,1,3,4]>(r) m = Reshape(t, merge)"),
        {**SHUFFLE, "split": [-1, 2, 2, 3, 3], "merge": [-1, 4, 3, 3]},
        {},
    ),
    "channel_shuffle_ragged": (
        image("r = Reshape(c, split) t = Transpose<perm=[0,2,1,3,4]>(r) m = Reshape(t, merge)"),
        {**SHUFFLE, "w1": ((4, 2, 1, 1), {0: [1]}), "split": [-1, 2, 2, 3, 3], "merge": [-1, 4, 3, 3]},
        {},
    ),
    "transpose": (
        """g (float[N,2,3,3] x) => (float[N,3,3,2] y) { c = Conv(x, w1, b1) t = Transpose<perm=[0,2,3,1]>(c)
            o = MatMul(t, w2) y = Add(o, b2) }""",
        {**CONV, "w2": ((4, 2), {0: [3]}), "b2": B2},
        {},
    ),
    "squeeze": (
        "g (float[N,2,3,3] x) => (float[N,2] y) { c = Conv(x, w1, b1) p = GlobalMaxPool(c) f = Squeeze(p, axes) "
        "y = Gemm(f, w2, b2) }",
        {**CONV, "axes": [2, -1], "w2": ((4, 2), {0: [3]}), "b2": B2},
        {},
    ),
    "squeeze_attribute": (
        "g (float[N,2,3,3] x) => (float[N,2] y) { c = Conv(x, w1, b1) p = GlobalMaxPool(c) f = Squeeze<axes=[2,3]>(p) "
        "y = Gemm(f, w2, b2) }",
        {**CONV, "w2": ((4, 2), {0: [3]}), "b2": B2},
        {"opset": 11},
    ),
    "squeeze_to_one": (
        "g (float[2,2,3,3] x) => (float[2,2] y) { c = Conv(x, w1, b1) p = GlobalMaxPool(c) f = Squeeze(p) "
        "y = Gemm(f, w2, b2) }",
        {**CONV, "w1": ((4, 2, 1, 1), {0: [0, 1, 3]}), "w2": ((4, 2),), "b2": B2},
        {},
    ),
    "squeeze_to_one_attribute": (
        "g (float[2,2,3,3] x) => (float[2,2] y) { c = Conv(x, w1, b1) p = GlobalMaxPool(c) f = Squeeze(p) "
        "y = Gemm(f, w2, b2) }",
        {**CONV, "w1": ((4, 2, 1, 1), {0: [0, 1, 3]}), "w2": ((4, 2),), "b2": B2},
        {"opset": 11},
    ),
    "unsqueeze": (
        "g (float[N,3] x) => (float[N,2,1,1] y) { h = Gemm<transB=1>(x, w1, b1) u = Unsqueeze(h, axes) "
        "y = Conv(u, w2, b2) }",
        {"w1": ((4, 3), {0: [1]}), "b1": B1, "axes": [2, -1], "w2": ((2, 4, 1, 1), {1: [3]}), "b2": B2},
        {},
    ),
    "shape_of_neurons": (
        "g (float[N,3] x) => (float[N,2] y, int64[2] s) { h = Gemm<transB=1>(x, w1, b1) s = Shape(h) "
        "y = Gemm<transB=1>(h, w2, b2) }",
        DENSE,
        {},
    ),
    "shape_of_the_batch": (
        "g (float[N,3] x) => (float[N,2] y, int64[1] s) { h = Gemm<transB=1>(x, w1, b1) s = Shape<end=1>(h) "
        "y = Gemm<transB=1>(h, w2, b2) }",
        DENSE,
        {},
    ),
    "size_of_neurons": (
        "g (float[N,3] x) => (float[N,2] y, int64 s) { h = Gemm<transB=1>(x, w1, b1) s = Size(h) "
        "y = Gemm<transB=1>(h, w2, b2) }",
        DENSE,
        {},
    ),
    "expand": (
        "g (float[N,2,1,1] x) => (float[N,2,3,3] y) { c = Conv(x, w1, b1) e = Expand(c, to) y = Conv(e, w2, b2) }",
        {**CONV, "to": [1, 4, 3, 3], "w2": ((2, 4, 1, 1), {1: [3]}), "b2": B2},
        {},
    ),
    "expand_by_ones": (
        "g (float[N,2,1,1] x) => (float[N,2,3,3] y) { c = Conv(x, w1, b1) e = Expand(c, to) y = Conv(e, w2, b2) }",
        {**CONV, "to": [1, 1, 3, 3], "w2": ((2, 4, 1, 1), {1: [3]}), "b2": B2},
        {},
    ),
    "expand_to_shape": (
        "g (float[N,3] x) => (float[N,2] y) { h = Gemm<transB=1>(x, w1, b1) s = Shape(h) i = Gemm<transB=1>(x, w1) "
        "e = Expand(i, s) a = Add(h, e) y = Gemm<transB=1>(a, w2, b2) }",
        DENSE,
        {},
    ),
    "tile": (
        image("m = Tile(c, times)"),
        {**CONV, "times": [1, 1, 2, 3], "w2": ((2, 4, 1, 1), {1: [3]}), "b2": B2},
        {},
    ),
    "tile_neurons": (
        image("m = Tile(c, times)"),
        {**CONV, "times": [1, 2, 1, 1], "w2": ((2, 8, 1, 1),), "b2": B2},
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, golden: Callable[..., None]) -> None:
    golden(name, *CASES[name])
