"""Nodes that change nothing: which go, which look like it and stay, and whose names are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnxprune_passes.fold import RemoveNoOps
from onnxprune_passes.masks import Masks
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import State

Case = tuple[str, dict[str, Any], dict[str, Any]]
FOUR = "g (float[N,4] x) => (float[N,4] y)"
FIXED = "g (float[2,4] x) => (float[2,4] y)"
ONE, ZERO, MINUS = [1.0], [0.0], [-0.0]

GOLDENS: dict[str, Case] = {
    "identity": (f"{FOUR} {{ a = Identity(x) b = Relu(a) c = Identity(b) y = Neg(c) }}", {}, {}),
    "identity_of_a_weight": (f"{FOUR} {{ v = Identity(w) y = MatMul(x, v) }}", {"w": ((4, 4),)}, {}),
    "identity_before_the_output": (f"{FOUR} {{ a = Relu(x) b = Neg(a) y = Identity(a) }}", {}, {}),
    "identity_of_an_input": (f"{FOUR} {{ y = Identity(x) }}", {}, {}),
    "identity_of_another_output": (
        "g (float[N,4] x) => (float[N,4] y, float[N,4] z) { y = Relu(x) z = Identity(y) }",
        {},
        {},
    ),
    "two_identities_to_outputs": (
        "g (float[N,4] x) => (float[N,4] y, float[N,4] z) { a = Relu(x) y = Identity(a) z = Identity(a) }",
        {},
        {},
    ),
    "identity_of_an_initializer_to_the_output": (
        "g (float[N,4] x) => (float[N,4] y, float[4] z) { y = Add(x, w) z = Identity(w) }",
        {"w": [1.0, 2.0, 3.0, 4.0]},
        {},
    ),
    "pad_and_its_constant": (f"{FOUR} {{ a = Relu(x) b = Pad(a, pads) y = Neg(b) }}", {"pads": [0, 0, 0, 0]}, {}),
    "constant_that_others_read": (
        "g (float[N,4] x) => (float[N,4] y, int64[4] z) { a = Pad(x, pads) y = Neg(a) z = Neg(pads) }",
        {"pads": [0, 0, 0, 0]},
        {},
    ),
    "captured_by_a_body": (
        "g (float[N,4] x, bool c) => (float[N,4] y) { a = Relu(x) b = Identity(a) y = If (c) <"
        "then_branch = t () => (float[N,4] o1) { o1 = Neg(b) }, "
        "else_branch = e () => (float[N,4] o2) { d = Identity(b) o2 = Abs(d) }> }",
        {},
        {},
    ),
    "outputs_of_bodies": (
        "g (float[N,4] x, bool c) => (float[N,4] y) { a = Relu(x) y = If (c) <"
        "then_branch = t () => (float[N,4] o1) { o1 = Identity(a) }, "
        "else_branch = e () => (float[N,4] o2) { d = Neg(a) o2 = Identity(d) }> }",
        {},
        {},
    ),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name: str, golden: Callable[..., None]) -> None:
    golden(RemoveNoOps(), name, *GOLDENS[name])


def middle(node: str, shape: str = FOUR) -> str:
    return f"{shape} {{ a = Relu(x) b = {node} y = Neg(b) }}"


GOES: dict[str, Case] = {
    "dropout": (middle("Dropout(a)"), {}, {}),
    "dropout_of_old": (middle("Dropout<ratio=0.3>(a)"), {}, {"opset": 7}),
    "dropout_told_not_to_train": (middle("Dropout(a, r, t)"), {"r": np.float32(0.5), "t": np.array(False)}, {}),
    "cast": (middle("Cast<to=1>(a)"), {}, {}),
    "cast_like": (middle("CastLike(a, x)"), {}, {}),
    "reshape": (middle("Reshape(a, s)"), {"s": [-1, 4]}, {}),
    "reshape_copying": (middle("Reshape(a, s)"), {"s": [0, -1]}, {}),
    "reshape_to_the_sizes": (middle("Reshape(a, s)", FIXED), {"s": [2, 4]}, {}),
    "reshape_computed": (middle("Reshape(a, t)", FIXED).replace("b =", "t = Shape(x) b ="), {}, {}),
    "flatten": (middle("Flatten(a)"), {}, {}),
    "transpose": (middle("Transpose<perm=[0,1]>(a)"), {}, {}),
    "pad_of_old": (middle("Pad<pads=[0,0,0,0]>(a)"), {}, {"opset": 10}),
    "slice": (middle("Slice(a, s, e)"), {"s": [0, 0], "e": [2**63 - 1, 4]}, {}),
    "slice_of_axes": (middle("Slice(a, s, e, i, p)"), {"s": [-4], "e": [9], "i": [-1], "p": [1]}, {}),
    "slice_of_old": (middle("Slice<starts=[0], ends=[2147483647]>(a)"), {}, {"opset": 9}),
    "split": (middle("Split<axis=1>(a)"), {}, {}),
    "concat": (middle("Concat<axis=1>(a)"), {}, {}),
    "sum": (middle("Sum(a)"), {}, {}),
    "expand": (middle("Expand(a, s)"), {"s": [1, 4]}, {}),
    "tile": (middle("Tile(a, r)"), {"r": [1, 1]}, {}),
    "mul": (middle("Mul(a, k)"), {"k": [1.0] * 4}, {}),
    "mul_the_other_way": (middle("Mul(k, a)"), {"k": ONE}, {}),
    "mul_by_a_constant_node": (middle("Mul(a, k)").replace("b =", "k = Constant<value_float=1.0>() b ="), {}, {}),
    "div": (middle("Div(a, k)"), {"k": np.float32(1)}, {}),
    "sub": (middle("Sub(a, k)"), {"k": ZERO}, {}),
    "add_of_minus_zero": (middle("Add(a, k)"), {"k": MINUS}, {}),
    "integer_add": (
        "g (int64[N,4] x) => (int64[N,4] y) { a = Neg(x) b = Add(k, a) y = Abs(b) }",
        {"k": [0]},
        {},
    ),
}


@pytest.mark.parametrize("name", GOES)
def test_goes(name: str, build: Callable[..., Model], folded: Callable[..., State]) -> None:
    text, weights, options = GOES[name]
    after = folded(RemoveNoOps(), build(text, arrays(weights), **options))
    kept = [node.op_type for node in after.model.graph.node if node.op_type not in ("Shape", "Constant")]
    assert kept in (["Relu", "Neg"], ["Neg", "Abs"])
    assert not after.model.initializers


def arrays(weights: dict[str, Any]) -> dict[str, Any]:
    def array(spec: Any) -> Any:
        if not isinstance(spec, list):
            return np.asarray(spec)
        return np.array(spec, np.int64 if all(isinstance(one, int) for one in spec) else np.float32)

    return {name: array(spec) for name, spec in weights.items()}


STAYS: dict[str, Case] = {
    "dropout_whose_positions_are_read": (
        "g (float[N,4] x) => (float[N,4] y, bool[N,4] m) { y, m = Dropout(x) }",
        {},
        {},
    ),
    "cast_to_another_type": ("g (float[N,4] x) => (double[N,4] y) { a = Cast<to=11>(x) y = Neg(a) }", {}, {}),
    "reshape": ("g (float[2,4] x) => (float[4,2] y) { a = Reshape(x, s) y = Neg(a) }", {"s": [4, 2]}, {}),
    "reshape_of_unknown_sizes": (
        "g (float[N,M] x) => (float[A,B] y) { a = Reshape(x, s) y = Neg(a) }",
        {"s": [-1, 4]},
        {},
    ),
    "flatten_of_more": ("g (float[N,2,2] x) => (float[N,4] y) { a = Flatten(x) y = Neg(a) }", {}, {}),
    "transpose": ("g (float[4,4] x) => (float[4,4] y) { a = Transpose<perm=[1,0]>(x) y = Neg(a) }", {}, {}),
    "pad": ("g (float[N,4] x) => (float[N,5] y) { a = Pad(x, p) y = Neg(a) }", {"p": [0, 0, 0, 1]}, {}),
    "slice": (
        "g (float[N,4] x) => (float[N,3] y) { a = Slice(x, s, e, i) y = Neg(a) }",
        {"s": [0], "e": [3], "i": [1]},
        {},
    ),
    "slice_backwards": (
        "g (float[N,4] x) => (float[N,4] y) { a = Slice(x, s, e, i, p) y = Neg(a) }",
        {"s": [-1], "e": [-9], "i": [1], "p": [-1]},
        {},
    ),
    "slice_of_an_axis_of_unknown_size": (
        "g (float[N,4] x) => (float[M,4] y) { a = Slice(x, s, e, i) y = Neg(a) }",
        {"s": [0], "e": [1000], "i": [0]},
        {},
    ),
    "concat_of_two": ("g (float[N,2] x) => (float[N,4] y) { a = Concat<axis=1>(x, x) y = Neg(a) }", {}, {}),
    "expand": ("g (float[1,4] x) => (float[3,4] y) { a = Expand(x, s) y = Neg(a) }", {"s": [3, 1]}, {}),
    "tile": ("g (float[N,4] x) => (float[N,8] y) { a = Tile(x, r) y = Neg(a) }", {"r": [1, 2]}, {}),
    "mul_that_broadcasts": (
        "g (float[1,4] x) => (float[3,4] y) { a = Mul(x, k) y = Neg(a) }",
        {"k": np.ones((3, 1), np.float32)},
        {},
    ),
    "mul_that_adds_an_axis": (
        "g (float[N,4] x) => (float[1,N,4] y) { a = Mul(x, k) y = Neg(a) }",
        {"k": np.ones((1, 1, 1), np.float32)},
        {},
    ),
    "mul_by_almost_one": (middle("Mul(a, k)"), {"k": [1.0, 1.0, 1.0, 1.0000001]}, {}),
    "div_of_one": (middle("Div(k, a)"), {"k": ONE}, {}),
    "sub_of_minus_zero": (middle("Sub(a, k)"), {"k": MINUS}, {}),
    "sub_from_zero": (middle("Sub(k, a)"), {"k": ZERO}, {}),
    "add_of_zero": (middle("Add(a, k)"), {"k": ZERO}, {}),
    "value_that_the_caller_may_set": (
        "g (float[N,4] x, float[1] k) => (float[N,4] y) { a = Mul(x, k) y = Neg(a) }",
        {"k": ONE},
        {},
    ),
}


@pytest.mark.parametrize("name", STAYS)
def test_stays(name: str, build: Callable[..., Model]) -> None:
    text, weights, options = STAYS[name]
    state = State(build(text, arrays(weights), **options))
    onnx.checker.check_model(state.model.skeleton)
    assert RemoveNoOps()(state) is state


def test_a_dropout_that_trains_stays(build: Callable[..., Model]) -> None:
    for training in ("g (float[N,4] x, bool t)", "g (float[N,4] x)"):
        text = f"{training} => (float[N,4] y) {{ a = Dropout(x, r, t) y = Neg(a) }}"
        weights = {"r": np.float32(0.5), **({} if "bool" in training else {"t": np.array(True)})}
        state = State(build(text, weights))
        assert RemoveNoOps()(state) is state


def test_signs_of_zeros_are_the_reason_why_an_add_of_zero_stays() -> None:
    minus = np.float32(-0.0)
    assert np.signbit(minus - np.float32(0.0))
    assert np.signbit(minus + minus)
    assert not np.signbit(minus + np.float32(0.0))


def test_value_infos_are_not_believed(build: Callable[..., Model]) -> None:
    model = build(
        "g (float[N,M] x) => (float[A,B] y) { a = Relu(x) b = Reshape(a, s) y = Neg(b) }", {"s": np.array([1, 4])}
    )
    model.skeleton.graph.value_info.append(onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [1, 4]))
    state = State(model)
    assert RemoveNoOps()(state) is state


def test_initializers_of_old_files_are_constants(build: Callable[..., Model], folded: Callable[..., State]) -> None:
    after = folded(RemoveNoOps(), build(middle("Mul(a, k)"), {"k": np.ones(4, np.float32)}, opset=8, ir=3))
    assert [node.op_type for node in after.model.graph.node] == ["Relu", "Neg"]
    assert [value.name for value in after.model.graph.input] == ["x"]


def test_a_name_that_means_something_else_in_a_body_is_left(
    build: Callable[..., Model], reasons: Callable[..., list[str]]
) -> None:
    text = (
        "g (float[N,4] x, bool c) => (float[N,4] y) { b = Identity(x) y = If (c) <"
        "then_branch = t () => (float[N,4] o1) { x = Neg(b) o1 = Abs(x) }, "
        "else_branch = e () => (float[N,4] o2) { o2 = Abs(b) }> }"
    )
    before = State(build(text))
    after = RemoveNoOps()(before)
    assert after.model is before.model
    assert reasons(after) == ["b: a body reads 'b' in a place where 'x' is something else"]
    assert RemoveNoOps()(after) is after


def test_a_quantization_annotation_keeps_its_value(
    build: Callable[..., Model], reasons: Callable[..., list[str]]
) -> None:
    model = build(middle("Identity(a)"))
    annotation = model.skeleton.graph.quantization_annotation.add(tensor_name="b")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    after = RemoveNoOps()(State(model))
    assert after.model is model
    assert reasons(after) == ["b: a quantization annotation names its input or output"]


def test_training_graphs_are_refused(build: Callable[..., Model], reasons: Callable[..., list[str]]) -> None:
    model = build(middle("Identity(a)"))
    model.skeleton.training_info.add()
    assert reasons(RemoveNoOps()(State(model))) == ["the graph: it holds training graphs, which would no longer fit"]


def test_the_old_dropout_may_train(build: Callable[..., Model]) -> None:
    model = build(middle("Dropout(a)"), opset=6)
    state = State(model)
    assert RemoveNoOps()(state) is state


def test_masks_and_names_of_weights_stay(build: Callable[..., Model], ints: Callable[..., Any]) -> None:
    model = build(f"{FOUR} {{ v = Identity(w) y = MatMul(x, v) }}", {"w": ints((4, 4))})
    masks = Masks({"w": np.eye(4, dtype=np.bool_)})
    after = RemoveNoOps()(State(model, masks))
    assert after.masks is masks
    assert list(after.model.initializers) == ["w"]


def test_value_infos_of_what_went_go(build: Callable[..., Model]) -> None:
    model = build(middle("Identity(a)"))
    for name in "ab":
        model.skeleton.graph.value_info.append(onnx.helper.make_tensor_value_info(name, 1, ["N", 4]))
    after = RemoveNoOps()(State(model)).model
    assert [value.name for value in after.graph.value_info] == ["a"]


def test_the_model_before_is_not_touched(build: Callable[..., Model]) -> None:
    model = build(middle("Identity(a)"))
    text = model.skeleton.SerializeToString(deterministic=True)
    RemoveNoOps()(State(model))
    assert model.skeleton.SerializeToString(deterministic=True) == text
