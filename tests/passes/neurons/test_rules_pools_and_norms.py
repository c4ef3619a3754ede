"""Pooling, resizing, reductions, normalisations, softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.pipeline import State

B1, B2 = [1.0, 2.0, 3.0, 4.0], [0.0, 5.0]
IMAGE = "g (float[N,2,4,4] x) => (float[N,2,h,w] y)"
CONV = {"w1": ((4, 2, 1, 1), {0: [1]}), "b1": B1, "w2": ((2, 4, 1, 1), {1: [3]}), "b2": B2}
NORM = {"s": ((4,),), "o": ((4,),), "mean": ((4,),), "var": [1.0, 1.0, 1.0, 1.0]}
GROUPED = "m = GroupNormalization<num_groups=2>(c, s, o)"
GROUPS = {**CONV, "w2": ((2, 4, 1, 1), {1: [2, 3]}), "s": NORM["s"], "o": NORM["o"]}
EXPORTED = """sizes = Shape(c) f = Reshape(c, to) n = InstanceNormalization(f, ones, zeros) r = Reshape(n, sizes)
p = Mul(r, s) m = Add(p, o)"""
EXPORT = {
    **{name: GROUPS[name] for name in ("w1", "b1", "w2", "b2")},
    "to": [0, 2, -1],
    "ones": [1.0, 1.0],
    "zeros": [0.0, 0.0],
    "s": ((4, 1, 1),),
    "o": ((4, 1, 1),),
}
ROWS = "g (float[N,3] x) => (float[N,2] y)"
DENSE = {"w1": ((4, 3), {0: [1]}), "b1": B1, "w2": ((2, 4), {1: [3]}), "b2": B2}


def conv(middle: str) -> str:
    return f"{IMAGE} {{ c = Conv(x, w1, b1) {middle} y = Conv(m, w2, b2) }}"


def dense(middle: str) -> str:
    return f"{ROWS} {{ h = Gemm<transB=1>(x, w1, b1) {middle} y = Gemm<transB=1>(m, w2, b2) }}"


Case = tuple[str, dict[str, Any], dict[str, Any]]

CASES: dict[str, Case] = {
    "max_pool": (conv("m = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(c)"), CONV, {}),
    "max_pool_positions": (
        "g (float[N,2,4,4] x) => (float[N,2,2,2] y, int64[N,4,2,2] at) { c = Conv(x, w1, b1) "
        "m, at = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c) y = Conv(m, w2, b2) }",
        CONV,
        {},
    ),
    "average_pool": (conv("m = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c)"), CONV, {}),
    "average_pool_counting_pads": (
        conv("m = AveragePool<kernel_shape=[2,2], pads=[1,1,1,1], count_include_pad=1>(c)"),
        {**CONV, "w1": ((4, 2, 1, 1), {0: [1, 2]}), "b1": [1.0, 2.0, 0.0, 4.0]},
        {},
    ),
    "global_average_pool": (conv("m = GlobalAveragePool(c)"), CONV, {}),
    "global_lp_pool": (conv("m = GlobalLpPool(c)"), {**CONV, "b1": [1.0, 0.0, 3.0, 4.0]}, {"exact": False}),
    "batch_norm": (conv("m = BatchNormalization<epsilon=0.0>(c, s, o, mean, var)"), {**CONV, **NORM}, {}),
    "batch_norm_with_momentum": (
        conv("m = BatchNormalization<epsilon=0.0, momentum=0.5>(c, s, o, mean, var)"),
        {**CONV, **NORM},
        {"opset": 9},
    ),
    "batch_norm_computed": (
        "g (float[N,2,4,4] x, float[4] s) => (float[N,2,h,w] y) { c = Conv(x, w1, b1) "
        "m = BatchNormalization<epsilon=0.0>(c, s, o, mean, var) y = Conv(m, w2, b2) }",
        {**CONV, **{name: NORM[name] for name in ("o", "mean", "var")}},
        {},
    ),
    "batch_norm_on_the_input": (
        f"{IMAGE} {{ n = BatchNormalization<epsilon=0.0>(x, s, o, mean, var) c = Conv(n, w1, b1) "
        "y = Conv(c, w2, b2) }",
        {**CONV, "s": ((2,),), "o": ((2,),), "mean": ((2,),), "var": [1.0, 1.0]},
        {},
    ),
    "instance_norm": (
        conv("m = InstanceNormalization(c, s, o)"),
        {**CONV, "b1": [1.0, 0.0, 3.0, 4.0], "s": NORM["s"], "o": NORM["o"]},
        {"exact": False},
    ),
    "reduce_mean_of_space": (conv("m = ReduceMean<axes=[2, -1]>(c)"), CONV, {}),
    "reduce_sum_of_space": (
        f"{ROWS.replace('[N,3]', '[N,3,4]')} {{ c = Conv(x, w1, b1) h = ReduceSum<keepdims=0>(c, axes) "
        "y = Gemm<transB=1>(h, w2, b2) }",
        {
            "w1": ((4, 3, 1), {0: [1, 2]}),
            "b1": [1.0, 2.0, 0.0, 4.0],
            "axes": [2],
            "w2": ((2, 4), {1: [3]}),
            "b2": B2,
        },
        {},
    ),
    "reduce_mean_of_neurons": (dense("q = ReduceMean<axes=[1]>(h) m = Sub(h, q)"), DENSE, {"exact": False}),
    "reduce_sum_of_neurons": (
        dense("r = Relu(h) q = ReduceSum(r, axes) m = Concat<axis=1>(q, q)"),
        {**DENSE, "w1": ((4, 3), {0: [0, 1]}), "w2": ((2, 2),), "axes": [1]},
        {},
    ),
    "reduce_sum_of_neurons_and_space": (
        conv("q = ReduceSum<keepdims=0>(c, axes) m = Reshape(q, to)"),
        {**CONV, "w1": ((4, 2, 1, 1), {0: [0, 1]}), "w2": ((2, 1, 1, 1),), "axes": [1, 3], "to": [0, 1, 4, 1]},
        {},
    ),
    "reduce_sum_of_neurons_and_unknown_space": (
        conv("q = ReduceSum<keepdims=0>(c, axes) m = Unsqueeze(q, axes)").replace("4,4", "H,W"),
        {**CONV, "w1": ((4, 2, 1, 1), {0: [0, 1]}), "b1": [0.0, 2.0, 3.0, 4.0], "w2": ((2, 1, 1, 1),), "axes": [1, 3]},
        {},
    ),
    "reduce_mean_of_dead_neurons": (
        dense("r = Relu(h) q = ReduceMean<axes=[1]>(r) m = Concat<axis=1>(q, q)"),
        {**DENSE, "w1": ((4, 3), {0: [0, 1]}), "w2": ((2, 2),)},
        {},
    ),
    "reduce_mean_of_dead_neurons_old": (
        dense("r = Relu(h) q = ReduceMean<axes=[1]>(r) m = Concat<axis=1>(q, q)"),
        {**DENSE, "w1": ((4, 3), {0: [0, 1]}), "w2": ((2, 2),)},
        {"opset": 11},
    ),
    "reduce_mean_of_dead_neurons_new": (
        dense("r = Relu(h) q = ReduceMean(r, axes) m = Concat<axis=1>(q, q)"),
        {**DENSE, "w1": ((4, 3), {0: [0, 1]}), "w2": ((2, 2),), "axes": [-1]},
        {"opset": 18},
    ),
    "reduce_mean_of_everything": (
        conv("r = Relu(c) q = ReduceMean(r) m = Reshape(q, to)").replace("float[N,2,h,w]", "float[1,2,1,1]"),
        {**CONV, "w1": ((4, 2, 1, 1), {0: [0, 1]}), "w2": ((2, 1, 1, 1),), "to": [1, 1, 1, 1]},
        {},
    ),
    "reduce_square_of_zeros": (
        dense("r = Relu(h) q = ReduceSumSquare<axes=[1]>(r) m = Concat<axis=1>(q, q)"),
        {**DENSE, "w1": ((4, 3), {0: [0, 1]}), "b1": [0.0, 2.0, 3.0, 4.0], "w2": ((2, 2),)},
        {},
    ),
    "reduce_max_of_neurons": (
        dense("r = Relu(h) q = ReduceMax<axes=[1]>(r) m = Concat<axis=1>(q, q)"),
        {**DENSE, "w1": ((4, 3), {0: [0, 1]}), "w2": ((2, 2),)},
        {},
    ),
    "layer_norm_written_out": (
        dense(
            """mean = ReduceMean<axes=[-1]>(h) d = Sub(h, mean) p = Pow(d, two) v = ReduceMean<axes=[-1]>(p)
            e = Add(v, eps) r = Sqrt(e) n = Div(d, r) k = Mul(n, s) m = Add(k, o)"""
        ),
        {
            **DENSE,
            "w1": ((4, 3), {0: [1, 2]}),
            "b1": [1.0, 0.0, 0.0, 4.0],
            "w2": ((2, 4), {1: [1, 3]}),
            "two": np.float32(2),
            "eps": np.float32(0.5),
            "s": ((4,),),
            "o": ((4,),),
        },
        {"exact": False},
    ),
    "layer_norm_by_squares": (
        dense(
            """t = ReduceSum(h, last) mean = Mul(t, part) q = Mul(h, h) u = ReduceSum(q, last) z = Mul(u, part)
            g = Mul(mean, mean) v = Sub(z, g) e = Add(v, eps) r = Sqrt(e) d = Sub(h, mean) n = Div(d, r) k = Mul(n, s)
            m = Add(k, o)"""
        ),
        {
            **DENSE,
            "w1": ((4, 3), {0: [1, 2]}),
            "w2": ((2, 4), {1: [1, 3]}),
            "last": [-1],
            "part": np.float32(0.25),
            "eps": np.float32(0.5),
            "s": ((4,),),
            "o": ((4,),),
        },
        {"exact": False},
    ),
    "norm_scale_on_the_deviation": (
        dense("p = Mul(h, h) v = ReduceSum(p, last) e = Add(v, eps) i = Reciprocal(e) j = Mul(i, s) m = Mul(h, j)"),
        {
            **DENSE,
            "w1": ((4, 3), {0: [1, 2]}),
            "w2": ((2, 4), {1: [1, 3]}),
            "last": [-1],
            "eps": np.float32(0.5),
            "s": ((4,),),
        },
        {"exact": False},
    ),
    "norm_scale_along_positions": (
        """g (float[N,5,3] x) => (float[N,5,2] y) { h = MatMul(x, w1) p = Mul(h, h) v = ReduceSum(p, middle)
        j = Mul(v, s) m = Mul(h, j) y = MatMul(m, w2) }""",
        {"w1": ((3, 4), {1: [1]}), "w2": ((4, 2), {0: [3]}), "middle": [1], "s": ((5, 1),)},
        {},
    ),
    "softmax_of_neurons": (dense("m = Softmax(h)"), DENSE, {"exact": False}),
    "softmax_beside": (conv("m = Softmax<axis=3>(c)"), CONV, {"exact": False}),
    "softmax_old": (conv("m = Softmax<axis=3>(c)"), CONV, {"exact": False, "opset": 11}),
    "softmax_old_flattens": (conv("m = Softmax<axis=1>(c)"), CONV, {"exact": False, "opset": 11}),
    "layer_norm": (dense("m = LayerNormalization(h, s)"), {**DENSE, "s": ((4,),)}, {"exact": False}),
    "lrn": (conv("m = LRN<size=3>(c)"), CONV, {"exact": False}),
    "group_norm": (conv(GROUPED), GROUPS, {"exact": False, "opset": 21, "ir": 10}),
    "group_norm_half_a_group": (
        conv(GROUPED),
        {**GROUPS, "w1": ((4, 2, 1, 1), {0: [0]}), "w2": ((2, 4, 1, 1), {1: [0, 3]})},
        {"exact": False, "opset": 21, "ir": 10},
    ),
    "group_norm_of_zeros": (
        conv(GROUPED),
        {**GROUPS, "w1": ((4, 2, 1, 1), {0: [2, 3]}), "b1": [1.0, 2.0, 0.0, 0.0], "w2": ((2, 4, 1, 1),)},
        {"exact": False, "opset": 21, "ir": 10},
    ),
    "group_norm_of_one_group": (
        conv(GROUPED.replace("=2", "=1")),
        GROUPS,
        {"exact": False, "opset": 21, "ir": 10},
    ),
    "group_norm_exported": (conv(EXPORTED), EXPORT, {"exact": False}),
    "group_norm_exported_of_unknown_size": (
        conv(EXPORTED).replace("4,4", "H,W"),
        EXPORT,
        {"exact": False},
    ),
    "group_norm_exported_of_zeros": (
        conv(EXPORTED),
        {
            **EXPORT,
            "w1": ((4, 2, 1, 1), {0: [2, 3]}),
            "b1": [1.0, 2.0, 0.0, 0.0],
            "w2": ((2, 4, 1, 1),),
        },
        {"exact": False},
    ),
    "group_norm_exported_named": (
        conv(EXPORTED.replace("sizes = Shape(c)", "").replace("sizes", "back")),
        {**EXPORT, "back": [0, 4, 4, 4]},
        {"exact": False},
    ),
    "resize_scales": (
        conv("m = Resize(c, , scales)"),
        {**CONV, "scales": [1.0, 1.0, 2.0, 2.0]},
        {},
    ),
    "resize_sizes": (conv("m = Resize(c, , , sizes)").replace("[N,", "[1,"), {**CONV, "sizes": [1, 4, 8, 8]}, {}),
    "resize_axes": (
        conv("m = Resize<axes=[3,-2]>(c, , , sizes)"),
        {**CONV, "sizes": [8, 4]},
        {"opset": 18},
    ),
    "resize_axes_with_neurons": (
        conv("m = Resize<axes=[2,1]>(c, , , sizes)"),
        {**CONV, "sizes": [8, 4]},
        {"opset": 18},
    ),
    "resize_axes_scales": (
        conv("m = Resize<axes=[2,1]>(c, , scales)"),
        {**CONV, "scales": [2.0, 1.0]},
        {"opset": 18},
    ),
    "resize_axes_computed": (
        "g (float[N,2,4,4] x, int64[1] sizes) => (float[N,2,h,w] y) { c = Conv(x, w1, b1) "
        "m = Resize<axes=[3]>(c, , , sizes) y = Conv(m, w2, b2) }",
        CONV,
        {"opset": 18},
    ),
    "reduce_axes_input": (
        conv("m = ReduceMax(c, axes)"),
        {**CONV, "axes": [3, -2]},
        {"opset": 18},
    ),
    "upsample": (conv("m = Upsample(c, scales)"), {**CONV, "scales": [1.0, 1.0, 2.0, 2.0]}, {"opset": 9}),
    "resize_neurons": (
        conv("r = Resize(c, , scales) m = Conv(r, w3)"),
        {**CONV, "scales": np.array([1, 2, 1, 1], np.float32), "w3": ((4, 8, 1, 1),)},
        {},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, golden: Callable[..., None]) -> None:
    golden(name, *CASES[name])


@pytest.mark.parametrize(
    "weights",
    [{"w2": ((2, 4, 1, 1), {1: [2, 3]})}, {"w1": ((4, 2, 1, 1), {0: [2, 3]}), "b1": [1.0, 2.0, 0.0, 0.0]}],
    ids=["unread", "zeros"],
)
def test_group_norm_with_one_scale_a_group(
    weights: dict[str, Any],
    build: Callable[..., Any],
    ints: Callable[..., Any],
    answers: Callable[..., Any],
    feeds_of: Callable[..., Any],
) -> None:
    """The form of opsets 18 to 20; onnx's checker calls it deprecated, onnxruntime runs it."""
    specs = {**CONV, "w2": ((2, 4, 1, 1),), "s": ((2,),), "o": ((2,),), **weights}
    arrays = {k: ints(*spec) if isinstance(spec, tuple) else np.array(spec, np.float32) for k, spec in specs.items()}
    before = build(conv(GROUPED), arrays, opset=18)
    after = RemoveDeadNeurons()(State(before)).model
    assert {key: after.initializers.source(key).shape for key in ["s", "o", "w1"]} == {
        "s": (1,),
        "o": (1,),
        "w1": (2, 2, 1, 1),
    }
    feeds = feeds_of(before, 3)
    for optimised in (False, True):
        one, other = (answers(model, feeds, optimised)[0] for model in (before, after))
        assert np.abs(one - other).max() <= 1e-6 * np.abs(one).max()
