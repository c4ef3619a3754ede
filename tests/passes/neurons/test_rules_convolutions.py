"""Conv and ConvTranspose: ordinary, padded, depthwise, grouped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

IMAGE = "g (float[N,2,4,4] x) => (float[N,2,h,w] y)"
B1, B2 = [1.0, 2.0, 3.0, 4.0], [0.0, 5.0]

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "conv": (
        f"{IMAGE} {{ c = Conv(x, w1, b1) r = Relu(c) y = Conv(r, w2, b2) }}",
        {"w1": ((4, 2, 1, 1), {0: [1]}), "b1": B1, "w2": ((2, 4, 2, 2), {1: [3]}), "b2": B2},
    ),
    "conv_without_bias": (
        f"{IMAGE} {{ c = Conv(x, w1, b1) y = Conv(c, w2) }}",
        {"w1": ((4, 2, 3, 3), {0: [1]}), "b1": B1, "w2": ((2, 4, 2, 2), {1: [3]})},
    ),
    "conv_padded": (
        f"{IMAGE} {{ c = Conv(x, w1, b1) r = Relu(c) y = Conv<pads=[1,1,1,1]>(r, w2) }}",
        {"w1": ((4, 2, 1, 1), {0: [1, 2]}), "b1": [1.0, 2.0, -3.0, 4.0], "w2": ((2, 4, 3, 3), {1: [3]})},
    ),
    "conv_auto_pad": (
        f'{IMAGE} {{ c = Conv(x, w1, b1) y = Conv<auto_pad="SAME_UPPER">(c, w2) }}',
        {"w1": ((4, 2, 1, 1), {0: [1, 2]}), "b1": [1.0, 2.0, 0.0, 4.0], "w2": ((2, 4, 2, 2), {1: [3]})},
    ),
    "conv_grouped": (
        f"{IMAGE} {{ c = Conv(x, w1, b1) y = Conv<group=2>(c, w2) }}",
        {"w1": ((4, 2, 1, 1), {0: [1]}), "b1": B1, "w2": ((2, 2, 1, 1),)},
    ),
    "conv_grouped_places": (
        f"{IMAGE} {{ c = Conv(x, w1, b1) d = Conv<group=2>(c, wd, bd) y = Conv(d, w2, b2) }}",
        {
            "w1": ((8, 2, 1, 1), {0: [1, 5]}),
            "b1": [1.0, 0.0, 3.0, 4.0, 1.0, 0.0, 3.0, 4.0],
            "wd": ((6, 4, 2, 2), {0: [1, 4], 1: [3]}),
            "bd": [1.0, 2.0, 3.0, 1.0, 5.0, 3.0],
            "w2": ((2, 6, 1, 1), {1: [2, 5]}),
            "b2": B2,
        },
    ),
    "conv_grouped_constants_differ": (
        f"{IMAGE} {{ c = Conv(x, w1, b1) d = Conv<group=2>(c, wd) y = Conv(d, w2) }}",
        {
            "w1": ((4, 2, 1, 1), {0: [1, 3]}),
            "b1": B1,
            "wd": ((4, 2, 1, 1), {0: [1]}),
            "w2": ((2, 4, 1, 1),),
        },
    ),
    "conv_grouped_whole_groups": (
        f"{IMAGE} {{ c = Conv(x, w1, b1) d = Conv<group=3>(c, wd, bd) y = Conv(d, w2, b2) }}",
        {
            "w1": ((6, 2, 1, 1),),
            "b1": [*B1, 5.0, 6.0],
            "wd": ((9, 2, 2, 2), {0: [3, 4, 5]}),
            "bd": [*B1, *B1, 1.0],
            "w2": ((2, 9, 1, 1),),
            "b2": B2,
        },
    ),
    "conv_grouped_of_input": (
        f"{IMAGE} {{ c = Conv<group=2>(x, wd) y = Conv(c, w2) }}",
        {"wd": ((4, 1, 1, 1), {0: [1, 3]}), "w2": ((2, 4, 1, 1),)},
    ),
    "conv_grouped_pinned_inputs": (
        "g (float[N,4,4,4] x) => (float[N,2,h,w] y) { c = Conv<group=2>(x, wd) y = Conv(c, w2) }",
        {"wd": ((6, 2, 1, 1), {0: [1, 4], 1: [1]}), "w2": ((2, 6, 1, 1), {1: [2]})},
    ),
    "conv_grouped_empty_group_of_input": (
        "g (float[N,4,4,4] x) => (float[N,2,h,w] y) { c = Conv<group=2>(x, wd) y = Conv(c, w2) }",
        {"wd": ((4, 2, 1, 1), {0: [2, 3]}), "w2": ((2, 4, 1, 1),)},
    ),
    "conv_transpose_grouped": (
        f"{IMAGE} {{ c = Conv(x, w1, b1) d = ConvTranspose<group=2, strides=[2,2]>(c, wd, bd) y = Conv(d, w2) }}",
        {
            "w1": ((6, 2, 1, 1), {0: [1, 4]}),
            "b1": [1.0, 0.0, 3.0, 4.0, 0.0, 6.0],
            "wd": ((6, 4, 2, 2), {0: [2, 5], 1: [3]}),
            "bd": [*B1, *B1],
            "w2": ((2, 8, 1, 1), {1: [1, 5]}),
        },
    ),
    "conv_computed_weight": (
        "g (float[N,2,4,4] x, float[2,4,1,1] k) => (float[N,2,4,4] y) { c = Conv(x, w1, b1) y = Conv(c, k) }",
        {"w1": ((4, 2, 1, 1), {0: [1]}), "b1": B1},
    ),
    "conv_computed_bias": (
        """g (float[N,2,4,4] x, float[4] b, float[2] d) => (float[N,2,4,4] y) {
            c = Conv(x, w1, b) e = Conv(x, w1, b1) f = Conv(e, w2, d) s = Conv(c, w2) y = Add(f, s) }""",
        {"w1": ((4, 2, 1, 1), {0: [1]}), "b1": B1, "w2": ((2, 4, 1, 1), {1: [3]})},
    ),
    "depthwise": (
        f"{IMAGE} {{ c = Conv(x, w1, b1) d = Conv<group=4>(c, wd, bd) r = Relu(d) y = Conv(r, w2, b2) }}",
        {
            "w1": ((4, 2, 1, 1), {0: [1]}),
            "b1": B1,
            "wd": ((4, 1, 2, 2), {0: [2]}),
            "bd": [1.0, 20.0, 3.0, 4.0],
            "w2": ((2, 4, 1, 1), {1: [3]}),
            "b2": B2,
        },
    ),
    "depthwise_padded": (
        f"{IMAGE} {{ c = Conv(x, w1, b1) d = Conv<group=4, pads=[1,1,1,1]>(c, wd) y = Conv(d, w2) }}",
        {"w1": ((4, 2, 1, 1), {0: [1]}), "b1": B1, "wd": ((4, 1, 3, 3), {0: [2]}), "w2": ((2, 4, 1, 1),)},
    ),
    "depthwise_several_filters": (
        f"{IMAGE} {{ c = Conv(x, w1, b1) d = Conv<group=4>(c, wd) y = Conv(d, w2) }}",
        {
            "w1": ((4, 2, 1, 1),),
            "b1": B1,
            "wd": ((8, 1, 1, 1), {0: [2, 3, 4]}),
            "w2": ((2, 8, 1, 1), {1: [6, 7]}),
        },
    ),
    "conv_transpose": (
        f"{IMAGE} {{ c = ConvTranspose(x, w1, b1) r = Relu(c) y = ConvTranspose(r, w2, b2) }}",
        {
            "w1": ((2, 4, 2, 2), {1: [1, 2]}),
            "b1": [1.0, 2.0, -3.0, 4.0],
            "w2": ((4, 2, 2, 2), {0: [3]}),
            "b2": B2,
        },
    ),
    "depthwise_transpose": (
        f"{IMAGE} {{ c = Conv(x, w1, b1) d = ConvTranspose<group=4, strides=[2,2]>(c, wd, bd) y = Conv(d, w2) }}",
        {
            "w1": ((4, 2, 1, 1),),
            "b1": B1,
            "wd": ((4, 2, 2, 2), {0: [1]}),
            "bd": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
            "w2": ((2, 8, 1, 1), {1: [6, 7]}),
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, golden: Callable[..., None]) -> None:
    golden(name, *CASES[name], {})
