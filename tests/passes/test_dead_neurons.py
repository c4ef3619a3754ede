"""RemoveDeadNeurons as a pass: planted neurons in both LeNets, its log, masks, chaining, and the groups it works on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import numpy_helper
from onnxprune_passes.arrays import Masked
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.errors import ModelError
from onnxprune_passes.masks import Masks, apply_masks
from onnxprune_passes.model import Model
from onnxprune_passes.neurons import NeuronGroup, find_groups
from onnxprune_passes.pipeline import Change, State, chain
from onnxprune_passes.storage import from_proto, load, to_proto

NDArray = npt.NDArray[Any]
Arrays = dict[str, NDArray]
MODELS = Path(__file__).parents[2] / "models"

LENET_300_100 = """lenet (float[N,1,28,28] image) => (float[N,10] logits) {
    flat = Flatten(image)
    a = Gemm<transB=1>(flat, "fc1.weight", "fc1.bias")  b = Relu(a)
    c = Gemm<transB=1>(b, "fc2.weight", "fc2.bias")  d = Relu(c)
    logits = Gemm<transB=1>(d, "fc3.weight", "fc3.bias") }"""
LENET_5 = """lenet (float[N,1,28,28] image) => (float[N,10] logits) {
    a = Conv(image, "conv1.weight", "conv1.bias")  b = Relu(a)  c = MaxPool<kernel_shape=[2,2], strides=[2,2]>(b)
    d = Conv(c, "conv2.weight", "conv2.bias")  e = Relu(d)  f = MaxPool<kernel_shape=[2,2], strides=[2,2]>(e)
    flat = Flatten(f)
    g = Gemm<transB=1>(flat, "fc1.weight", "fc1.bias")  h = Relu(g)
    logits = Gemm<transB=1>(h, "fc2.weight", "fc2.bias") }"""
SIZES: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "lenet_300_100": (LENET_300_100, {"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)}),
    "lenet_5": (LENET_5, {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (500, 800), "fc2": (10, 500)}),
}
PLANTED = {
    "lenet_300_100": (("fc1", "fc2", 60, 60), ("fc2", "fc3", 15, 15)),
    "lenet_5": (("conv1", "conv2", 3, 4), ("conv2", "fc1", 12, 11), ("fc1", "fc2", 60, 60)),
}
"""(layer, the one that reads it, neurons without incoming weights, neurons without outgoing ones): 75 and 75."""


def built(name: str) -> Model:
    """A LeNet with weights of -1 and 1."""
    text, sizes = SIZES[name]
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    rng = np.random.default_rng(0)
    for layer, shape in sizes.items():
        weight, bias = rng.choice([-1, 1], shape), rng.integers(1, 4, shape[0])
        proto.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), f"{layer}.weight"))
        proto.graph.initializer.append(numpy_helper.from_array(bias.astype(np.float32), f"{layer}.bias"))
    return from_proto(proto)


def trained(name: str) -> Model:
    """The trained LeNet of the repository in multiples of 1/8 (weights, none 0) and integers (biases, none 0)."""
    path = MODELS / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"models/{name}.onnx is not there: models/train_lenets.py writes it")
    model, rng = load(path), np.random.default_rng(0)
    rounded: Arrays = {}
    for key in model.initializers:
        array = model.initializers[key]
        step = 8 if array.ndim > 1 else 1
        whole = np.round(array * step)
        rounded[key] = (np.where(whole == 0, rng.choice([-1, 1], array.shape), whole) / step).astype(np.float32)
    return model.with_initializers(rounded)


def planted(model: Model, name: str) -> Model:
    """`model`, none of whose weights is 0, with 75 input-dead and 75 output-dead neurons."""
    weights = {key: np.array(model.initializers[key]) for key in model.initializers if key.endswith(".weight")}
    for layer, reader, without_inputs, without_outputs in PLANTED[name]:
        made, read = weights[f"{layer}.weight"], weights[f"{reader}.weight"]
        made[:without_inputs] = 0
        columns = read.reshape(read.shape[0], made.shape[0], -1)
        columns[:, without_inputs : without_inputs + without_outputs] = 0
    return model.with_initializers(weights)


def answers(model: Model, images: NDArray, optimised: bool) -> NDArray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(to_proto(model).SerializeToString(), options)
    return np.asarray(session.run(None, {"image": images})[0])


@pytest.mark.parametrize("source", [built, trained])
@pytest.mark.parametrize("name", SIZES)
def test_150_of_150_planted_neurons_go(name: str, source: Callable[[str], Model]) -> None:
    before = planted(source(name), name)
    state = RemoveDeadNeurons()(State(before))
    after = state.model
    summary = [entry.summary for entry in state.log if isinstance(entry, Change)]
    total = sum(shape[0] for shape in SIZES[name][1].values())
    assert len(state.log) == 1
    assert summary[0].startswith(f"removed 150 of {total} neurons (75 input-dead, 75 output-dead): ")
    for layer, _, without_inputs, without_outputs in PLANTED[name]:
        size = SIZES[name][1][layer][0]
        left = size - without_inputs - without_outputs
        assert after.initializers[f"{layer}.weight"].shape[0] == left
        assert f"{layer}.weight {size} -> {left}" in summary[0]
    onnx.checker.check_model(to_proto(after), full_check=True)
    for batch in (1, 5):
        images = np.random.default_rng(batch).integers(-2, 3, (batch, 1, 28, 28)).astype(np.float32)
        for optimised in (False, True):
            np.testing.assert_array_equal(answers(before, images, optimised), answers(after, images, optimised))


def small(**weights: Any) -> Model:
    """Gemm 30 -> 4, Relu, Gemm 4 -> 2."""
    text = "g (float[N,30] x) => (float[N,2] y) { h = Gemm(x, w1, b1) r = Relu(h) y = Gemm(r, w2, b2) }"
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    arrays = {
        "w1": np.arange(1, 121, dtype=np.float32).reshape(30, 4),
        "b1": np.array([1, 2, 3, 4], np.float32),
        "w2": np.arange(1, 9, dtype=np.float32).reshape(4, 2),
        "b2": np.array([5, 6], np.float32),
        **weights,
    }
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return from_proto(proto)


def test_masks_are_cut_with_their_tensors() -> None:
    keep = np.ones((30, 4), np.bool_)
    keep[:, 1] = False
    keep[0, 2] = False
    masks = Masks({"w1": keep, "w2": np.ones((4, 2), np.bool_)})
    before = State(apply_masks(small(), masks), masks)
    after = RemoveDeadNeurons()(before)
    assert np.array_equal(after.masks["w1"], keep[:, [0, 2, 3]])
    assert after.masks["w2"].shape == (3, 2)
    source = after.model.initializers.source("w1")
    assert isinstance(source, Masked)
    assert source.bits is after.masks.bits("w1")
    assert np.array_equal(after.model.initializers["w1"], before.model.initializers["w1"][:, [0, 2, 3]])
    assert apply_masks(after.model, after.masks).initializers["w1"][0, 1] == 0
    assert before.masks["w1"].shape == (30, 4)


def test_a_mask_of_explicit_zeros_is_cut_too() -> None:
    keep = np.ones((30, 4), np.bool_)
    keep[:, 1] = False
    w1 = np.where(keep, np.float32(2), np.float32(0))
    after = RemoveDeadNeurons()(State(small(w1=w1), Masks({"w1": keep})))
    assert after.masks["w1"].all()
    assert after.masks["w1"].shape == after.model.initializers["w1"].shape == (30, 3)


def test_a_masked_bias_is_not_folded_into() -> None:
    """Its mask says 0: a number put there would be lost the next time the masks are applied."""
    masks = Masks({"b2": np.array([False, True])})
    w1 = np.ones((30, 4), np.float32)
    w1[:, 1] = 0
    before = State(apply_masks(small(w1=w1), masks), masks)
    after = RemoveDeadNeurons()(before)
    assert after.model.initializers["y.bias"].tolist() == [2 * 3, 6 + 2 * 4]
    assert apply_masks(
        after.model, Masks({key: after.masks[key] for key in after.masks if key in after.model.initializers})
    )


def test_runs_in_a_chain_and_names_itself() -> None:
    w1 = np.ones((30, 4), np.float32)
    w1[:, 1] = 0
    both = chain(RemoveDeadNeurons(), RemoveDeadNeurons())
    after = both(State(small(w1=w1)))
    assert [entry.by for entry in after.log] == ["remove-dead-neurons"]
    assert RemoveDeadNeurons().name == "remove-dead-neurons"


def test_fixed_point_in_one_run() -> None:
    """A chain of layers, each of which only the removal before it makes dead."""
    text = """g (float[N,2] x) => (float[N,2] y) {
        a = MatMul(x, w0) b = MatMul(a, w1) c = MatMul(b, w2) y = MatMul(c, w3) }"""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    eye = np.eye(2, dtype=np.float32)
    for index in range(4):
        proto.graph.initializer.append(
            numpy_helper.from_array(eye if index else np.diag([0, 1]).astype(np.float32), f"w{index}")
        )
    after = RemoveDeadNeurons()(State(from_proto(proto)))
    assert [after.model.initializers[f"w{index}"].shape for index in range(4)] == [(2, 1), (1, 1), (1, 1), (1, 2)]


def test_groups() -> None:
    w1, w2 = np.ones((30, 4), np.float32), np.ones((4, 2), np.float32)
    w1[:, :2] = 0
    w2[1:3] = 0
    first, last = find_groups(small(w1=w1, w2=w2))
    assert first == NeuronGroup("w1", ("w1 axis 1", "b1 axis 0", "w2 axis 0"), 4, 2, 2, ())
    assert last.name == "w2"
    assert last.axes == ("w2 axis 1", "b2 axis 0")
    assert (last.size, last.input_dead, last.output_dead) == (2, 0, 0)
    assert last.pinned_by == ("blocked by graph output 'y': the interface never changes",)


def test_groups_of_a_graph_whose_shapes_cannot_be_inferred() -> None:
    proto = to_proto(small())
    proto.graph.node[1].op_type = "Concat"
    proto.graph.node[1].domain = ""
    proto.opset_import[0].version = 3
    with pytest.raises(ModelError, match="opset 3"):
        find_groups(from_proto(proto))
