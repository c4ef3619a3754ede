"""`densify`: every encoded tensor back as a plain one, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from ..arrays import Array, NDArray
from ..errors import EncodeError
from ..model import Model
from ..storage import keys, stubs
from . import coo
from .coding import Coding
from .functions import DOMAIN, DOMAIN_VERSION
from .inline import calls_restored
from .live import live_coding, spread_of
from .places import Form, Place, innermost_first, names_read, places, tensor_for
from .registry import function_for, is_scaling, scheme_of, values_of
from .rice_codes import RiceCodes, is_rice_codes
from .scheme import VALUES


@dataclass(frozen=True, eq=False)
class Decoder:
    """An encoded tensor of a model: the node that makes it, and the one that makes its values, if there is one.

    Attributes:
        key: of the tensor, as in the dense model.
        name: of the tensor, in its graph.
        coding: how it is stored.
        inputs: keys of its parts, in the order in which `coding` decodes them.
        nodes: the nodes, the one that makes the tensor last.
    """

    key: str
    name: str
    coding: Coding
    inputs: tuple[str, ...]
    nodes: tuple[onnx.NodeProto, ...]


def decoders(model: Model) -> Iterator[Decoder]:
    """Every encoded tensor of `model`, in bodies and functions too.

    Raises:
        EncodeError: a node of the domain `onnxprune` is unknown, of a newer version, or not one that decodes; or an
            input of it is not stored beside it.
    """
    for entry in model.skeleton.opset_import:
        if entry.domain == DOMAIN and entry.version > DOMAIN_VERSION:
            raise EncodeError(
                f"the model imports version {entry.version} of {DOMAIN}, this onnxprune reads {DOMAIN_VERSION}; "
                "install a newer one"
            )
    model = calls_restored(model, function_for)
    for place in places(model.skeleton):
        yield from _decoders_in(place, model)


def _decoders_in(place: Place, model: Model) -> Iterator[Decoder]:
    found = ((node, spread_of(node)) for node in place.holder.node)
    spreads = {node.input[0]: (node, spread) for node, spread in found if spread is not None and node.input}
    for coding, names, nodes in _codings_in(place, model):
        while nodes[-1].output and nodes[-1].output[0] in spreads:
            node, spread = spreads.pop(nodes[-1].output[0])
            coding, names, nodes = live_coding(coding, spread), [*names, *node.input[1:]], (*nodes, node)
        yield _decoder(place, model, coding, names, nodes)
    for name, (node, _) in spreads.items():
        raise EncodeError(
            f"{DOMAIN}::{node.op_type}: no decoder makes its input {place.prefix + name!r}; it is damaged"
        )


def _codings_in(place: Place, model: Model) -> Iterator[tuple[Coding, list[str], tuple[onnx.NodeProto, ...]]]:
    """The coding of each tensor, its parts and its nodes, without the nodes that put slices back."""
    scalings = {node.input[0]: node for node in place.holder.node if is_scaling(node) and len(node.input) == 2}
    makers = {name: node for node in place.holder.node if values_of(node) is not None for name in node.output}
    for node in place.holder.node:
        if is_rice_codes(node):
            yield RiceCodes(), list(node.input), (node,)
            continue
        scheme = scheme_of(node, _shapes(place, model, node))
        if scheme is None:
            continue
        names = list(node.input)
        wanted = scheme.suffixes.index(VALUES)
        maker = makers.get(names[wanted]) if len(names) > wanted else None
        if maker is not None:
            names = [*names[:wanted], *names[wanted + 1 :], *maker.input]
        scaling = scalings.get(node.output[0]) if node.output else None
        names += [] if scaling is None else [scaling.input[1]]
        values = None if maker is None else values_of(maker, _shapes(place, model, maker))
        coding = Coding(scheme, values, scaled=scaling is not None)
        nodes = tuple(one for one in (maker, node, scaling) if one is not None)
        yield coding, names, nodes


def _decoder(
    place: Place, model: Model, coding: Coding, names: list[str], nodes: tuple[onnx.NodeProto, ...]
) -> Decoder:
    """That of the tensor that the last of `nodes` makes. Raises EncodeError when a part is not stored."""
    last = nodes[-1]
    if len(last.output) != 1 or not last.output[0]:
        raise EncodeError(f"{DOMAIN}::{last.op_type} has outputs {list(last.output)}, expected 1; it is damaged")
    inputs = tuple(place.prefix + name for name in names)
    for key in inputs:
        if key not in model.initializers:
            raise EncodeError(
                f"{DOMAIN}::{last.op_type} that makes {place.prefix + last.output[0]!r}: its input {key!r} is not "
                "stored in the same graph; encode the dense model again"
            )
    return Decoder(place.prefix + last.output[0], last.output[0], coding, inputs, nodes)


def _shapes(place: Place, model: Model, node: onnx.NodeProto) -> list[tuple[int, ...]]:
    """The shapes of the stored inputs of a node, of int64 ones what is in them; empty for others."""
    keys = [place.prefix + name for name in node.input]
    sources = [model.initializers.source(key) if key in model.initializers else None for key in keys]
    return [() if one is None else tuple(one.array().flat) if one.dtype == np.int64 else one.shape for one in sources]


def decode(model: Model, decoder: Decoder) -> NDArray:
    """The tensor that `decoder` makes. Raises EncodeError when its parts do not fit together."""
    try:
        return decoder.coding.decode([model.initializers[key] for key in decoder.inputs])
    except EncodeError as error:
        raise EncodeError(f"tensor {decoder.key!r}: {error}") from error


def sparse_tensors(model: Model) -> dict[str, onnx.SparseTensorProto]:
    """Key → standard sparse tensor, for every sparse_initializer and Constant(sparse_value)."""
    return {place.prefix + name: sparse for place in places(model.skeleton) for name, sparse in place.sparse_tensors()}


def densify(model: Model) -> Model:
    """`model` with every encoded tensor decoded: gaps, bitmask, sparse_initializer and Constant(sparse_value).

    Returns:
        The same object when nothing is encoded. A decoded tensor is an initializer, in a function body a Constant; it
        is external when its parts were, those of less than 1 KiB aside. The decoder functions and the import of their
        domain go, the IR version stays.

    Raises:
        EncodeError: a stored tensor cannot be decoded.
    """
    if next(decoders(model), None) is None and not sparse_tensors(model):
        return model
    model = calls_restored(model, function_for)
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    sources: dict[str, Array] = {}
    external = {key for key, tensor in keys.tensors(skeleton) if stubs.store_of(tensor) == stubs.EXTERNAL}
    for place in innermost_first(skeleton):
        forms = _dense_forms(place, model, external, sources)
        if forms:
            place.replace(forms)
    _drop_functions(skeleton)
    return model.with_skeleton(skeleton, sources)


def _dense_forms(place: Place, model: Model, external: set[str], sources: dict[str, Array]) -> dict[str, Form]:
    """What to put in the place of every encoded tensor of `place`, and of their parts that nothing else reads."""
    read = names_read(node for node in place.holder.node if node.domain != DOMAIN).union(place.outputs())
    forms: dict[str, Form] = {}
    for decoder in _decoders_in(place, model):
        big = [key for key in decoder.inputs if model.initializers[key].nbytes >= stubs.EXTERNAL_FROM]
        outside = bool(external) and external.issuperset(big)
        tensor = tensor_for(decoder.name, decoder.key, decode(model, decoder), sources, outside=outside)
        forms[decoder.name] = Form(tensors=(tensor,))
        parts = (key.removeprefix(place.prefix) for key in decoder.inputs)
        made = (name for node in decoder.nodes[:-1] for name in node.output)
        forms |= {name: Form() for name in (*parts, *made) if name not in read}
    for name, sparse in place.sparse_tensors():
        key = place.prefix + name
        tensor = tensor_for(name, key, coo.dense_array(key, sparse), sources, outside=False)
        forms[name] = Form(tensors=(tensor,))
    return forms


def _drop_functions(skeleton: onnx.ModelProto) -> None:
    functions = [function for function in skeleton.functions if function.domain != DOMAIN]
    del skeleton.functions[:]
    skeleton.functions.extend(functions)
    for holder in (skeleton, *skeleton.functions):
        imports = [entry for entry in holder.opset_import if entry.domain != DOMAIN]
        del holder.opset_import[:]
        holder.opset_import.extend(imports)
