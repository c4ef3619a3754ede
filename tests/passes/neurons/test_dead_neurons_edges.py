"""Edges: shared weights, all dead, interface initializers, Constant nodes, other types, views, masks of axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import from_proto, to_proto

NDArray = npt.NDArray[Any]
Build = Callable[..., Model]
Ints = Callable[..., NDArray]
Shrink = Callable[..., State]
Shapes = Callable[[State], dict[str, tuple[int, ...]]]

MLP = "g (float[N,3] x) => (float[N,2] y) { h = Gemm<transB=1>(x, w1, b1) r = Relu(h) y = Gemm<transB=1>(r, w2, b2) }"


@pytest.fixture
def weights(ints: Ints) -> dict[str, NDArray]:
    return {
        "w1": ints((4, 3), {0: [1]}),
        "b1": np.array([1, 2, 3, 4], np.float32),
        "w2": ints((2, 4), {1: [3]}, 5),
        "b2": np.array([0, 5], np.float32),
    }


def test_all_neurons_dead_keeps_one(build: Build, ints: Ints, shrink: Shrink, shapes: Shapes) -> None:
    dead = {"w1": ints((4, 3), {0: [0, 1, 2, 3]}), "b1": np.ones(4, np.float32), "w2": ints((2, 4))}
    state = shrink(build(MLP.replace(", b2", ""), dead))
    assert shapes(state)["w1"] == (1, 3)
    assert shapes(state)["w2"] == (2, 1)


@pytest.mark.parametrize("zero", ["w1", "w2"])
def test_nothing_but_zeros(
    build: Build, weights: dict[str, NDArray], shrink: Shrink, shapes: Shapes, zero: str
) -> None:
    state = shrink(build(MLP, {**weights, zero: np.zeros_like(weights[zero])}))
    assert shapes(state)["w1"] == (1, 3)


def test_negative_zero_is_zero(build: Build, weights: dict[str, NDArray], shrink: Shrink, shapes: Shapes) -> None:
    state = shrink(build(MLP, {**weights, "w2": np.where(weights["w2"] == 0, np.float32(-0.0), weights["w2"])}))
    assert shapes(state)["w1"] == (2, 3)


def test_nothing_dead_gives_the_same_state(build: Build, ints: Ints, weights: dict[str, NDArray]) -> None:
    state = State(build(MLP, {**weights, "w1": ints((4, 3)), "w2": ints((2, 4))}))
    assert RemoveDeadNeurons()(state) is state


def test_nan_row_is_not_dead(build: Build, weights: dict[str, NDArray]) -> None:
    weights["w1"][1, 0] = np.nan
    weights["w2"][:, 3] = 1
    state = State(build(MLP, weights))
    assert RemoveDeadNeurons()(state) is state


def test_infinite_constant_is_not_folded(
    build: Build, weights: dict[str, NDArray], reasons: Callable[[State], list[str]]
) -> None:
    weights["b1"][1] = np.inf
    state = RemoveDeadNeurons()(State(build(MLP, weights)))
    assert state.model.initializers["w1"].shape == (3, 3)
    assert reasons(state) == ["w1: 1 dead neuron stays: read by Gemm node 'y', where it is not a known constant"]


def test_shared_weight_loses_what_is_dead_in_both(build: Build, ints: Ints, shrink: Shrink, shapes: Shapes) -> None:
    text = """g (float[N,4] x) => (float[N,2] y) {
        h = Gemm(x, w1, b1) r = Relu(h) s = Gemm(r, w2, b2) t = Relu(s) u = Gemm(t, w2, b3) y = Gemm(u, w3) }"""
    state = shrink(
        build(
            text,
            {
                "w1": ints((4, 4), {1: [0, 1]}),
                "b1": np.array([5, 0, -1, 2], np.float32),
                "w2": ints((4, 4), {0: [3], 1: [0, 1]}, 3),
                "b2": np.array([1, 2, 3, 4], np.float32),
                "b3": np.array([4, 3, 2, 1], np.float32),
                "w3": ints((4, 2), {0: [3]}, 9),
            },
        )
    )
    found = shapes(state)
    assert found["w2"] == (found["w1"][1], found["w3"][0])
    assert found["w2"] == (1, 1) or found["w2"][0] < 4


def test_shared_bias_is_not_changed_for_the_other_reader(build: Build, ints: Ints, shrink: Shrink) -> None:
    text = """g (float[N,3] x) => (float[N,2] y, float[N,2] z) {
        h = Gemm(x, w1, b1) y = Gemm(h, w2, b2) z = Gemm(x, w3, b2) }"""
    b2 = np.array([7, 9], np.float32)
    state = shrink(
        build(
            text,
            {
                "w1": ints((3, 4), {1: [1]}),
                "b1": np.ones(4, np.float32),
                "w2": ints((4, 2)),
                "w3": ints((3, 2)),
                "b2": b2,
            },
        )
    )
    assert np.array_equal(state.model.initializers["b2"], b2)
    assert state.model.initializers["y.bias"].shape == (2,)


def input_shapes(model: Model) -> dict[str, list[int]]:
    return {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.input}


@pytest.mark.parametrize("ir", [3, 4, 8])
def test_initializers_that_are_inputs_stay_in_step(
    build: Build, weights: dict[str, NDArray], shrink: Shrink, ir: int
) -> None:
    """Before IR 4 all of them are inputs; a bias that is one is not folded into, since a caller could set it."""
    text = MLP if ir < 4 else MLP.replace("float[N,3] x)", "float[N,3] x, float[4] b1, float[2] b2)")
    state = shrink(build(text, weights, opset=8, ir=ir))
    inputs = input_shapes(state.model)
    assert inputs["b1"] == [2]
    assert inputs.get("w1", [2, 3]) == [2, 3]
    assert "b2" not in inputs
    assert state.model.skeleton.ir_version == ir
    assert np.array_equal(state.model.initializers["y.bias"], weights["b2"] + 2 * weights["w2"][:, 1])


@pytest.mark.parametrize("ir", [3, 8])
def test_a_new_bias_is_no_new_input(build: Build, weights: dict[str, NDArray], shrink: Shrink, ir: int) -> None:
    del weights["b2"]
    state = shrink(build(MLP.replace(", b2", ""), weights, opset=11, ir=ir))
    assert "y.bias" in state.model.initializers
    assert "y.bias" not in input_shapes(state.model)


def test_weights_in_constant_nodes(weights: dict[str, NDArray], build: Build, shrink: Shrink, shapes: Shapes) -> None:
    proto = to_proto(build(MLP, weights))
    nodes = [onnx.helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in proto.graph.initializer]
    rest = list(proto.graph.node)
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.node.extend(nodes + rest)
    state = shrink(from_proto(proto))
    assert shapes(state) == {"w1": (2, 3), "b1": (2,), "w2": (2, 2), "b2": (2,)}
    assert not state.model.graph.initializer


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types(
    build: Build, weights: dict[str, NDArray], shrink: Shrink, shapes: Shapes, dtype: Any
) -> None:
    text = MLP.replace("float[", "float16[" if dtype is np.float16 else "double[")
    state = shrink(build(text, {name: array.astype(dtype) for name, array in weights.items()}))
    assert shapes(state)["w1"] == (2, 3)
    assert {state.model.initializers[name].dtype for name in weights} == {np.dtype(dtype)}


@pytest.mark.parametrize("bias", [", b2", ""])
def test_bfloat16(build: Build, weights: dict[str, NDArray], bias: str) -> None:
    """onnxruntime has no kernels for it, so the numbers are compared."""
    used = {name: array.astype(ml_dtypes.bfloat16) for name, array in weights.items() if bias or name != "b2"}
    before = build(MLP.replace("float[", "bfloat16[").replace(", b2", bias), used)
    state = RemoveDeadNeurons()(State(before))
    onnx.checker.check_model(to_proto(state.model), full_check=True)
    name = "b2" if bias else "y.bias"
    folded = weights["b2"] * bool(bias) + 2 * weights["w2"][:, 1]
    assert state.model.initializers["w1"].shape == (2, 3)
    assert np.array_equal(state.model.initializers[name], folded.astype(ml_dtypes.bfloat16))


def test_float16_weights_behind_a_cast(
    build: Build, weights: dict[str, NDArray], shrink: Shrink, shapes: Shapes
) -> None:
    text = """g (float[N,3] x) => (float[N,2] y) { a = Cast<to=1>(w1) t = Transpose(a) h = MatMul(x, t) s = Add(h, b1)
        b = Identity(w2) u = Transpose<perm=[1,0]>(b) o = MatMul(s, u) y = Add(o, b2) }"""
    state = shrink(build(text, {**weights, "w1": weights["w1"].astype(np.float16)}))
    assert shapes(state) == {"w1": (2, 3), "b1": (2,), "w2": (2, 2), "b2": (2,)}


def test_value_infos_tell_the_new_shapes(build: Build, weights: dict[str, NDArray], shrink: Shrink) -> None:
    text = MLP.replace("w1, b1)", "v, b1)").replace("{ h", "{ v = Identity(w1) h")
    inferred = onnx.shape_inference.infer_shapes(to_proto(build(text, weights)))
    assert {value.name for value in inferred.graph.value_info} >= {"v", "h", "r"}
    state = shrink(from_proto(inferred))
    dims = {value.name: value.type.tensor_type.shape.dim for value in state.model.graph.value_info}
    assert [dims["h"][0].dim_param, dims["h"][1].dim_value] == ["N", 2]
    assert [dim.dim_value for dim in dims["v"]] == [2, 3]


def test_shape_that_the_file_states_wrongly_is_refused(build: Build, weights: dict[str, NDArray]) -> None:
    proto = to_proto(build(MLP, weights))
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, ["N", 7]))
    state = RemoveDeadNeurons()(State(from_proto(proto)))
    assert state.model.initializers["w1"].shape == (4, 3)


def test_training_graphs_are_refused(
    build: Build, weights: dict[str, NDArray], reasons: Callable[[State], list[str]]
) -> None:
    proto = to_proto(build(MLP, weights))
    proto.training_info.add()
    state = RemoveDeadNeurons()(State(from_proto(proto)))
    assert reasons(state) == [
        "the graph: the model holds training graphs, which would no longer fit: nothing was removed"
    ]


def test_untouched_tensors_are_shared(build: Build, weights: dict[str, NDArray], ints: Ints) -> None:
    text = MLP.replace("y = Gemm", "z = Gemm").replace("[N,2]", "[N,100]").replace(" }", " y = Gemm(z, w3) }")
    before = State(build(text, {**weights, "w3": ints((2, 100))}))
    after = RemoveDeadNeurons()(before)
    assert after.model.initializers.source("w3") is before.model.initializers.source("w3")
    assert before.model.initializers["w1"].shape == (4, 3)
