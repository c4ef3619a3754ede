"""Concat, Split, Slice, Gather, Pad: sizes, bounds and positions along the neurons' axis are rewritten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

B1, B2 = [1.0, 2.0, 3.0, 4.0], [0.0, 5.0]
CONV = {"w1": ((4, 2, 1, 1), {0: [1]}), "b1": B1, "w2": ((2, 4, 1, 1), {1: [3]}), "b2": B2}
PAIR = {"w1": ((4, 2, 1, 1), {0: [1]}), "b1": B1, "w3": ((3, 2, 1, 1), {0: [2]}), "b3": [5.0, 6.0, 7.0], "b2": B2}
SIX = {"w1": ((6, 2, 1, 1), {0: [1, 4]}), "b1": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "b2": B2}


def image(middle: str) -> str:
    return f"g (float[N,2,4,4] x) => (float[N,2,h,w] y) {{ c = Conv(x, w1, b1) {middle} y = Conv(m, w2, b2) }}"


Case = tuple[str, dict[str, Any], dict[str, Any]]

CASES: dict[str, Case] = {
    "concat": (
        image("d = Conv(x, w3, b3) m = Concat<axis=1>(c, d)"),
        {**PAIR, "w2": ((2, 7, 1, 1), {1: [3, 5]})},
        {},
    ),
    "concat_with_input": (
        image("m = Concat<axis=-3>(x, c)"),
        {**CONV, "w2": ((2, 6, 1, 1), {1: [0, 5]})},
        {},
    ),
    "concat_with_constant": (
        "g (float[5,3] x) => (float[5,2] y) { h = Gemm<transB=1>(x, w1, b1) m = Concat<axis=1>(h, ones) "
        "y = Gemm(m, w2) }",
        {"w1": ((4, 3), {0: [1]}), "b1": B1, "ones": ((5, 2),), "w2": ((6, 2), {0: [3, 4]})},
        {},
    ),
    "concat_beside": (
        image("d = Conv(x, w3, b1) m = Concat<axis=2>(c, d)"),
        {**CONV, "w3": ((4, 2, 1, 1), {0: [1, 2]})},
        {},
    ),
    "concat_beside_constant": (
        image("m = Concat<axis=2>(row, c)").replace("[N,", "[1,"),
        {**CONV, "row": ((1, 4, 1, 4),)},
        {},
    ),
    "split_named": (
        image("p, q = Split<axis=1>(c, sizes) r = Neg(q) m = Concat<axis=1>(r, p)"),
        {**SIX, "sizes": [4, 2], "w2": ((2, 6, 1, 1), {1: [5]})},
        {},
    ),
    "split_equal": (
        image("p, q = Split<axis=1>(c) r = Neg(q) m = Concat<axis=1>(r, p)"),
        {**SIX, "w2": ((2, 6, 1, 1), {1: [5]})},
        {},
    ),
    "split_num_outputs": (
        image("p, q = Split<axis=1, num_outputs=2>(c) r = Neg(q) m = Concat<axis=1>(r, p)"),
        {**SIX, "w2": ((2, 6, 1, 1), {1: [5]})},
        {"opset": 18},
    ),
    "split_attribute": (
        image("p, q = Split<axis=1, split=[4,2]>(c) r = Neg(q) m = Concat<axis=1>(r, p)"),
        {**SIX, "w2": ((2, 6, 1, 1), {1: [5]})},
        {"opset": 11},
    ),
    "split_beside": (
        image("p, q = Split<axis=3>(c, sizes) m = Add(p, q)"),
        {**CONV, "sizes": [2, 2]},
        {},
    ),
    "split_part_all_dead": (
        image("p, q = Split<axis=1>(c, sizes) r = Conv(q, w3) s = Conv(p, w4) m = Add(r, s)"),
        {
            "w1": ((4, 2, 1, 1), {0: [0, 1]}),
            "b1": B1,
            "sizes": [2, 2],
            "w3": ((3, 2, 1, 1),),
            "w4": ((3, 2, 1, 1),),
            "w2": ((2, 3, 1, 1),),
            "b2": B2,
        },
        {},
    ),
    "slice": (
        image("m = Slice(c, from, to, axes)"),
        {**SIX, "from": [1], "to": [5], "axes": [1], "w2": ((2, 4, 1, 1), {1: [2]})},
        {},
    ),
    "slice_to_the_end": (
        image("m = Slice(c, from, to, axes)"),
        {**SIX, "from": [-4], "to": [np.iinfo(np.int64).max], "axes": [1], "w2": ((2, 4, 1, 1), {1: [2]})},
        {},
    ),
    "slice_attributes": (
        image("m = Slice<starts=[1, 0], ends=[5, 3], axes=[1, 2]>(c)"),
        {**SIX, "w2": ((2, 4, 1, 1), {1: [2]})},
        {"opset": 9},
    ),
    "slice_beside": (
        image("m = Slice(c, from, to, axes, steps)"),
        {**CONV, "from": [3, 0], "to": [-9, 4], "axes": [2, 3], "steps": [-1, 2]},
        {},
    ),
    "slice_steps_over_neurons": (
        image("m = Slice(c, from, to, axes, steps)"),
        {**SIX, "from": [0], "to": [6], "axes": [1], "steps": [2], "w2": ((2, 3, 1, 1),)},
        {},
    ),
    "slice_of_one": (
        image("s = Slice(c, from, to, axes) t = Sigmoid(s) z = Sub(t, t) m = Add(c, z)"),
        {**CONV, "from": [1], "to": [2], "axes": [1]},
        {},
    ),
    "gather": (
        image("m = Gather<axis=1>(c, at)"),
        {**SIX, "at": [5, 1, 0, -3], "w2": ((2, 4, 1, 1), {1: [2]})},
        {},
    ),
    "gather_one": (
        "g (float[N,2,4,4] x) => (float[N,2,4,4] y) { c = Conv(x, w1, b1) p = Gather<axis=1>(c, at) "
        "u = Unsqueeze(p, axes) o = Conv(c, w2, b2) y = Add(o, u) }",
        {**CONV, "w1": ((4, 2, 1, 1), {0: [1, 2]}), "at": np.int64(2), "axes": [1]},
        {},
    ),
    "gather_rows_of_neurons": (
        """g (float[N,3] x) => (float[N,2] y) { c = MatMul(x, w1) r = Reshape(c, rows) q = Gather<axis=1>(r, first)
        v = Gather<axis=1>(r, third) a = MatMul(q, w2) b = MatMul(v, w3) y = Add(a, b) }""",
        {
            "w1": ((3, 12),),
            "rows": [0, 3, 4],
            "first": np.int64(0),
            "third": np.int64(2),
            "w2": ((4, 2), {0: [1, 2]}),
            "w3": ((4, 2), {0: [1, 3]}),
        },
        {},
    ),
    "gather_beside": (
        image("m = Gather<axis=2>(c, at)"),
        {**CONV, "at": [0, 2]},
        {},
    ),
    "gather_computed": (
        "g (float[N,2,4,4] x, int64[3] at) => (float[N,2,h,w] y) { c = Conv(x, w1, b1) m = Gather<axis=1>(c, at) "
        "y = Conv(m, w2) }",
        {"w1": ((4, 2, 1, 1), {0: [1]}), "b1": B1, "w2": ((2, 3, 1, 1),)},
        {},
    ),
    "embedding": (
        "g (int64[N,5] x) => (float[N,5,2] y) { e = Gather(table, x) r = Relu(e) o = MatMul(r, w2) y = Add(o, b2) }",
        {"table": ((3, 4), {1: [1]}), "w2": ((4, 2), {0: [3]}), "b2": B2},
        {},
    ),
    "pad_space": (
        image("m = Pad(c, pads)"),
        {**CONV, "pads": [0, 0, 1, 1, 0, 0, 0, 1], "w1": ((4, 2, 1, 1), {0: [1, 2]}), "b1": [1.0, 2.0, 0.0, 4.0]},
        {},
    ),
    "pad_space_reflected": (
        image('m = Pad<mode="reflect">(c, pads)'),
        {**CONV, "pads": [0, 0, 1, 1, 0, 0, 0, 1]},
        {},
    ),
    "pad_neurons": (
        image("d = Conv(x, w3, b3) p = Pad(d, pads) m = Add(c, p)"),
        {
            **SIX,
            "w1": ((6, 2, 1, 1), {0: [0, 1, 5]}),
            "w3": ((3, 2, 1, 1), {0: [0]}),
            "b3": [1.0, 2.0, 3.0],
            "pads": [0, 1, 0, 0, 0, 2, 0, 0],
            "w2": ((2, 6, 1, 1), {1: [3]}),
        },
        {},
    ),
    "pad_axes": (
        image("d = Conv(x, w3, b3) p = Pad(d, pads, , axes) m = Add(c, p)"),
        {
            **SIX,
            "w1": ((6, 2, 1, 1), {0: [0, 1, 5]}),
            "w3": ((3, 2, 1, 1), {0: [0]}),
            "b3": [1.0, 2.0, 3.0],
            "pads": [0, 1, 0, 2],
            "axes": [-1, 1],
            "w2": ((2, 6, 1, 1), {1: [3]}),
        },
        {"opset": 18},
    ),
    "pad_axes_of_space": (
        image("m = Pad(c, pads, , axes)"),
        {**CONV, "pads": [1, 0, 1, 2], "axes": [3, -2], "w1": ((4, 2, 1, 1), {0: [1, 2]}), "b1": [1.0, 2.0, 0.0, 4.0]},
        {"opset": 18},
    ),
    "pad_axes_wrapped": (
        image('m = Pad<mode="wrap">(c, pads, , axes)'),
        {**CONV, "pads": [1, 2], "axes": [3]},
        {"opset": 19},
    ),
    "pad_axes_computed": (
        image("m = Pad(c, pads, , axes)").replace("x)", "x, int64[2] axes)"),
        {**CONV, "pads": [1, 0, 1, 2]},
        {"opset": 18, "exact": False},
    ),
    "pad_neurons_attribute": (
        image("d = Conv(x, w3, b3) p = Pad<pads=[0,1,0,0,0,2,0,0]>(d) m = Add(c, p)"),
        {
            **SIX,
            "w1": ((6, 2, 1, 1), {0: [0, 1, 5]}),
            "w3": ((3, 2, 1, 1), {0: [0]}),
            "b3": [1.0, 2.0, 3.0],
            "w2": ((2, 6, 1, 1), {1: [3]}),
        },
        {"opset": 10},
    ),
    "crop_neurons": (
        image("m = Pad(c, pads)"),
        {**SIX, "pads": [0, -1, 0, 0, 0, 0, 0, 0], "w2": ((2, 5, 1, 1),)},
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, golden: Callable[..., None]) -> None:
    golden(name, *CASES[name])
