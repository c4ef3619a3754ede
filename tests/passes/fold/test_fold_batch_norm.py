"""BatchNormalization into the layer before it: every place and type it may be in, and what blocks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.fold import FoldBatchNorm
from onnxprune_passes.masks import Masks, apply_masks
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Skip, State, chain
from onnxprune_passes.storage import from_proto, to_proto

Case = tuple[str, dict[str, Any], dict[str, Any]]
FOUR = [1.0, 1.0, 1.0, 1.0]
NORM = {"s": [2.0, -1.0, 3.0, -2.0], "o": [1.0, 2.0, -3.0, 4.0], "m": [1.0, -2.0, 0.0, 3.0], "v": FOUR}
VECTORS = {key: np.array(value, np.float32) for key, value in NORM.items()}
BIAS = [1.0, 2.0, -1.0, 3.0]
BN = "BatchNormalization<epsilon=0.0>"
IMAGE = "g (float[N,2,4,4] x) => (float[N,4,h,w] y)"
ROWS = "g (float[N,3] x) => (float[N,4] y)"


def conv(layer: str, more: str = "") -> str:
    return f"{IMAGE} {{ {layer} n = {BN}(c, s, o, m, v) y = Relu(n) {more} }}"


def rows(layer: str) -> str:
    return f"{ROWS} {{ {layer} n = {BN}(c, s, o, m, v) y = Relu(n) }}"


W = {"w": ((4, 2, 3, 3),)}
D = {"w": ((4, 3),)}

GOLDENS: dict[str, Case] = {
    "bn_conv": (conv("c = Conv(x, w, b)"), {**W, "b": BIAS, **NORM}, {}),
    "bn_conv_without_bias": (conv("c = Conv<pads=[1,1,1,1]>(x, w)"), {**W, **NORM}, {}),
    "bn_conv_one_dimension": (
        f"g (float[N,2,4] x) => (float[N,4,w] y) {{ c = Conv(x, w, b) y = {BN}(c, s, o, m, v) }}",
        {"w": ((4, 2, 3),), "b": BIAS, **NORM},
        {},
    ),
    "bn_conv_bias_shared": (
        f"g (float[N,2,4,4] x) => (float[N,4,h,w] y, float[N,4,h,w] z) {{ c = Conv(x, w, b) y = {BN}(c, s, o, m, v) "
        "z = Conv(x, u, b) }",
        {**W, "u": ((4, 2, 3, 3),), "b": BIAS, **NORM},
        {},
    ),
    "bn_conv_and_add": (conv("d = Conv(x, w, b) c = Add(d, a)"), {**W, "b": BIAS, "a": ((4, 1, 1),), **NORM}, {}),
    "bn_conv_and_add_of_one_number": (conv("d = Conv(x, w) c = Add(a, d)"), {**W, "a": [2.0], **NORM}, {}),
    "bn_conv_with_an_empty_bias_and_add": (
        conv('d = Conv(x, w, "") c = Add(d, a)'),
        {**W, "a": [2.0], **NORM},
        {},
    ),
    "bn_conv_grouped": (conv("c = Conv<group=2>(x, w, b)"), {"w": ((4, 1, 3, 3),), "b": BIAS, **NORM}, {}),
    "bn_conv_transpose": (conv("c = ConvTranspose(x, w, b)"), {"w": ((2, 4, 2, 2),), "b": BIAS, **NORM}, {}),
    "bn_conv_transpose_grouped": (conv("c = ConvTranspose<group=2>(x, w)"), {"w": ((2, 2, 2, 2),), **NORM}, {}),
    "bn_gemm": (rows("c = Gemm(x, w, b)"), {"w": ((3, 4),), "b": BIAS, **NORM}, {}),
    "bn_gemm_turned": (rows("c = Gemm<transB=1, alpha=2.0, beta=3.0>(x, w, b)"), {**D, "b": ((1, 4),), **NORM}, {}),
    "bn_gemm_without_bias": (rows("c = Gemm<transB=1>(x, w)"), {**D, **NORM}, {}),
    "bn_gemm_one_number": (rows("c = Gemm<transB=1, beta=2.0>(x, w, b)"), {**D, "b": np.float32(2), **NORM}, {}),
    "bn_matmul": (rows("c = MatMul(x, w)"), {"w": ((3, 4),), **NORM}, {}),
    "bn_matmul_and_add": (rows("d = MatMul(x, w) c = Add(d, b)"), {"w": ((3, 4),), "b": BIAS, **NORM}, {}),
    "bn_twice": (
        f"{IMAGE} {{ c = Conv(x, w) a = {BN}(c, s, o, m, v) y = {BN}(a, s, o, m, v) }}",
        {**W, **NORM},
        {},
    ),
    "bn_weight_in_a_constant": (
        f"g (float[N,1,2,2] x) => (float[N,2,2,2] y) {{ w = Constant<value = float[2,1,1,1] {{1, 2}}>() "
        f"b = Constant<value_floats=[5.0, 6.0]>() s = Constant<value = float[2] {{3, 4}}>() c = Conv(x, w, b) "
        f"y = {BN}(c, s, o, m, v) }}",
        {"o": [1.0, 2.0], "m": [0.0, 1.0], "v": [1.0, 1.0]},
        {},
    ),
    "bn_opset_7": (conv("c = Conv(x, w, b)"), {**W, "b": BIAS, **NORM}, {"opset": 7, "ir": 3}),
    "bn_without_bias_in_an_old_file": (conv("c = Conv(x, w)"), {**W, **NORM}, {"opset": 8, "ir": 3}),
    "bn_in_bodies": (
        "g (float[N,2,4,4] x, bool q) => (float[N,4,h,k] y) { y = If (q) <"
        "then_branch = t () => (float[N,4,h,k] o1) <float[4,2,1,1] w1 = {1,2,3,4,5,6,7,8}, float[4] s1 = {1,2,3,4}> "
        f"{{ c = Conv(x, w1) o1 = {BN}(c, s1, o, m, v) }}, "
        f"else_branch = e () => (float[N,4,h,k] o2) {{ d = Conv(x, w2) e = {BN}(d, s, o, m, v) o2 = Relu(e) }}> }}",
        {"w2": ((4, 2, 1, 1),), **NORM},
        {},
    ),
    # what blocks it
    "bn_with_another_reader": (conv("c = Conv(x, w)", "z = Neg(c)"), {**W, **NORM}, {}),
    "bn_output_before_it": (
        f"g (float[N,2,4,4] x) => (float[N,4,h,w] y, float[N,4,h,w] c) {{ c = Conv(x, w) y = {BN}(c, s, o, m, v) }}",
        {**W, **NORM},
        {},
    ),
    "bn_weight_shared": (
        f"g (float[N,2,4,4] x) => (float[N,4,h,w] y, float[N,4,h,w] z) {{ c = Conv(x, w) y = {BN}(c, s, o, m, v) "
        "z = Conv(x, w) }",
        {**W, **NORM},
        {},
    ),
    "bn_weight_read_by_a_body": (
        f"g (float[N,2,4,4] x, bool q) => (float[N,4,h,k] y, float[4,2,3,3] z) {{ c = Conv(x, w) "
        f"y = {BN}(c, s, o, m, v) z = If (q) <then_branch = t () => (float[4,2,3,3] o1) {{ o1 = Neg(w) }}, "
        "else_branch = e () => (float[4,2,3,3] o2) { o2 = Abs(w) }> }",
        {**W, **NORM},
        {},
    ),
    "bn_weight_computed": (conv("u = Neg(w) c = Conv(x, u)"), {**W, **NORM}, {}),
    "bn_vector_computed": (
        f"g (float[N,2,4,4] x, float[4] t) => (float[N,4,h,w] y) {{ c = Conv(x, w) y = {BN}(c, t, o, m, v) }}",
        {**W, **{name: NORM[name] for name in "omv"}},
        {},
    ),
    "bn_bias_computed": (
        f"g (float[N,2,4,4] x, float[4] t) => (float[N,4,h,w] y) {{ c = Conv(x, w, t) y = {BN}(c, s, o, m, v) }}",
        {**W, **NORM},
        {},
    ),
    "bn_after_something_else": (conv("a = Conv(x, w) c = Relu(a)"), {**W, **NORM}, {}),
    "bn_on_the_input": (f"g (float[N,4] x) => (float[N,4] y) {{ y = {BN}(x, s, o, m, v) }}", NORM, {}),
    "bn_after_an_add_of_two": (
        conv("a = Conv(x, w) b = Conv(x, u) c = Add(a, b)"),
        {**W, "u": ((4, 2, 3, 3),), **NORM},
        {},
    ),
    "bn_add_along_another_axis": (conv("a = Conv(x, w) c = Add(a, b)"), {**W, "b": ((1, 2),), **NORM}, {}),
    "bn_matmul_of_three_axes": (
        f"g (float[N,4,3] x) => (float[N,4,5] y) {{ c = MatMul(x, w) y = {BN}(c, s, o, m, v) }}",
        {"w": ((3, 5),), **NORM},
        {},
    ),
    "bn_gemm_with_a_row_bias": (
        f"g (float[2,3] x) => (float[2,4] y) {{ c = Gemm<transB=1>(x, w, b) y = {BN}(c, s, o, m, v) }}",
        {**D, "b": ((2, 1),), **NORM},
        {},
    ),
    "bn_of_negative_variance": (
        f"{IMAGE} {{ c = Conv(x, w) y = BatchNormalization(c, s, o, m, v) }}",
        {**W, **NORM, "v": [1.0, 1.0, -1.0, 1.0]},
        {"exact": False},
    ),
    "bn_quantised": (
        "g (float[N,2,4,4] x) => (float[N,4,h,k] y) { w = DequantizeLinear(q, f) c = Conv(x, w) "
        f"y = {BN}(c, s, o, m, v) }}",
        {"q": np.arange(-4, 4, dtype=np.int8).reshape(4, 2, 1, 1), "f": np.float32(0.5), **NORM},
        {},
    ),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name: str, golden: Callable[..., None]) -> None:
    golden(FoldBatchNorm(), name, *GOLDENS[name])


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 14, 15, 17, 20, 23])
def test_every_opset(opset: int, build: Callable[..., Model], folded: Callable[..., State], ints: Any) -> None:
    weights = {"w": ints((4, 2, 3, 3)), **VECTORS}
    after = folded(FoldBatchNorm(), build(conv("c = Conv(x, w)"), weights, opset=opset, ir=10 if opset > 20 else 8))
    assert [node.op_type for node in after.model.graph.node] == ["Conv", "Relu"]
    assert not [entry for entry in after.log if isinstance(entry, Skip)]


TRAINING = {
    "opset_17": ("y, p, q = BatchNormalization<training_mode=1>(c, s, o, m, v)", 17),
    "opset_17_flag_alone": ("y = BatchNormalization<training_mode=1>(c, s, o, m, v)", 17),
    "opset_9": ("y, p, q, r, t = BatchNormalization(c, s, o, m, v)", 9),
}


@pytest.mark.parametrize("name", TRAINING)
def test_one_that_trains_stays(name: str, build: Callable[..., Model], reasons: Any, ints: Any) -> None:
    node, opset = TRAINING[name]
    weights = {"w": ints((4, 2, 3, 3)), **VECTORS}
    before = State(build(f"{IMAGE} {{ c = Conv(x, w) {node} }}", weights, opset=opset))
    after = FoldBatchNorm()(before)
    assert after.model is before.model
    assert reasons(after) == ["y: it trains: it takes mean and variance of its input"]
    assert FoldBatchNorm()(after) is after


def test_vectors_of_more_than_channels_stay(build: Callable[..., Model], reasons: Any, ints: Any) -> None:
    weights = {"w": ints((4, 2, 4, 4)), **{key: np.ones((4, 1, 1), np.float32) for key in "somv"}}
    text = f"{IMAGE} {{ c = Conv(x, w) y = BatchNormalization<spatial=0>(c, s, o, m, v) }}"
    assert reasons(FoldBatchNorm()(State(build(text, weights, opset=8)))) == [
        "y: its vectors count more than channels (spatial is 0)"
    ]


def test_old_opsets_and_training_graphs_are_refused(build: Callable[..., Model], reasons: Any, ints: Any) -> None:
    weights = {"w": ints((4, 2, 3, 3)), **VECTORS}
    model = build(conv("c = Conv(x, w)"), weights, opset=6)
    assert reasons(FoldBatchNorm()(State(model))) == ["the graph: it uses opset 6, and 7 is needed: upgrade it first"]
    model = build(conv("c = Conv(x, w)"), weights)
    model.skeleton.training_info.add()
    assert reasons(FoldBatchNorm()(State(model))) == ["the graph: it holds training graphs, which would no longer fit"]


def test_without_one_it_is_the_same_object(build: Callable[..., Model], ints: Any) -> None:
    state = State(build(f"{IMAGE} {{ y = Conv(x, w) }}", {"w": ints((4, 2, 3, 3))}))
    assert FoldBatchNorm()(state) is state


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose", "Gemm"])
@pytest.mark.parametrize("biased", [True, False])
def test_weights_are_rounded_once(dtype: Any, op_type: str, biased: bool) -> None:
    rng = np.random.default_rng(0)
    shape = (5, 3) if op_type == "Gemm" else (5, 3, 2, 2)
    arrays = {name: rng.standard_normal(5).astype(dtype) for name in "bsom"}
    arrays |= {"w": rng.standard_normal(shape).astype(dtype), "v": np.arange(1, 6).astype(dtype)}
    if op_type == "ConvTranspose":
        arrays["w"] = np.ascontiguousarray(arrays["w"].swapaxes(0, 1))
    number = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    flags: dict[str, Any] = {"transB": 1} if op_type == "Gemm" else {}
    nodes = [
        onnx.helper.make_node(op_type, ["x", "w", "b"][: 3 if biased else 2], ["c"], **flags),
        onnx.helper.make_node("BatchNormalization", ["c", *"somv"], ["y"], epsilon=0.25),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", number, None)],
        [onnx.helper.make_tensor_value_info("y", number, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items() if biased or name != "b"],
    )
    model = from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8))
    after = FoldBatchNorm()(State(model)).model.initializers
    wide = {name: array.astype(np.float64) for name, array in arrays.items()}
    scale = wide["s"] / np.sqrt(wide["v"] + 0.25)
    out_axis = 1 if op_type == "ConvTranspose" else 0
    expected = np.moveaxis(np.moveaxis(wide["w"], out_axis, -1) * scale, -1, out_axis).astype(dtype)
    bias = "b" if biased else "y.bias"
    assert sorted(after) == sorted(["w", bias])
    assert after["w"].dtype == after[bias].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(after["w"], expected)
    own = wide["b"] if biased else 0.0
    np.testing.assert_array_equal(after[bias], (scale * (own - wide["m"]) + wide["o"]).astype(dtype))


REAL = {
    "Conv": (IMAGE, "c = Conv<pads=[1,1,1,1]>(x, w, b)", (4, 2, 3, 3)),
    "ConvTranspose": (IMAGE, "c = ConvTranspose(x, w, b)", (2, 4, 3, 3)),
    "Gemm": (ROWS, "c = Gemm(x, w, b)", (3, 4)),
    "MatMul": (ROWS, "c = MatMul(x, w)", (3, 4)),
}


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), op_type=st.sampled_from(sorted(REAL)))
def test_real_values_move_by_rounding(seed: int, op_type: str) -> None:
    import onnxruntime

    interface, layer, shape = REAL[op_type]
    rng = np.random.default_rng(seed)
    arrays = {name: rng.standard_normal(4).astype(np.float32) for name in "bsom"}
    arrays |= {"w": rng.standard_normal(shape).astype(np.float32), "v": rng.uniform(0.1, 3, 4).astype(np.float32)}
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> {interface} {{ {layer} y = BatchNormalization(c, s, o, m, v) }}'
    )
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    before = from_proto(proto)
    after = FoldBatchNorm()(State(before)).model
    assert all(node.op_type != "BatchNormalization" for node in after.graph.node)
    feeds = {"x": rng.standard_normal((3, 2, 4, 4) if interface == IMAGE else (3, 3)).astype(np.float32)}
    for level in (
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    ):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.log_severity_level = 3
        one, other = (
            onnxruntime.InferenceSession(to_proto(model).SerializeToString(), options).run(None, feeds)[0]
            for model in (before, after)
        )
        assert np.abs(one - other).max() <= 1e-5 * np.abs(one).max()


def test_masks_stay_and_zeros_stay_zero(build: Callable[..., Model], folded: Callable[..., State], ints: Any) -> None:
    weights = {"w": ints((4, 2, 3, 3)), **VECTORS}
    masks = Masks({"w": np.random.default_rng(0).random((4, 2, 3, 3)) < 0.5})
    model = apply_masks(build(conv("c = Conv(x, w)"), weights), masks)
    after = folded(FoldBatchNorm(), model, before=State(model, masks))
    assert list(after.masks) == ["w"]
    assert np.array_equal(after.masks["w"], masks["w"])
    kept = after.model.initializers["w"]
    assert np.array_equal(kept != 0, masks["w"])
    assert not np.signbit(kept[~masks["w"]]).any()
    assert np.array_equal(apply_masks(after.model, after.masks).initializers["w"], kept)


def test_zeros_of_a_file_get_no_sign(build: Callable[..., Model], ints: Any) -> None:
    weights = {"w": ints((4, 2, 3, 3)), **VECTORS}
    weights["w"][:, 0] = 0
    after = FoldBatchNorm()(State(build(conv("c = Conv(x, w)"), weights))).model.initializers["w"]
    assert not after[:, 0].any()
    assert not np.signbit(after[:, 0]).any()


def test_a_bias_with_a_mask_is_not_written_over(build: Callable[..., Model], ints: Any) -> None:
    weights = {"w": ints((4, 2, 3, 3)), "b": np.array(BIAS, np.float32), **VECTORS}
    masks = Masks({"b": np.array([True, False, True, True])})
    state = State(apply_masks(build(conv("c = Conv(x, w, b)"), weights), masks), masks)
    after = FoldBatchNorm()(state)
    assert list(after.masks) == []
    assert after.model.initializers["n.bias"].tolist() == [1.0, 0.0, -6.0, 4.0]


def test_a_zero_filter_becomes_a_constant_that_folds_on(
    build: Callable[..., Model], same_answers: Callable[..., None], ints: Any
) -> None:
    text = f"g (float[N,2,4,4] x) => (float[N,2,h,k] y) {{ c = Conv(x, w) n = {BN}(c, s, o, m, v) y = Conv(n, u) }}"
    weights = {"w": ints((4, 2, 3, 3), {0: [1]}), "u": ints((2, 4, 1, 1)), **VECTORS}
    model = build(text, weights)
    after = chain(FoldBatchNorm(), RemoveDeadNeurons())(State(model)).model
    assert after.initializers["w"].shape == (3, 2, 3, 3)
    same_answers(model, after)


def test_a_scale_of_zero_makes_a_zero_filter(
    build: Callable[..., Model], same_answers: Callable[..., None], ints: Any
) -> None:
    text = f"g (float[N,2,4,4] x) => (float[N,2,h,k] y) {{ c = Conv(x, w) n = {BN}(c, s, o, m, v) y = Conv(n, u) }}"
    weights = {"w": ints((4, 2, 3, 3)), "u": ints((2, 4, 1, 1)), **VECTORS}
    weights |= {"s": np.array([2, 0, 1, 3], np.float32)}
    model = build(text, weights)
    after = chain(FoldBatchNorm(), RemoveDeadNeurons())(State(model)).model
    assert after.initializers["w"].shape == (3, 2, 3, 3)
    same_answers(model, after)


@pytest.mark.parametrize(("scale", "fits"), [(1.0, True), (1e4, False), (1e-7, False)])
def test_a_weight_that_leaves_the_range_of_its_type_stays(scale: float, fits: bool, reasons: Any) -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float16[N,2] x) => (float16[N,2] y) '
        "{ c = Gemm(x, w) y = BatchNormalization(c, s, o, m, v) }"
    )
    arrays: dict[str, Any] = {"w": np.full((2, 2), 20, np.float16), "s": np.full(2, scale, np.float32)}
    arrays |= {name: np.full(2, name == "v", np.float32) for name in "omv"}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    state = State(from_proto(proto))
    after = FoldBatchNorm()(state)
    assert (after.model is not state.model) == fits
    assert reasons(after) == ([] if fits else ["y: the scaled weight 'w' is beyond the range of float16"])


def test_inputs_that_a_caller_may_set(
    build: Callable[..., Model], folded: Callable[..., State], ints: Any, reasons: Any
) -> None:
    weights = {"w": ints((4, 2, 3, 3)), **VECTORS}
    for entry in ("float[4,2,3,3] w", "float[4] s"):
        text = conv("c = Conv(x, w)").replace("] x)", f"] x, {entry})")
        after = folded(FoldBatchNorm(), build(text, weights))
        assert [node.op_type for node in after.model.graph.node] == ["Conv", "Relu"]
        assert [value.name for value in after.model.graph.input] == (["x", "w"] if "w" in entry else ["x"])
        before = State(build(text, weights))
        kept = FoldBatchNorm(keep_inputs=True)(before)
        assert kept.model is before.model
        assert len(reasons(kept)) == 1
        assert "caller" in reasons(kept)[0]


def test_vectors_that_others_read_stay(build: Callable[..., Model], folded: Callable[..., State], ints: Any) -> None:
    weights = {"w": ints((4, 2, 3, 3)), **VECTORS}
    text = "g (float[N,2,4,4] x) => (float[N,4,h,k] y, float[4] z) "
    text += f"{{ c = Conv(x, w) y = {BN}(c, s, o, m, v) z = Neg(s) }}"
    after = folded(FoldBatchNorm(), build(text, weights)).model
    assert "s" in after.initializers
    assert "o" not in after.initializers


def test_value_infos_follow(build: Callable[..., Model], ints: Any) -> None:
    weights = {"w": ints((4, 2, 3, 3)), **VECTORS}
    model = build(conv("c = Conv(x, w)"), weights)
    for name in "cn":
        model.skeleton.graph.value_info.append(onnx.helper.make_tensor_value_info(name, 1, None))
    before = model.skeleton.SerializeToString(deterministic=True)
    after = FoldBatchNorm()(State(model)).model
    assert [value.name for value in after.graph.value_info] == ["n"]
    assert model.skeleton.SerializeToString(deterministic=True) == before


def test_many_rows_are_scaled_in_pieces(build: Callable[..., Model], ints: Any) -> None:
    weights = {"w": ints((700, 300)), **{name: np.ones(300, np.float32) for name in "omv"}}
    weights["s"] = np.arange(300, dtype=np.float32)
    text = f"g (float[N,700] x) => (float[N,300] y) {{ c = Gemm(x, w) y = {BN}(c, s, o, m, v) }}"
    after = FoldBatchNorm()(State(build(text, weights))).model.initializers["w"]
    assert np.array_equal(after, weights["w"] * weights["s"])
