"""`Flow`: what a value carries beside its numbers, and how it is run on small arrays.

    ids     one integer a coordinate, -1 where there is none; the array has the value's rank, and size 1 on axes that
            carry no neuron
    known   where the value is a constant, whatever the model's inputs are
    values  that constant

The three arrays have one shape. An axis of size 1 that is longer in truth says: the same all along it; `whole` says
that there is no such axis.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper, shape_inference
from onnx.reference import ReferenceEvaluator

from ..arrays import NDArray
from .classes import Ids
from .graph import Node
from .slices import BoolArray

_EVALUATION_FAILS = (
    shape_inference.InferenceError,
    RuntimeError,
    NotImplementedError,
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
)
"""What onnx's reference raises for an operator version, a type or a shape that it does not cover."""


@dataclass(frozen=True, eq=False)
class Flow:
    """Ids and known constants of one value; see the module."""

    ids: Ids
    known: BoolArray
    values: NDArray
    whole: bool = False

    @staticmethod
    def empty(rank: int) -> Flow:
        """Of a value of `rank` axes that carries no neuron and of which nothing is known."""
        return Flow.of(np.full((1,) * rank, -1, np.int64))

    @staticmethod
    def of(ids: Ids) -> Flow:
        """Ids, and nothing known of the values."""
        return Flow(ids, np.zeros(ids.shape, np.bool_), np.zeros(ids.shape, np.float32))

    @staticmethod
    def exact(values: NDArray) -> Flow:
        """A constant, entry by entry, without ids."""
        return Flow(np.full(values.shape, -1, np.int64), np.ones(values.shape, np.bool_), values, whole=True)

    @property
    def rank(self) -> int:
        """The number of axes."""
        return self.ids.ndim

    @property
    def carries(self) -> bool:
        """True when there is an id anywhere."""
        return bool((self.ids >= 0).any())

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes that carry neurons."""
        return tuple(axis for axis, size in enumerate(self.ids.shape) if size > 1) if self.carries else ()

    def moved(self, move: Callable[[NDArray], NDArray]) -> Flow:
        """This flow after `move` (a transposition, a slice …) was done to each of its arrays."""
        return Flow(move(self.ids), move(self.known), move(self.values), self.whole)

    def picked(self, positions: Ids, axis: int) -> Flow:
        """The entries at `positions` of `axis`, as numpy's take picks them."""
        return self.moved(lambda array: np.asarray(array.take(positions, axis=axis)))

    def with_known(self, known: BoolArray, values: NDArray) -> Flow:
        """These ids with other constants, broadcast to their shape."""
        shape = self.ids.shape
        return replace(self, known=np.broadcast_to(known, shape), values=np.broadcast_to(values, shape))

    def loose(self) -> Flow:
        """These arrays, of a value some of whose axes of size 1 are longer in truth."""
        return replace(self, whole=False)

    def unknown(self) -> Flow:
        """These ids, nothing known."""
        return Flow.of(self.ids)

    def only_zeros(self) -> Flow:
        """These ids; of the constants only the zeros are still known."""
        return replace(self, known=self.known & (self.values == 0))

    def aligned(self, rank: int) -> Flow:
        """This flow with axes of size 1 before its own, up to `rank`, as numpy broadcasts."""
        lead = (1,) * (rank - self.rank)
        return self.moved(lambda array: array.reshape(lead + array.shape))

    def along(self, axes: Collection[int]) -> Flow:
        """This flow reduced to size 1 on all other axes: known where it is the same all along them, ids gone there."""
        ids, known, values = self.ids, self.known, self.values
        for axis in set(range(self.rank)) - set(axes):
            if ids.shape[axis] > 1:
                first = values.take([0], axis=axis)
                known = (known & (values == first)).all(axis=axis, keepdims=True)
                values, ids = first, np.full(known.shape, -1, np.int64)
        return Flow(ids, known, values)


def evaluate(node: Node, opsets: Mapping[str, int], inputs: Sequence[NDArray | None]) -> tuple[NDArray, ...] | None:
    """The outputs of `node` on `inputs` (None = absent), by onnx's reference; None when it cannot compute them."""
    feeds = {name: array for name, array in zip(node.proto.input, inputs, strict=True) if array is not None}
    with np.errstate(all="ignore"):
        try:
            typed = [
                helper.make_tensor_value_info(name, _onnx_type(array), array.shape) for name, array in feeds.items()
            ]
            outputs = [onnx.ValueInfoProto(name=name) for name in node.proto.output if name]
            graph = helper.make_graph([node.proto], "one node", typed, outputs)
            imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
            model = shape_inference.infer_shapes(helper.make_model(graph, opset_imports=imports))
            found = ReferenceEvaluator(model).run(None, dict(feeds))
        except _EVALUATION_FAILS:
            return None
    tensors = all(isinstance(output, (np.ndarray, np.generic)) for output in found)
    return tuple(np.asarray(output) for output in found) if tensors else None


def _onnx_type(array: NDArray) -> int:
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))
