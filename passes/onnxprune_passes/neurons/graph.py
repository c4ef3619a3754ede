"""What is known of a graph before any id flows: nodes, shapes of values, constants, and who reads what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import helper, shape_inference

from ..arrays import Array, Masked, NDArray
from ..errors import ModelError
from ..model import Model
from ..storage import stubs
from ..storage.keys import is_constant
from .bodies import Placed, graphs, placed
from .views import Const, shown, whole

Dim = int | str | None
"""The size of an axis, the name of a symbolic one, or None when nothing is known of it."""

_MOST_AXES = 64
"""Vectors of more entries than this name no shape."""
_OLDEST = 7
"""From this opset on operands broadcast as numpy's do."""


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

    def array(self, const: Const) -> NDArray:
        """The value that `const` is, whole: for vectors and other small ones."""
        stored = self.source(const).array()
        if const.steps is not None:
            scale = self._along(const, const.steps.scale)
            stored = (stored.astype(np.int64) - self.zero_point(const)).astype(scale.dtype) * scale
        laid = const.laid(stored)
        return laid if laid.dtype == const.dtype else laid.astype(const.dtype)

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
        return values.reshape(tuple(-1 if one == axis else 1 for one in range(len(const.stored))))

    def _constants(self) -> dict[str, Const]:
        found: dict[str, Const] = {}
        known = self.model.initializers
        for prefix, graph in graphs(self.model.graph):
            for key in (prefix + tensor.name for tensor in graph.initializer):
                if key in known:
                    found[key] = whole(key, known.source(key))

        def integers(name: str) -> tuple[int, ...] | None:
            source = known.source(name) if name in found and found[name].key == name else None
            if source is None or source.dtype.kind not in "iu" or source.size > _MOST_AXES:
                return None
            return tuple(int(one) for one in source.array().reshape(-1))

        for node in self.nodes:
            name = node.output(0)
            if is_constant(node.proto) and name in known:
                found[name] = whole(name, known.source(name))
            elif node.domain == "" and node.input(0) in found:
                view = shown(node, found[node.input(0)], found, integers)
                if view is not None:
                    found[name] = view
        return found


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
