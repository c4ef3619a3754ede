"""`densify`: every encoded tensor back as a plain one, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from ..arrays import Array, NDArray
from ..errors import EncodeError
from ..model import Model
from ..storage import keys, stubs
from . import coo
from .functions import DOMAIN
from .places import Place, constant_node, places, tensor_for
from .registry import scheme_of
from .scheme import Scheme


@dataclass(frozen=True, eq=False)
class Decoder:
    """A decoder node of a model: the key of the tensor it makes, the scheme, the keys of its inputs, and where it
    is.
    """

    key: str
    scheme: Scheme
    inputs: tuple[str, ...]
    place: Place
    node: onnx.NodeProto


def decoders(model: Model) -> Iterator[Decoder]:
    """Every decoder node of `model`, in bodies and functions too.

    Raises:
        EncodeError: a node of the domain `onnxprune` is unknown, or an input of it is not stored in the model.
    """
    for place in places(model.skeleton):
        for node in place.holder.node:
            scheme = scheme_of(node)
            if scheme is None or (place.function is not None and place.function.domain == DOMAIN):
                continue
            inputs = tuple(place.prefix + name for name in node.input)
            missing = [name for name in inputs if name not in model.initializers]
            if missing:
                raise EncodeError(
                    f"{DOMAIN}::{node.op_type} that makes {node.output[0]!r}: its input {missing[0]!r} is not stored"
                )
            yield Decoder(place.prefix + node.output[0], scheme, inputs, place, node)


def decode(model: Model, decoder: Decoder) -> NDArray:
    """The tensor that `decoder` makes. Raises EncodeError when its parts do not fit together."""
    return decoder.scheme.decode([model.initializers[key] for key in decoder.inputs])


def sparse_tensors(model: Model) -> dict[str, onnx.SparseTensorProto]:
    """Key → standard sparse tensor, for every sparse_initializer and Constant(sparse_value)."""
    found: dict[str, onnx.SparseTensorProto] = {}
    for place in places(model.skeleton):
        if isinstance(place.holder, onnx.GraphProto):
            found |= {place.prefix + sparse.values.name: sparse for sparse in place.holder.sparse_initializer}
        for node in place.holder.node:
            if keys.is_constant(node) and node.attribute and node.attribute[0].name == "sparse_value":
                found[place.prefix + keys.first_output(node)] = node.attribute[0].sparse_tensor
    return found


def densify(model: Model) -> Model:
    """`model` with every encoded tensor decoded: gaps, bitmask, sparse_initializer and Constant(sparse_value).

    Returns:
        The same object when nothing is encoded. A decoded tensor is an initializer, in a function body a Constant; the
        decoder functions and the import of their domain go, the IR version stays.

    Raises:
        EncodeError: a stored tensor cannot be decoded.
    """
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    copied = Model(skeleton, model.initializers, model.path)
    sources: dict[str, Array] = {}
    outside = {key for key, tensor in keys.tensors(skeleton) if stubs.store_of(tensor) == stubs.EXTERNAL}
    was_outside = {d.key for d in decoders(copied) if outside.intersection(d.inputs)}
    found = [(d.place, d.node.output[0], d.key, decode(model, d)) for d in decoders(copied)]
    for key, sparse in sparse_tensors(copied).items():
        place = max((p for p in places(skeleton) if key.startswith(p.prefix)), key=lambda p: len(p.prefix))
        found.append((place, key.removeprefix(place.prefix), key, coo.dense_array(sparse)))
    if not found:
        return model
    parts = {id(d.place.holder): set[str]() for d in decoders(copied)}
    for decoder in decoders(copied):
        parts[id(decoder.place.holder)].update(decoder.node.input)
    for place, name, key, array in found:
        _put_dense(place, name, tensor_for(name, key, array, sources, outside=key in was_outside))
    for place in places(skeleton):
        _drop_parts(place, parts.get(id(place.holder), set()))
    _drop_functions(skeleton)
    return model.with_skeleton(skeleton, sources)


def _put_dense(place: Place, name: str, tensor: onnx.TensorProto) -> None:
    """Put `tensor` where its decoder, sparse initializer or sparse Constant was."""
    if isinstance(place.holder, onnx.GraphProto):
        for index, sparse in enumerate(place.holder.sparse_initializer):
            if sparse.values.name == name:
                del place.holder.sparse_initializer[index]
                place.holder.initializer.append(tensor)
                return
    at = next(index for index, node in enumerate(place.holder.node) if name in node.output)
    if isinstance(place.holder, onnx.GraphProto) and place.holder.node[at].domain == DOMAIN:
        del place.holder.node[at]
        place.holder.initializer.append(tensor)
    else:
        place.holder.node[at].CopyFrom(constant_node(tensor))


def _drop_parts(place: Place, names: set[str]) -> None:
    """Remove the parts of encoded tensors that nothing reads any more."""
    still_read = {name for node in place.holder.node for name in node.input}
    gone = names - still_read
    if isinstance(place.holder, onnx.GraphProto):
        kept = [tensor for tensor in place.holder.initializer if tensor.name not in gone]
        del place.holder.initializer[:]
        place.holder.initializer.extend(kept)
    nodes = [node for node in place.holder.node if not (keys.is_constant(node) and node.output[0] in gone)]
    if len(nodes) != len(place.holder.node):
        del place.holder.node[:]
        place.holder.node.extend(nodes)


def _drop_functions(skeleton: onnx.ModelProto) -> None:
    functions = [function for function in skeleton.functions if function.domain != DOMAIN]
    del skeleton.functions[:]
    skeleton.functions.extend(functions)
    for holder in (skeleton, *skeleton.functions):
        imports = [entry for entry in holder.opset_import if entry.domain != DOMAIN]
        del holder.opset_import[:]
        holder.opset_import.extend(imports)
