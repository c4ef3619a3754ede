"""The graphs and function bodies of a model, as one kind of thing that tensors can be taken out of and put into.

In a graph a tensor is an initializer or the value of a Constant node; in a function body only the latter is possible.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import helper

from ..arrays import Array, NDArray
from ..storage import keys, stubs


@dataclass(frozen=True, eq=False)
class Place:
    """A graph, a body, or a model-local function of a skeleton under construction.

    Attributes:
        prefix: what the keys of its tensors start with; empty for the main graph.
        holder: the GraphProto or FunctionProto.
        function: the function it lies in; None in the main graph and its bodies.
    """

    prefix: str
    holder: onnx.GraphProto | onnx.FunctionProto
    function: onnx.FunctionProto | None = None

    @property
    def has_initializers(self) -> bool:
        """False for the outermost level of a function."""
        return isinstance(self.holder, onnx.GraphProto)

    def tensors(self) -> Iterator[tuple[str, onnx.TensorProto]]:
        """(value name, tensor) of each initializer and Constant value of this place, bodies below it left out."""
        if isinstance(self.holder, onnx.GraphProto):
            yield from ((tensor.name, tensor) for tensor in self.holder.initializer)
        for node in self.holder.node:
            if keys.is_constant(node) and node.attribute and node.attribute[0].name == "value":
                yield keys.first_output(node), node.attribute[0].t

    def names(self) -> set[str]:
        """Every value name in use here."""
        used = {name for node in self.holder.node for name in (*node.input, *node.output)}
        if isinstance(self.holder, onnx.GraphProto):
            used |= {tensor.name for tensor in self.holder.initializer}
            used |= {value.name for value in (*self.holder.input, *self.holder.output)}
            return used | {sparse.values.name for sparse in self.holder.sparse_initializer}
        return used | set(self.holder.input) | set(self.holder.output)

    def replace(self, name: str, nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto]) -> None:
        """Put `nodes` and `initializers` in the place of the tensor `name`: where its Constant was, or first of all."""
        at = self._take_out(name)
        rest = list(self.holder.node)
        del self.holder.node[:]
        self.holder.node.extend([*rest[:at], *nodes, *rest[at:]])
        if isinstance(self.holder, onnx.GraphProto):
            self.holder.initializer.extend(initializers)

    def _take_out(self, name: str) -> int:
        """Remove the tensor `name`; the index at which nodes that make it belong."""
        if isinstance(self.holder, onnx.GraphProto):
            for index, tensor in enumerate(self.holder.initializer):
                if tensor.name == name:
                    del self.holder.initializer[index]
                    return 0
        at = next(index for index, node in enumerate(self.holder.node) if name in node.output)
        del self.holder.node[at]
        return at


def places(skeleton: onnx.ModelProto) -> Iterator[Place]:
    """The main graph, the functions, and every body below them."""
    yield from _with_bodies(Place("", skeleton.graph))
    for function in skeleton.functions:
        yield from _with_bodies(Place(keys.function_prefix(function), function, function))


def _with_bodies(place: Place) -> Iterator[Place]:
    yield place
    for node in place.holder.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                prefix = keys.body_prefix(place.prefix, node, attribute.name)
                yield from _with_bodies(Place(prefix, attribute.g, place.function))


def tensor_for(name: str, key: str, array: NDArray, sources: dict[str, Array], *, outside: bool) -> onnx.TensorProto:
    """A tensor of a skeleton under construction: with its bytes when small, else a stub with its values in `sources`.

    `outside`: its bytes go to the data file, unless they are less than 1 KiB.
    """
    tensor = onnx.TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
    if stubs.keeps_values(tensor.data_type, array.size):
        tensor.raw_data = array.tobytes()
    else:
        stubs.set_stub(tensor, key, stubs.EXTERNAL if outside and array.nbytes >= stubs.EXTERNAL_FROM else "raw")
        sources[key] = Array(array)
    return tensor


def constant_node(tensor: onnx.TensorProto) -> onnx.NodeProto:
    """A Constant node that gives `tensor` under its name."""
    name = tensor.name
    node = helper.make_node("Constant", [], [name], value=tensor)
    node.attribute[0].t.ClearField("name")
    return node
