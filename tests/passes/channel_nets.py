"""Nets whose channels are pruned, in whole numbers, for the tests of PruneChannels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import onnxruntime
from onnx import numpy_helper
from onnxprune_passes.channel_groups import find_channels
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import from_proto, to_proto

NDArray = npt.NDArray[Any]
Net = tuple[str, dict[str, tuple[int, ...]]]

CHAIN: Net = (
    """g (float[N,3,6,6] x) => (float[N,4] y) {
        a = Conv<pads=[1,1,1,1]>(x, c1.weight, c1.bias) n = BatchNormalization<epsilon=0.0>(a, bn.s, bn.b, bn.m, bn.v)
        r = Relu(n) b = Conv<pads=[1,1,1,1]>(r, c2.weight, c2.bias) s = Relu(b)
        p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(s) f = Flatten(p) y = Gemm<transB=1>(f, fc.weight, fc.bias) }""",
    {"c1": (20, 3, 3, 3), "bn": (20,), "c2": (16, 20, 3, 3), "fc": (4, 144)},
)
RESIDUAL: Net = (
    """g (float[N,3,5,5] x) => (float[N,2,5,5] y) {
        a = Conv<pads=[1,1,1,1]>(x, c1.weight, c1.bias) r = Relu(a)
        b = Conv<pads=[1,1,1,1]>(r, c2.weight, c2.bias) t = Relu(b)
        c = Conv<pads=[1,1,1,1]>(t, c3.weight, c3.bias) s = Add(c, r)
        u = Relu(s) y = Conv(u, c4.weight, c4.bias) }""",
    {"c1": (12, 3, 3, 3), "c2": (18, 12, 3, 3), "c3": (12, 18, 3, 3), "c4": (2, 12, 1, 1)},
)
CONCAT: Net = (
    """g (float[N,3,5,5] x) => (float[N,2,5,5] y) {
        a = Conv<pads=[1,1,1,1]>(x, c1.weight, c1.bias) r = Relu(a) b = Conv(x, c2.weight, c2.bias) s = Relu(b)
        j = Concat<axis=1>(r, s) y = Conv<pads=[1,1,1,1]>(j, c3.weight, c3.bias) }""",
    {"c1": (10, 3, 3, 3), "c2": (17, 3, 1, 1), "c3": (2, 27, 3, 3)},
)
DEPTHWISE: Net = (
    """g (float[N,3,6,6] x) => (float[N,3] y) {
        a = Conv(x, c1.weight, c1.bias) r = Relu(a)
        d = Conv<pads=[1,1,1,1], group=14>(r, dw.weight, dw.bias) s = Relu(d) b = Conv(s, c2.weight, c2.bias)
        m = GlobalMaxPool(b) f = Flatten(m) y = Gemm<transB=1>(f, fc.weight, fc.bias) }""",
    {"c1": (14, 3, 1, 1), "dw": (14, 1, 3, 3), "c2": (11, 14, 1, 1), "fc": (3, 11)},
)
MLP: Net = (
    """g (float[N,6] x) => (float[N,4] y) {
        a = Gemm<transB=1>(x, f1.weight, f1.bias) r = Relu(a) b = Gemm<transB=1>(r, f2.weight, f2.bias) s = Relu(b)
        y = Gemm<transB=1>(s, f3.weight, f3.bias) }""",
    {"f1": (20, 6), "f2": (10, 20), "f3": (4, 10)},
)
NETS = {"chain": CHAIN, "residual": RESIDUAL, "concat": CONCAT, "depthwise": DEPTHWISE, "mlp": MLP}
SIZES = {"chain": [20, 16], "residual": [12, 18], "concat": [10, 17], "depthwise": [14, 11], "mlp": [20, 10]}
"""The coupled groups of each that may lose channels."""


def built(net: Net, seed: int = 0, **arrays: NDArray) -> Model:
    """A net with small whole numbers for weights, none 0, and biases; `arrays` replaces some ("f1_weight")."""
    text, shapes = net
    for layer in shapes:
        for part in ("weight", "bias", "s", "b", "m", "v"):
            text = text.replace(f"{layer}.{part}", f"{layer}_{part}")
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    rng = np.random.default_rng(seed)
    values: dict[str, NDArray] = {}
    for layer, shape in shapes.items():
        if layer == "bn":
            values |= {f"bn_{part}": rng.choice([-2, -1, 1, 2], shape) for part in "sbm"} | {"bn_v": np.ones(shape)}
        else:
            values[f"{layer}_weight"] = rng.choice([-2, -1, 1, 2], shape)
            values[f"{layer}_bias"] = rng.integers(1, 4, shape[0])
    for name, array in (values | arrays).items():
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    return from_proto(proto)


def answers(model: Model, *, optimised: bool) -> NDArray:
    """The first output on seeded whole numbers, a batch of 3."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(to_proto(model).SerializeToString(), options, ["CPUExecutionProvider"])
    value = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else 3 for size in value.shape]
    x = np.random.default_rng(1).integers(-2, 3, shape).astype(np.float32)
    return np.asarray(session.run(None, {value.name: x})[0])


def free_sizes(model: Model) -> list[int]:
    return [group.size for group in find_channels(model) if group.pinned_by is None]


def sizes(model: Model) -> list[int]:
    """How many channels the first two weights of a net make; a single one is in no group."""
    weights = [key for key in model.initializers if key.endswith("_weight") and key != "dw_weight"]
    return [model.initializers[key].shape[0] for key in weights[:2]]


def shrunk(state: State) -> State:
    return RemoveDeadNeurons()(state)
