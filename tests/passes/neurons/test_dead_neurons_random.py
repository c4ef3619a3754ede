"""Random chains with random zero rows and columns: equal answers, and plain chains lose all that an oracle finds.

Weights are -1, 0 and 1 and factors powers of two, so that every sum is exact in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import from_proto, to_proto

NDArray = npt.NDArray[Any]
RELAXED = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass
class Growing:
    """A chain under construction: `shape` is that of its last value, without the batch axis."""

    rng: np.random.Generator
    shape: tuple[int, ...]
    value: str = "x"
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, NDArray] = field(default_factory=dict)

    def node(self, op: str, *more: str, shape: tuple[int, ...] | None = None, **attributes: Any) -> None:
        """Append `op` on the last value and on `more`."""
        output = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [self.value, *more], [output], **attributes))
        self.value, self.shape = output, self.shape if shape is None else shape

    def constant(self, values: NDArray) -> str:
        """A new initializer."""
        name = f"w{len(self.weights)}"
        self.weights[name] = values
        return name

    def weight(self, shape: tuple[int, ...], out_axis: int, in_axis: int) -> str:
        """A weight of -1, 0, 1 that loses each slice with probability 0.3."""
        values = self.rng.choice([-1, 1], shape) * self.rng.integers(0, 2, shape)
        for axis in (out_axis, in_axis):
            dead = self.rng.random(shape[axis]) < 0.3
            values[(slice(None),) * axis + (dead,)] = 0
        return self.constant(values.astype(np.float32))

    def vector(self, size: int, low: int = -2, high: int = 3) -> str:
        return self.constant(self.rng.integers(low, high, size).astype(np.float32))

    def model(self, *shape_in: int) -> Model:
        """The chain from `x` [N, *shape_in] to its last value."""
        inputs = [helper.make_tensor_value_info("x", 1, ["N", *shape_in])]
        outputs = [helper.make_tensor_value_info(self.value, 1, ["N", *self.shape])]
        tensors = [numpy_helper.from_array(values, name) for name, values in self.weights.items()]
        graph = helper.make_graph(self.nodes, "chain", inputs, outputs, tensors)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        return from_proto(onnx.shape_inference.infer_shapes(proto))


def conv(chain: Growing) -> None:
    channels, *space = chain.shape
    out, kernel, pad = (int(chain.rng.integers(low, high)) for low, high in ((2, 5), (1, 3), (0, 2)))
    if min(space) + 2 * pad < kernel:
        return
    bias = [chain.vector(out)] if chain.rng.random() < 0.7 else []
    weight = chain.weight((out, channels, kernel, kernel), 0, 1)
    shape = (out, *(size + 2 * pad - kernel + 1 for size in space))
    chain.node("Conv", weight, *bias, shape=shape, pads=[pad] * 4)


def depthwise(chain: Growing) -> None:
    channels = chain.shape[0]
    weight = chain.weight((channels, 1, 1, 1), 0, 1)
    chain.node("Conv", weight, chain.vector(channels), group=channels)


def batch_norm(chain: Growing) -> None:
    size = chain.shape[0]
    scale, bias, mean = (chain.vector(size, -1, 2) for _ in range(3))
    chain.node("BatchNormalization", scale, bias, mean, chain.constant(np.ones(size, np.float32)), epsilon=0.0)


def pool(chain: Growing) -> None:
    channels, *space = chain.shape
    if min(space) >= 2:
        op = "MaxPool" if chain.rng.random() < 0.5 else "AveragePool"
        shape = (channels, *(size // 2 for size in space))
        chain.node(op, shape=shape, kernel_shape=[2, 2], strides=[2, 2])


def activation(chain: Growing) -> None:
    kind = int(chain.rng.integers(3))
    if kind == 0:
        chain.node("LeakyRelu", alpha=0.25)
    else:
        chain.node(("Relu", "Neg")[kind - 1])


def residual(chain: Growing) -> None:
    """The chain so far plus a branch from it (from its first value on, so that the spine is shared)."""
    start, shape = chain.value, chain.shape
    if len(shape) == 3:
        chain.node("Conv", chain.weight((shape[0], shape[0], 1, 1), 0, 1), chain.vector(shape[0]))
    else:
        chain.node("Gemm", chain.weight((shape[0], shape[0]), 0, 1), chain.vector(shape[0]), transB=1)
    chain.node("Add", start)


def turned(chain: Growing) -> None:
    """Channels last and back."""
    if len(chain.shape) == 3:
        channels, height, width = chain.shape
        chain.node("Transpose", perm=[0, 2, 3, 1], shape=(height, width, channels))
        activation(chain)
        chain.node("Transpose", perm=[0, 3, 1, 2], shape=(channels, height, width))


def joined(chain: Growing) -> None:
    """Two slices of the neurons, the other way round."""
    size = chain.shape[0]
    if size >= 2:
        value, cut = chain.value, int(chain.rng.integers(1, size))
        bounds = [chain.constant(np.array([number], np.int64)) for number in (0, cut, size, 1)]
        chain.node("Slice", bounds[0], bounds[1], bounds[3])
        first, chain.value = chain.value, value
        chain.node("Slice", bounds[1], bounds[2], bounds[3])
        chain.node("Concat", first, axis=1)


def dense(chain: Growing) -> None:
    size, out = chain.shape[0], int(chain.rng.integers(2, 6))
    if chain.rng.random() < 0.5:
        chain.node("Gemm", chain.weight((out, size), 0, 1), chain.vector(out), transB=1, shape=(out,))
    else:
        chain.node("MatMul", chain.weight((size, out), 1, 0), shape=(out,))
        if chain.rng.random() < 0.7:
            chain.node("Add", chain.vector(out))


def flat(chain: Growing) -> None:
    size = int(np.prod(chain.shape))
    kind = int(chain.rng.integers(3))
    if kind == 0:
        chain.node("Flatten", shape=(size,))
    elif kind == 1:
        chain.node("Reshape", chain.constant(np.array([-1, size], np.int64)), shape=(size,))
    else:
        chain.node("GlobalMaxPool")
        chain.node("Flatten", shape=(chain.shape[0],))


IMAGE_STEPS = [conv, conv, depthwise, batch_norm, pool, activation, residual, turned, joined]
DENSE_STEPS = [dense, activation, residual, joined]


@st.composite
def chains(draw: st.DrawFn) -> Model:
    """A chain of at most 4 image steps and 4 dense steps; its last weight makes the output."""
    chain = Growing(np.random.default_rng(draw(st.integers(0, 1 << 32))), (2, 4, 4))
    conv(chain)
    for step in draw(st.lists(st.sampled_from(IMAGE_STEPS), max_size=4)):
        step(chain)
    flat(chain)
    for step in draw(st.lists(st.sampled_from(DENSE_STEPS), max_size=3)):
        step(chain)
    dense(chain)
    return chain.model(2, 4, 4)


@RELAXED
@given(chains())
def test_answers_stay_equal(same_answers: Callable[..., None], chain: Model) -> None:
    before = State(chain)
    whole = to_proto(chain).SerializeToString()
    after = RemoveDeadNeurons()(before)
    assert RemoveDeadNeurons()(after) is after
    assert to_proto(before.model).SerializeToString() == whole
    assert before.log == ()
    same_answers(chain, after.model)


def survivors(matrices: list[NDArray]) -> list[int]:
    """How many neurons each hidden layer of a plain chain keeps: zero rows and zero columns go until none is left."""
    alive = [np.ones(matrix.shape[1], np.bool_) for matrix in matrices] + [np.ones(matrices[-1].shape[0], np.bool_)]
    changed = True
    while changed:
        changed = False
        for layer in range(1, len(matrices)):
            made = matrices[layer - 1][:, alive[layer - 1]].any(axis=1)
            read = matrices[layer][alive[layer + 1]].any(axis=0)
            now = alive[layer] & made & read
            changed = changed or bool((now != alive[layer]).any())
            alive[layer] = now
    return [int(one.sum()) for one in alive[1:-1]]


@RELAXED
@given(st.integers(0, 1 << 32), st.integers(2, 5), st.booleans())
def test_plain_chains_lose_everything_an_oracle_finds(seed: int, layers: int, transposed: bool) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(4, 9, layers + 1).tolist()
    chain, matrices = Growing(rng, (sizes[0],)), []
    for size, out in pairwise(sizes):
        matrix = rng.integers(-1, 2, (out, size)).astype(np.float32)
        matrix[rng.random(out) < 0.3] = 0
        matrix[:, rng.random(size) < 0.3] = 0
        matrices.append(matrix)
        weight = chain.constant(matrix if transposed else np.ascontiguousarray(matrix.T))
        chain.node("Gemm", weight, chain.vector(out), transB=int(transposed), shape=(out,))
        activation(chain)
    kept = survivors(matrices)
    assume(all(kept))
    model = chain.model(sizes[0])
    after = RemoveDeadNeurons()(State(model)).model
    names = [node.input[1] for node in after.graph.node if node.op_type == "Gemm"][:-1]
    assert [after.initializers[name].shape[0 if transposed else 1] for name in names] == kept
