"""The graphs and function bodies of a model, as one kind of thing that tensors can be taken out of and put into.

In a graph a tensor is an initializer or the value of a Constant node; in a function body only the latter is possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from ..arrays import Array, NDArray
from ..storage import keys, stubs
from .functions import DOMAIN

StoredTensor = onnx.TensorProto | onnx.SparseTensorProto


@dataclass(frozen=True, eq=False)
class Form:
    """What stands in a graph for one tensor: the nodes that make it, and the tensors stored for them.

    In a function body the stored tensors are written as Constant nodes. Empty: the tensor goes.
    """

    nodes: tuple[onnx.NodeProto, ...] = ()
    tensors: tuple[StoredTensor, ...] = ()


@dataclass(frozen=True, eq=False)
class Place:
    """A graph, a body, or a model-local function.

    Attributes:
        prefix: what the keys of its tensors start with; empty for the main graph.
        holder: the GraphProto or FunctionProto.
        function: the function it lies in; None in the main graph and its bodies.
    """

    prefix: str
    holder: onnx.GraphProto | onnx.FunctionProto
    function: onnx.FunctionProto | None = None

    def tensors(self) -> Iterator[tuple[str, onnx.TensorProto]]:
        """(value name, tensor) of each initializer and Constant value of this place, bodies below it left out."""
        if isinstance(self.holder, onnx.GraphProto):
            yield from ((tensor.name, tensor) for tensor in self.holder.initializer)
        for node in self.holder.node:
            if keys.is_constant(node) and node.attribute and node.attribute[0].name == "value":
                yield keys.first_output(node), node.attribute[0].t

    def sparse_tensors(self) -> Iterator[tuple[str, onnx.SparseTensorProto]]:
        """(value name, tensor) of each sparse_initializer and Constant(sparse_value), bodies below left out."""
        if isinstance(self.holder, onnx.GraphProto):
            yield from ((sparse.values.name, sparse) for sparse in self.holder.sparse_initializer)
        for node in self.holder.node:
            if keys.is_constant(node) and node.attribute and node.attribute[0].name == "sparse_value":
                yield keys.first_output(node), node.attribute[0].sparse_tensor

    def outputs(self) -> tuple[str, ...]:
        """Names of its outputs."""
        if isinstance(self.holder, onnx.GraphProto):
            return tuple(value.name for value in self.holder.output)
        return tuple(self.holder.output)

    def names(self) -> set[str]:
        """Every value name in use here, bodies below left out."""
        used = {name for node in self.holder.node for name in (*node.input, *node.output)} | set(self.outputs())
        if isinstance(self.holder, onnx.FunctionProto):
            return used | set(self.holder.input)
        used |= {value.name for value in self.holder.input} | {tensor.name for tensor in self.holder.initializer}
        return used | {sparse.values.name for sparse in self.holder.sparse_initializer}

    def replace(self, forms: Mapping[str, Form]) -> None:
        """Put forms in the place of tensors, by name: their nodes come where the node that made the tensor was, and
        first of all where none did.

        Every node of the place is copied, so a `Place` of a body below it must not be used any more.
        """
        first: list[onnx.NodeProto] = []
        if isinstance(self.holder, onnx.GraphProto):
            stored = {tensor.name for tensor in self.holder.initializer}
            stored |= {sparse.values.name for sparse in self.holder.sparse_initializer}
            first = [node for name, form in forms.items() if name in stored for node in form.nodes]
            _replace_stored(self.holder, forms)
        nodes: list[onnx.NodeProto] = []
        for node in self.holder.node:
            form = forms.get(keys.first_output(node))
            if form is None:
                nodes.append(node)
                continue
            if isinstance(self.holder, onnx.FunctionProto):
                nodes += [_constant_node(tensor) for tensor in form.tensors]
            nodes += form.nodes
        del self.holder.node[:]
        self.holder.node.extend([*first, *nodes])


def _replace_stored(graph: onnx.GraphProto, forms: Mapping[str, Form]) -> None:
    """Take the tensors named in `forms` out of the initializers of `graph`, and put those of the forms in."""
    tensors = [tensor for tensor in graph.initializer if tensor.name not in forms]
    sparse = [tensor for tensor in graph.sparse_initializer if tensor.values.name not in forms]
    for form in forms.values():
        tensors += [tensor for tensor in form.tensors if isinstance(tensor, onnx.TensorProto)]
        sparse += [tensor for tensor in form.tensors if isinstance(tensor, onnx.SparseTensorProto)]
    del graph.initializer[:]
    graph.initializer.extend(tensors)
    del graph.sparse_initializer[:]
    graph.sparse_initializer.extend(sparse)


def _constant_node(tensor: StoredTensor) -> onnx.NodeProto:
    """A Constant node that gives `tensor` under its name."""
    if isinstance(tensor, onnx.SparseTensorProto):
        node = helper.make_node("Constant", [], [tensor.values.name], sparse_value=tensor)
        node.attribute[0].sparse_tensor.values.ClearField("name")
    else:
        node = helper.make_node("Constant", [], [tensor.name], value=tensor)
        node.attribute[0].t.ClearField("name")
    return node


def places(skeleton: onnx.ModelProto) -> Iterator[Place]:
    """The main graph, the functions, and every body below them; a body comes after what holds it.

    Decoder functions are left out: nothing in them is the model's.
    """
    yield from _with_bodies(Place("", skeleton.graph))
    for function in (each for each in skeleton.functions if each.domain != DOMAIN):
        yield from _with_bodies(Place(keys.function_prefix(function), function, function))


def innermost_first(skeleton: onnx.ModelProto) -> Iterator[Place]:
    """The same, a body before what holds it: the order in which each can be rewritten (see `Place.replace`)."""
    return reversed(list(places(skeleton)))


def _with_bodies(place: Place) -> Iterator[Place]:
    yield place
    for node in place.holder.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                prefix = keys.body_prefix(place.prefix, node, attribute.name)
                yield from _with_bodies(Place(prefix, attribute.g, place.function))


def names_read(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """The names that `nodes` and the bodies below them read."""
    read: set[str] = set()
    for node in nodes:
        read.update(node.input)
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                read |= names_read(body.node) | {value.name for value in body.output}
    return read


def tensor_for(name: str, key: str, array: NDArray, sources: dict[str, Array], *, outside: bool) -> onnx.TensorProto:
    """A tensor of a skeleton under construction: with its bytes when small, else a stub with its values in `sources`.

    `outside`: its bytes go to the data file, unless they are less than 1 KiB.
    """
    tensor = onnx.TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
    if array.dtype == np.int64 and array.size <= stubs.SMALL:
        tensor.int64_data.extend(array.reshape(-1).tolist())  # small numbers are shorter as varints
    elif stubs.keeps_values(tensor.data_type, array.size):
        tensor.raw_data = array.tobytes()
    else:
        stubs.set_stub(tensor, key, stubs.EXTERNAL if outside and array.nbytes >= stubs.EXTERNAL_FROM else "raw")
        sources[key] = Array(array)
    return tensor
