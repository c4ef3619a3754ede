"""`encode_model`: every tensor of a model in its smallest self-decoding form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import get_args

import onnx

from ..arrays import TensorSource
from ..errors import EncodeError
from ..model import Model
from ..pipeline import Change, Skip
from ..storage import keys, stubs
from . import coo, protos
from .bound import bound_nbytes
from .choose import stored_nbytes
from .functions import DOMAIN, add_functions, with_called
from .inline import calls_inlined
from .limits import FIRST_OPSET
from .parts import Parts
from .places import Form, Place, innermost_first, places
from .plan import BY, Chosen, Encoding, plan_for
from .upgrade import upgraded

_FIRST_IR_WITH_DEFAULTS = 4
_SHOWN = 4
"""Names that a log entry lists."""


@dataclass(frozen=True)
class EncodedTensor:
    """How one tensor was stored.

    Attributes:
        key: its key in the dense model.
        scheme: the name of its coding, such as `gaps4` or `bitmask+codes8`, or `coo`.
        shape: dims of the dense tensor.
        density: share of entries whose bit pattern is not zero.
        dense_nbytes: file bytes as a dense initializer.
        index_nbytes: bytes that say where the kept entries lie, without names and framing.
        value_nbytes: bytes that say what they are, so too.
        bound_nbytes: what no code can go under for both that knows only how often each occurs (see `bound`).
        nbytes: file bytes as stored, its node counted; the function that all share is not.
    """

    key: str
    scheme: str
    shape: tuple[int, ...]
    density: float
    dense_nbytes: int
    index_nbytes: int
    value_nbytes: int
    bound_nbytes: float
    nbytes: int


@dataclass(frozen=True, eq=False)
class EncodedModel:
    """A model whose sparse tensors decode themselves, how each is stored, and what was changed or left for it."""

    model: Model
    tensors: tuple[EncodedTensor, ...] = ()
    log: tuple[Change | Skip, ...] = ()


def encode_model(
    model: Model, encoding: Encoding = "auto", *, keep_inputs: bool = False, inline: bool = False, live: bool = True
) -> EncodedModel:
    """`model` with its sparse tensors in the form that takes the fewest file bytes; exact, undone by `densify`.

    A sink: it comes last. A tensor that would not get smaller stays dense, and so does the whole model when its file
    would not get smaller. Tensors that are encoded already stay as they are. Models of an opset below 11 are converted
    to it first.

    Args:
        model: a model, dense as a rule.
        encoding: `auto` chooses among all codings and dense; `gaps`, `bitmask` and `rice` leave only that kind of
            index; `coo` is the standard's sparse tensors; `dense` changes nothing.
        keep_inputs: leave initializers that are graph inputs too dense, so that the input stays.
        inline: write the decoders' nodes out where they are needed, for tools that do not know functions. Each tensor
            then takes some 700 bytes more. `coo` and `dense` have none; the log says so.
        live: leave rows or columns that are wholly zero out of what is stored, where that takes fewer bytes.

    Returns:
        The encoded model (the same object when nothing was encoded), its encoded tensors, and the log.

    Raises:
        EncodeError: `encoding` is none of these, or the model holds decoders that this version does not know.
    """
    if encoding not in get_args(Encoding):
        raise EncodeError(f"encoding {encoding!r} is unknown: choose one of {', '.join(get_args(Encoding))}")
    if inline and encoding in ("dense", "coo"):
        found = encode_model(model, encoding, keep_inputs=keep_inputs)
        return replace(found, log=(*found.log, Skip(BY, "inline", f"changes nothing: {encoding} has no decoders")))
    if encoding == "dense":
        return EncodedModel(model)
    plan = plan_for(model, encoding, keep_inputs=keep_inputs, inline=inline, live=live)
    ready, changes = model, list[Change]()
    if plan.chosen and model.opset < FIRST_OPSET:
        ready, reason = upgraded(model)
        if reason:
            return EncodedModel(model, log=(Skip(BY, "the model", f"stays dense: {reason}"), *plan.skips))
        changes = [Change(BY, f"converted from opset {model.opset} to {ready.opset}, the first with sparse storage")]
        plan = plan_for(ready, encoding, keep_inputs=keep_inputs, inline=inline, live=live)
    if not plan.chosen:
        return EncodedModel(model, log=plan.skips)
    encoded, tensors, more = _applied(ready, plan.chosen, keep_inputs=keep_inputs, inline=inline)
    if file_nbytes(encoded) >= file_nbytes(model):
        return EncodedModel(model, log=plan.skips)
    return EncodedModel(encoded, tensors, (*changes, *more, *plan.skips))


def _applied(
    model: Model, chosen: Mapping[str, Chosen], *, keep_inputs: bool, inline: bool
) -> tuple[Model, tuple[EncodedTensor, ...], list[Change]]:
    """`model` with the tensors of `chosen` stored so, how each is stored, and what had to change beside them."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    parts = Parts({name for place in places(skeleton) for name in place.names()})
    tensors: dict[str, EncodedTensor] = {}
    for place in innermost_first(skeleton):
        forms: dict[str, Form] = {}
        for name, tensor in place.tensors():
            key = place.prefix + name
            if key in chosen:
                outside = stubs.store_of(tensor) == stubs.EXTERNAL
                source = model.initializers.source(key)
                forms[name] = _form(place, name, chosen[key], source, parts, outside=outside)
                tensors[key] = _encoded_tensor(key, name, source, chosen[key], model.opset, inline=inline)
        if forms:
            place.replace(forms)
    _add_functions(skeleton, chosen, model.opset)
    changes = _leave_inputs(skeleton, chosen, keep_inputs=keep_inputs, inline=inline)
    encoded = model.with_skeleton(skeleton, parts.sources)
    return calls_inlined(encoded) if inline else encoded, tuple(tensors[key] for key in chosen), changes


def _form(place: Place, name: str, chosen: Chosen, source: TensorSource, parts: Parts, *, outside: bool) -> Form:
    """What to put in the place of the dense tensor `name`."""
    coding = chosen.coding
    if coding is None:
        return Form(tensors=(coo.sparse_tensor(name, source),))
    return parts.form(place, name, coding, coding.encode(source, chosen.counts), outside=outside)


def _encoded_tensor(
    key: str, name: str, source: TensorSource, chosen: Chosen, opset: int, *, inline: bool
) -> EncodedTensor:
    counts, coding = chosen.counts, chosen.coding
    dense = protos.tensor_nbytes(name, counts.shape, counts.dtype)
    nbytes = coo.nbytes(name, counts) if coding is None else stored_nbytes(coding, name, counts, opset, inline=inline)
    values = counts.kept * counts.dtype.itemsize if coding is None else coding.value_nbytes(counts)
    index = 8 * counts.kept if coding is None else coding.index_nbytes(counts)
    return EncodedTensor(
        key=key,
        scheme=coo.NAME if coding is None else coding.name,
        shape=counts.shape,
        density=counts.kept / counts.size,
        dense_nbytes=dense,
        index_nbytes=index,
        value_nbytes=values,
        bound_nbytes=bound_nbytes(source, counts),
        nbytes=nbytes,
    )


def _add_functions(skeleton: onnx.ModelProto, chosen: Mapping[str, Chosen], opset: int) -> None:
    """Add the decoders in use, and their domain to what the model and the functions that call them import."""
    codings = [each.coding for each in chosen.values() if each.coding is not None]
    schemes = {scheme.op_type: scheme for coding in codings for scheme in coding.schemes}
    needed = with_called((scheme.function(opset) for _, scheme in sorted(schemes.items())), opset)
    callers = [place.function or skeleton for place in places(skeleton) if _calls_decoder(place)]
    for holder in (skeleton, *callers) if schemes else ():
        if all(entry.domain != DOMAIN for entry in holder.opset_import):
            holder.opset_import.append(protos.domain_import())
    add_functions(skeleton, needed)


def _calls_decoder(place: Place) -> bool:
    return any(node.domain == DOMAIN for node in place.holder.node)


def _leave_inputs(
    skeleton: onnx.ModelProto, chosen: Mapping[str, Chosen], *, keep_inputs: bool, inline: bool
) -> list[Change]:
    """Raise the IR version to what the stored tensors need, and take those out of the graph inputs.

    Up to IR version 3 every initializer has to be a graph input, and is a constant; from 4 on, one that is an input is
    a default value, and onnxruntime neither folds nor prepacks it. So when that line is crossed all of them go.
    """
    changes: list[Change] = []
    before = skeleton.ir_version
    needed = _FIRST_IR_WITH_DEFAULTS if inline else protos.MIN_IR_VERSION
    if all(each.coding is None for each in chosen.values()):
        needed = coo.MIN_IR_VERSION
    if before < needed:
        skeleton.ir_version = needed
        changes.append(Change(BY, f"raised the IR version from {before} to {needed}, which the stored tensors need"))
    gone = set(chosen)
    if before < _FIRST_IR_WITH_DEFAULTS and not keep_inputs:
        gone |= {tensor.name for tensor in skeleton.graph.initializer}
    names = [value.name for value in skeleton.graph.input if value.name in gone]
    if names:
        kept = [value for value in skeleton.graph.input if value.name not in gone]
        del skeleton.graph.input[:]
        skeleton.graph.input.extend(kept)
        more = ", ..." if len(names) > _SHOWN else ""
        which = ", ".join(names[:_SHOWN]) + more
        changes.append(Change(BY, f"initializers that are no graph inputs any more: {len(names)} ({which})"))
    return changes


def file_nbytes(model: Model) -> int:
    """Bytes that `model` takes on disk, data file included, within a few."""
    total: int = model.skeleton.ByteSize()
    for key, tensor in keys.tensors(model.skeleton):
        if stubs.store_of(tensor) is not None:
            source = model.initializers.source(key)
            total += source.size * source.dtype.itemsize - _stub_nbytes(tensor)
    return total


def _stub_nbytes(tensor: onnx.TensorProto) -> int:
    """Bytes of a stub's entries in the skeleton, which stand there instead of the payload."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return len(stubs.external_bytes(entries))
