"""What is known of a graph before any id flows: nodes, shapes of values, constants, and who reads what."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, shape_inference

from ..arrays import Array, Masked, NDArray
from ..errors import ModelError
from ..model import Model
from ..storage import stubs
from ..storage.keys import is_constant
from .bodies import Placed, graphs, placed

Dim = int | str | None
"""The size of an axis, the name of a symbolic one, or None when nothing is known of it."""

_OLDEST = 7
"""From this opset on operands broadcast as numpy's do."""
_EXACT_CASTS = {
    (np.dtype(np.float16), np.dtype(np.float32)),
    (np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32)),
    (np.dtype(np.float16), np.dtype(np.float64)),
    (np.dtype(ml_dtypes.bfloat16), np.dtype(np.float64)),
    (np.dtype(np.float32), np.dtype(np.float64)),
}


@dataclass(frozen=True, eq=False)
class Node:
    """A node of the main graph or of a body; values have their full names (bodies.py).

    `index`: its place among all nodes; `opset`: the version of its domain; `placed`: where it is.
    """

    index: int
    placed: Placed
    opset: int

    @property
    def proto(self) -> onnx.NodeProto:
        """The node."""
        return self.placed.proto

    @property
    def domain(self) -> str:
        """The operator's domain, '' for ONNX's own."""
        return "" if self.proto.domain == "ai.onnx" else self.proto.domain

    @property
    def op_type(self) -> str:
        """The operator."""
        return self.proto.op_type

    @property
    def name(self) -> str:
        """The node's name, or that of its first output when it has none."""
        return self.proto.name or next((name for name in self.proto.output if name), "?")

    def __str__(self) -> str:
        return f"{self.op_type} node '{self.name}'"

    def input(self, index: int) -> str:
        """The name of input `index`; '' when it is absent."""
        return self.proto.input[index] if index < len(self.proto.input) else ""

    def output(self, index: int) -> str:
        """The name of output `index`; '' when it is absent."""
        return self.proto.output[index] if index < len(self.proto.output) else ""

    @cached_property
    def attributes(self) -> Mapping[str, Any]:
        """The attributes by name, as Python values."""
        return {one.name: helper.get_attribute_value(one) for one in self.proto.attribute}

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        return int(self.attributes.get(name, default))

    def integers(self, name: str) -> tuple[int, ...] | None:
        """A list of integers; None when the attribute is absent."""
        found = self.attributes.get(name)
        return None if found is None else tuple(int(one) for one in found)

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        found = self.attributes.get(name)
        return default if found is None else found.decode("utf-8", "replace")

    @property
    def has_body(self) -> bool:
        """True for If, Loop, Scan and whatever else holds graphs."""
        return any(one.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for one in self.proto.attribute)


@dataclass(frozen=True)
class Steps:
    """How the integers of a quantised tensor are scaled: (q - zero point) × scale.

    `scale`, `zero_point`: the keys of the tensors, '' for a zero point of 0; `axis`: the axis of the quantised tensor
    along which they lie, None when they are single numbers.
    """

    scale: str
    zero_point: str
    axis: int | None


@dataclass(frozen=True)
class Const:
    """A tensor of the model as a value shows it, after Identity, Transpose, exact Casts and DequantizeLinear.

    `axes[i]` is the axis of the tensor `key` that axis i of the value is; `dtype` that of the value; `steps` is there
    when the tensor is quantised.
    """

    key: str
    axes: tuple[int, ...]
    dtype: np.dtype[Any]
    steps: Steps | None = None


class Graph:
    """The main graph of `model` and the bodies in it, with what can be said of them at a glance.

    Raises ModelError when its shapes cannot be inferred, or it is of a kind that is not followed at all.

    Attributes:
        nodes: in the order in which they run, those of a body before the node that holds it.
        outputs: those of the main graph.
        constants: value → the tensor it shows.
        readers: value → (node, input index) of every reader.
    """

    def __init__(self, model: Model) -> None:
        if model.opset < _OLDEST:
            raise ModelError(
                f"the model uses opset {model.opset}, and rules are written for {_OLDEST} and newer: upgrade it first"
            )
        if model.skeleton.training_info:
            raise ModelError("the model holds training graphs, which would no longer fit")
        self.model = model
        opsets = {("" if one.domain == "ai.onnx" else one.domain): one.version for one in model.skeleton.opset_import}
        self.opsets = opsets
        self.nodes = tuple(
            Node(index, one, opsets.get("" if one.proto.domain == "ai.onnx" else one.proto.domain, 1))
            for index, one in enumerate(placed(model.skeleton))
        )
        self.outputs = tuple(value.name for value in model.graph.output)
        self.readers: dict[str, list[tuple[Node, int]]] = {}
        for node in self.nodes:
            for index, name in enumerate(node.proto.input):
                self.readers.setdefault(name, []).append((node, index))
        inferred = _inferred(model)
        self._dims = _dims(inferred)
        self._dtypes = _dtypes(inferred)
        self.constants = self._constants()

    def dims(self, value: str) -> tuple[Dim, ...] | None:
        """The shape of `value` as far as it is known; None when not even its rank is."""
        return self._dims.get(value)

    def dtype(self, value: str) -> np.dtype[Any] | None:
        """The element type of `value`; None when it is not known, or not one of whole bytes."""
        return self._dtypes.get(value)

    def source(self, const: Const) -> Array | Masked:
        """The tensor behind `const`, its axes in the order of the file."""
        return self.model.initializers.source(const.key)

    def shape(self, const: Const) -> tuple[int, ...]:
        """The shape of the value that `const` is."""
        shape = self.source(const).shape
        return tuple(shape[axis] for axis in const.axes)

    def array(self, const: Const) -> NDArray:
        """The value that `const` is, whole: for vectors and other small ones."""
        stored = self.source(const).array()
        if const.steps is not None:
            scale = self._along(const, const.steps.scale)
            stored = (stored.astype(np.int64) - self.zero_point(const)).astype(scale.dtype) * scale
        whole: NDArray = stored.transpose(const.axes)
        return whole if whole.dtype == const.dtype else whole.astype(const.dtype)

    def zero_point(self, const: Const) -> NDArray:
        """The integer(s) that mean 0 in the tensor behind `const`, to be broadcast to it: int64."""
        if const.steps is None or not const.steps.zero_point:
            return np.zeros((), np.int64)
        return self._along(const, const.steps.zero_point).astype(np.int64)

    def _along(self, const: Const, key: str) -> NDArray:
        """A tensor of scales or zero points, to be broadcast to the tensor behind `const`."""
        values = self.model.initializers.source(key).array()
        axis = None if const.steps is None else const.steps.axis
        if axis is None:
            return values.reshape(())
        return values.reshape(tuple(-1 if one == axis else 1 for one in range(len(const.axes))))

    def _constants(self) -> dict[str, Const]:
        found: dict[str, Const] = {}
        known = self.model.initializers
        for prefix, graph in graphs(self.model.graph):
            for key in (prefix + tensor.name for tensor in graph.initializer):
                if key in known:
                    source = known.source(key)
                    found[key] = Const(key, tuple(range(len(source.shape))), source.dtype)
        for node in self.nodes:
            name = node.output(0)
            if is_constant(node.proto) and name in known:
                found[name] = Const(name, tuple(range(len(known.source(name).shape))), known.source(name).dtype)
            elif node.domain == "" and node.input(0) in found:
                shown = _shown(node, found[node.input(0)], found, self.shape)
                if shown is not None:
                    found[name] = shown
        return found


def _shown(
    node: Node, const: Const, found: Mapping[str, Const], shape: Callable[[Const], tuple[int, ...]]
) -> Const | None:
    """What the value of `node`, which reads `const`, shows of the same tensor; None when it is another value."""
    if node.op_type == "Identity":
        return const
    if node.op_type == "Transpose":
        perm = node.integers("perm") or tuple(reversed(range(len(const.axes))))
        return replace(const, axes=tuple(const.axes[axis] for axis in perm))
    if node.op_type == "Cast":
        dtype = stubs.dtype_from_onnx(node.integer("to", 0))
        if dtype is not None and (dtype == const.dtype or (const.dtype, dtype) in _EXACT_CASTS):
            return replace(const, dtype=dtype)
    if node.op_type == "DequantizeLinear" and const.steps is None and const.dtype.kind in "iu":
        return _dequantised(node, const, found, shape)
    return None


def _dequantised(
    node: Node, const: Const, found: Mapping[str, Const], shape: Callable[[Const], tuple[int, ...]]
) -> Const | None:
    """The value of a DequantizeLinear whose scales and zero points are constants, one in all or one a slice."""
    scale, zero_point = found.get(node.input(1)), found.get(node.input(2))
    if scale is None or (node.input(2) and zero_point is None) or node.integer("block_size", 0):
        return None
    if any(
        one is not None and one.key != name
        for one, name in zip((scale, zero_point), node.proto.input[1:], strict=False)
    ):
        return None
    sizes = {shape(one) for one in (scale, zero_point) if one is not None}
    keys = (scale.key, "" if zero_point is None else zero_point.key)
    if sizes <= {(), (1,)}:
        return replace(const, dtype=scale.dtype, steps=Steps(*keys, None))
    axis = node.integer("axis", 1)
    if not -len(const.axes) <= axis < len(const.axes) or sizes != {(shape(const)[axis],)}:
        return None
    return replace(const, dtype=scale.dtype, steps=Steps(*keys, const.axes[axis]))


def _inferred(model: Model) -> onnx.GraphProto:
    try:
        return shape_inference.infer_shapes(model.skeleton, data_prop=True).graph
    except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
        line = re.sub(r"\s+", " ", str(error))[:200]
        raise ModelError(f"the shapes of the graph cannot be inferred ({line})") from error


def _dims(main: onnx.GraphProto) -> dict[str, tuple[Dim, ...]]:
    found: dict[str, tuple[Dim, ...]] = {}
    for prefix, graph in graphs(main):
        for tensor in graph.initializer:
            found[prefix + tensor.name] = tuple(tensor.dims)
        for value in (*graph.value_info, *graph.output, *graph.input):
            tensor_type = value.type.tensor_type
            if value.type.HasField("tensor_type") and tensor_type.HasField("shape"):
                found[prefix + value.name] = tuple(
                    (dim.dim_value if dim.dim_value >= 0 else None)
                    if dim.HasField("dim_value")
                    else dim.dim_param or None
                    for dim in tensor_type.shape.dim
                )
    return found


def _dtypes(main: onnx.GraphProto) -> dict[str, np.dtype[Any] | None]:
    found: dict[str, np.dtype[Any] | None] = {}
    for prefix, graph in graphs(main):
        for tensor in graph.initializer:
            found[prefix + tensor.name] = stubs.dtype_from_onnx(tensor.data_type)
        for value in (*graph.value_info, *graph.output, *graph.input):
            found[prefix + value.name] = stubs.dtype_from_onnx(value.type.tensor_type.elem_type)
    return found
