"""Decoder functions written out as plain nodes where they are called, for tools without functions, and the way back.

A call `w = onnxprune::DecodeGaps(0a, 0b, 0c, 0d)` becomes the nodes of the body, whose own values are named after the
first input: `0a.d`, `0a.e`, … Under the key `METADATA` the model keeps its calls as a list of
[operator, outputs, inputs] in JSON, so that `calls_restored` finds them again, whatever happened to the rest of the
file. A call whose nodes or parts are not there any more, since a tool computed the tensor or renamed things, stays as
it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from ..errors import EncodeError
from ..model import Model
from . import protos
from .functions import DOMAIN, add_functions, with_called, written_out
from .places import Place, innermost_first, names_read, places

METADATA = "onnxprune.decoders"
"""The key of the model's metadata under which the calls that were written out are listed."""

FunctionFor = Callable[[str, int], onnx.FunctionProto]
"""(operator, ai.onnx opset) → the decoder function. Raises EncodeError for an operator that there is not."""


@dataclass(frozen=True)
class _Call:
    """A decoder node: its operator, and the names of its values."""

    op_type: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]


def calls_inlined(model: Model) -> Model:
    """`model` with every decoder node as the plain nodes of its function, and without the functions and their domain.

    Returns:
        The same object when nothing is encoded so.

    Raises:
        EncodeError: a decoder node has no function in the model.
    """
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    there = {function.name: function for function in skeleton.functions if function.domain == DOMAIN}
    functions = written_out(there, model.opset)
    calls: dict[_Call, None] = dict.fromkeys(_recorded(model))
    known = len(calls)
    taken = {name for place in places(skeleton) for name in place.names()}
    for place in innermost_first(skeleton):
        here = [node for node in place.holder.node if node.domain == DOMAIN]
        if here:
            calls |= dict.fromkeys(_call(node) for node in here)
            _expand(place, functions, taken)
    if len(calls) == known:
        return model
    _without_functions(skeleton)
    _set_record(skeleton, calls)
    return model.with_skeleton(skeleton)


def calls_restored(model: Model, function_for: FunctionFor) -> Model:
    """`model` with the calls that `calls_inlined` wrote out as decoder nodes again, and the functions they need.

    Returns:
        The same object when no call is on record, or none is there any more.

    Raises:
        EncodeError: the record is damaged, or names a decoder that this version does not know.
    """
    calls = _recorded(model)
    if not calls:
        return model
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    functions = with_called((function_for(op_type, model.opset) for op_type in sorted(_operators(calls))), model.opset)
    used: dict[str, None] = {}
    for place in innermost_first(skeleton):
        there = {name for name, _ in place.tensors()}
        for call in calls:
            if there.issuperset(call.inputs) and _collapse(place, call, written_out(functions, model.opset)):
                used[call.op_type] = None
                there.update(call.outputs)
    if not used:
        return model
    _with_functions(skeleton, with_called((functions[op_type] for op_type in used), model.opset))
    _set_record(skeleton, ())
    return model.with_skeleton(skeleton)


def inlined_nbytes(call: onnx.NodeProto, functions: Mapping[str, onnx.FunctionProto]) -> int:
    """Bytes that `call` takes in a graph once it is written out, its entry in the record included."""
    return sum(map(protos.node_nbytes, _body(call, functions, set()))) + len(_record([_call(call)])) - 1


def _call(node: onnx.NodeProto) -> _Call:
    return _Call(node.op_type, tuple(node.output), tuple(node.input))


def _operators(calls: Iterable[_Call]) -> set[str]:
    return {call.op_type for call in calls}


def _record(calls: Iterable[_Call]) -> str:
    return json.dumps([[call.op_type, call.outputs, call.inputs] for call in calls], separators=(",", ":"))


def _set_record(skeleton: onnx.ModelProto, calls: Collection[_Call]) -> None:
    """Replace the record; without calls it goes."""
    kept = [entry for entry in skeleton.metadata_props if entry.key != METADATA]
    del skeleton.metadata_props[:]
    skeleton.metadata_props.extend(kept)
    if calls:
        skeleton.metadata_props.add(key=METADATA, value=_record(calls))


def _recorded(model: Model) -> tuple[_Call, ...]:
    """The calls on record; EncodeError when the record is damaged."""
    record = next((entry.value for entry in model.skeleton.metadata_props if entry.key == METADATA), "[]")
    try:
        return tuple(
            _Call(str(op_type), tuple(map(str, outputs)), tuple(map(str, inputs)))
            for op_type, outputs, inputs in json.loads(record)
        )
    except (ValueError, TypeError) as error:
        raise EncodeError(f"the metadata {METADATA!r} is not a list of decoders ({error}); take it out") from error


def _expand(place: Place, functions: Mapping[str, onnx.FunctionProto], taken: set[str]) -> None:
    """Write out the decoder nodes of `place`, those of bodies below it left alone."""
    nodes: list[onnx.NodeProto] = []
    for node in place.holder.node:
        if node.domain != DOMAIN:
            nodes.append(node)
            continue
        nodes += _body(node, functions, taken)
    _set_nodes(place, nodes)


def _body(call: onnx.NodeProto, functions: Mapping[str, onnx.FunctionProto], taken: set[str]) -> list[onnx.NodeProto]:
    """The function's nodes with the call's names for its inputs and outputs, and new ones for what is between; so too
    those of the functions that it calls.
    """
    if call.op_type not in functions:
        what = f"{DOMAIN}::{call.op_type} of {call.output[0]!r}"
        raise EncodeError(f"{what}: no such function in the model; encode the dense model again")
    function = functions[call.op_type]
    names = dict(zip((*function.input, *function.output), (*call.input, *call.output), strict=True))
    nodes = []
    for inner in function.node:
        node = onnx.NodeProto()
        node.CopyFrom(inner)
        for name in inner.output:
            if name not in names:
                names[name] = _free(f"{call.input[0]}.{name}", taken)
                taken.add(names[name])
        for field, values in (("input", list(inner.input)), ("output", list(inner.output))):
            node.ClearField(field)
            getattr(node, field).extend(names[name] if name else "" for name in values)
        nodes += _body(node, functions, taken) if node.domain == DOMAIN else [node]
    return nodes


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _collapse(place: Place, call: _Call, functions: Mapping[str, onnx.FunctionProto]) -> bool:
    """Put the decoder node back where the nodes of its body are; False, and nothing changed, when they are not."""
    nodes = list(place.holder.node)
    maker = {name: index for index, node in enumerate(nodes) for name in node.output}
    wanted, found = list(call.outputs), set[int]()
    while wanted:
        name = wanted.pop()
        if name in call.inputs or not name:
            continue
        if name not in maker:
            return False
        if maker[name] not in found:
            found.add(maker[name])
            wanted.extend(nodes[maker[name]].input)
    body = [nodes[index] for index in sorted(found)]
    others = [node for index, node in enumerate(nodes) if index not in found]
    inner = {name for node in body for name in node.output} - set(call.outputs)
    decoder = helper.make_node(call.op_type, call.inputs, call.outputs, domain=DOMAIN)
    if not _same(body, _body(decoder, functions, set())) or not inner.isdisjoint(
        names_read(others).union(place.outputs())
    ):
        return False
    first = min(found)
    others.insert(sum(index not in found for index in range(first)), decoder)
    _set_nodes(place, others)
    return True


def _same(body: Sequence[onnx.NodeProto], expected: Sequence[onnx.NodeProto]) -> bool:
    """Whether the nodes are those expected but for their names, in any order that a tool may have put them in."""
    return sorted(map(_shown, body)) == sorted(map(_shown, expected))


def _shown(node: onnx.NodeProto) -> tuple[str, str, tuple[bytes, ...]]:
    attributes = tuple(sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute))
    return node.domain, node.op_type, attributes


def _set_nodes(place: Place, nodes: Sequence[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del place.holder.node[:]
    place.holder.node.extend(copies)


def _without_functions(skeleton: onnx.ModelProto) -> None:
    kept = [function for function in skeleton.functions if function.domain != DOMAIN]
    del skeleton.functions[:]
    skeleton.functions.extend(kept)
    for holder in (skeleton, *skeleton.functions):
        imports = [entry for entry in holder.opset_import if entry.domain != DOMAIN]
        del holder.opset_import[:]
        holder.opset_import.extend(imports)


def _with_functions(skeleton: onnx.ModelProto, functions: Mapping[str, onnx.FunctionProto]) -> None:
    callers = [
        place.function or skeleton
        for place in places(skeleton)
        if any(node.domain == DOMAIN for node in place.holder.node)
    ]
    for holder in (skeleton, *callers) if functions else ():
        if all(entry.domain != DOMAIN for entry in holder.opset_import):
            holder.opset_import.append(protos.domain_import())
    add_functions(skeleton, functions)
