"""`encode_model`: every tensor of a model in its smallest self-decoding form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import onnx

from ..arrays import Array
from ..errors import EncodeError
from ..model import Model
from ..pipeline import Change, Skip
from ..storage import stubs
from . import coo, protos
from .choose import Choice, Plan, choose
from .functions import DOMAIN
from .places import Place, constant_node, places, tensor_for
from .registry import SCHEMES
from .scheme import DTYPES, FIRST_OPSET, Counts, Scheme, count
from .upgrade import upgraded

Encoding = Literal["auto", "dense", "coo", "gaps", "bitmask"]
_BY = "encode"
_WORTH_SAYING = 0.9
"""Density under which a tensor that cannot be encoded is mentioned."""


@dataclass(frozen=True)
class EncodedTensor:
    """How one tensor was stored.

    Attributes:
        key: its key in the dense model.
        scheme: `gaps4`, `gaps8`, `bitmask` or `coo`.
        shape: dims of the dense tensor.
        density: share of entries whose bit pattern is not zero.
        dense_nbytes: file bytes as a dense initializer.
        nbytes: file bytes as stored, its node counted; the function that all share is not.
    """

    key: str
    scheme: str
    shape: tuple[int, ...]
    density: float
    dense_nbytes: int
    nbytes: int


@dataclass(frozen=True, eq=False)
class EncodedModel:
    """A model whose sparse tensors decode themselves, how each is stored, and what was changed or left for it."""

    model: Model
    tensors: tuple[EncodedTensor, ...] = ()
    log: tuple[Change | Skip, ...] = ()


def encode_model(model: Model, encoding: Encoding = "auto", *, keep_inputs: bool = False) -> EncodedModel:
    """`model` with its sparse tensors in the form that takes the fewest file bytes; exact, undone by `densify`.

    A sink: it comes last. A tensor that would not get smaller stays dense, and so does the whole model when the
        decoders would cost
    more than they save. Models of an opset below 11 are converted to it first.

    Args:
        model: a dense model.
        encoding: `auto` chooses among gaps of 4 and 8 bits, bitmask and dense; `gaps` and `bitmask` leave only that;
            `coo` is the standard's sparse tensors; `dense` changes nothing.
        keep_inputs: leave initializers that are graph inputs too dense, so that the input stays.

    Returns:
        The encoded model (the same object when nothing was encoded), its encoded tensors, and the log.

    Raises:
        EncodeError: `encoding` is none of these.
    """
    if encoding not in ("auto", "dense", "coo", "gaps", "bitmask"):
        raise EncodeError(f"encoding {encoding!r} is unknown: choose auto, dense, coo, gaps or bitmask")
    if encoding == "dense":
        return EncodedModel(model)
    counts, inputs = _counts(model), {value.name for value in model.graph.input}
    kept = [key for key in counts if key in inputs] if keep_inputs else []
    skips = [Skip(_BY, key, "is a graph input too, which --keep-inputs keeps") for key in kept]
    wanted = {key: found for key, found in counts.items() if key not in kept}
    plan = _plan(wanted, max(model.opset, FIRST_OPSET), encoding)
    if not any(choice.scheme for choice in plan.values()):
        return EncodedModel(model, log=(*skips, *_refused(plan)))
    if model.opset < FIRST_OPSET:
        newer, reason = upgraded(model)
        if reason:
            return EncodedModel(model, log=(*skips, Skip(_BY, "the model", f"stays dense: {reason}")))
        change = Change(_BY, f"converted from opset {model.opset} to {newer.opset}, the first that the decoders run at")
        plan = {key: choice for key, choice in plan.items() if key in newer.initializers}
        return _applied(newer, plan, (change, *skips))
    return _applied(model, plan, tuple(skips))


@dataclass(frozen=True)
class _Stored:
    """How one tensor will be stored: `scheme` is a self-decoding one, or "coo", or None for dense."""

    counts: Counts
    scheme: Scheme | Literal["coo"] | None
    dense_nbytes: int
    nbytes: int
    refused: str = ""


def _counts(model: Model) -> dict[str, Counts]:
    """The counts of every tensor that could be encoded: more than 64 entries of a fitting dtype, in a place that
    allows it.
    """
    found: dict[str, Counts] = {}
    for place in places(model.skeleton):
        for name, _ in place.tensors():
            key = place.prefix + name
            if key in model.initializers:
                source = model.initializers.source(key)
                if source.dtype in DTYPES and source.size > stubs.SMALL:
                    found[key] = count(source)
    return found


def _plan(counts: Mapping[str, Counts], opset: int, encoding: Encoding) -> dict[str, _Stored]:
    if encoding == "coo":
        return {key: _coo(key, found, opset) for key, found in counts.items()}
    schemes = tuple(scheme for scheme in SCHEMES if encoding == "auto" or scheme.name.startswith(encoding))
    plan: Plan = choose(counts, opset, schemes)
    return {choice.name: _stored(choice) for choice in plan.choices}


def _stored(choice: Choice) -> _Stored:
    refused = next(iter(choice.refused.values()), "") if not choice.scheme_nbytes else ""
    return _Stored(choice.counts, choice.scheme, choice.dense_nbytes, choice.nbytes, refused)


def _coo(key: str, found: Counts, opset: int) -> _Stored:
    support = coo.supports(found.shape, found.dtype, opset)
    dense, sparse = protos.tensor_nbytes(key, found.shape, found.dtype), coo.nbytes(key, found)
    if not support or sparse >= dense:
        return _Stored(found, None, dense, dense, support.reason)
    return _Stored(found, "coo", dense, sparse)


def _refused(plan: Mapping[str, _Stored]) -> list[Skip]:
    sparse = {key: s for key, s in plan.items() if s.refused and s.counts.kept < _WORTH_SAYING * s.counts.size}
    return [Skip(_BY, key, f"stays dense: {stored.refused}") for key, stored in sparse.items()]


def _applied(model: Model, plan: Mapping[str, _Stored], log: tuple[Change | Skip, ...]) -> EncodedModel:
    """`model` with every tensor of `plan` that has a scheme stored by it."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    sources: dict[str, Array] = {}
    tensors: list[EncodedTensor] = []
    skips: list[Skip] = []
    for place in list(places(skeleton)):
        names = place.names()
        for name, tensor in list(place.tensors()):
            stored = plan.get(place.prefix + name)
            if stored is None or stored.scheme is None:
                continue
            key, outside = place.prefix + name, stubs.store_of(tensor) == stubs.EXTERNAL
            if stored.scheme == "coo":
                _put_sparse(place, name, coo.sparse_tensor(name, model.initializers.source(key)))
                scheme = coo.NAME
            else:
                parts = protos.input_names(name, stored.scheme)
                if taken := names.intersection(parts):
                    skips.append(Skip(_BY, key, f"stays dense: the name {min(taken)!r} is in use"))
                    continue
                _put_encoded(place, name, stored, model, sources, outside=outside)
                scheme = stored.scheme.name
            density = stored.counts.kept / stored.counts.size
            tensors.append(EncodedTensor(key, scheme, stored.counts.shape, density, stored.dense_nbytes, stored.nbytes))
    changes = _finish(skeleton, plan, {tensor.key for tensor in tensors})
    return EncodedModel(
        model.with_skeleton(skeleton, sources), tuple(tensors), (*log, *changes, *skips, *_refused(plan))
    )


def _put_sparse(place: Place, name: str, sparse: onnx.SparseTensorProto) -> None:
    if isinstance(place.holder, onnx.GraphProto) and any(t.name == name for t in place.holder.initializer):
        place.replace(name, [], [])
        place.holder.sparse_initializer.append(sparse)
        return
    sparse.values.ClearField("name")
    place.replace(name, [onnx.helper.make_node("Constant", [], [name], sparse_value=sparse)], [])


def _put_encoded(
    place: Place, name: str, stored: _Stored, model: Model, sources: dict[str, Array], *, outside: bool
) -> None:
    """Put the parts of one tensor and its decoder node where the tensor was."""
    scheme = stored.scheme
    assert scheme is not None
    assert scheme != "coo"
    encoded = scheme.encode(model.initializers.source(place.prefix + name), stored.counts)
    parts = [
        tensor_for(part, place.prefix + part, array, sources, outside=outside)
        for part, array in zip(protos.input_names(name, scheme), encoded.inputs, strict=True)
    ]
    node = protos.decoder_node(name, scheme)
    if place.has_initializers:
        place.replace(name, [node], parts)
    else:
        place.replace(name, [*map(constant_node, parts), node], [])


def _finish(skeleton: onnx.ModelProto, plan: Mapping[str, _Stored], done: set[str]) -> list[Change]:
    """Functions, imports, the IR version and the graph inputs that an encoded model needs; each that shows is a
    Change.
    """
    changes: list[Change] = []
    schemes = {s.scheme.name: s.scheme for key, s in plan.items() if key in done and s.scheme not in (None, "coo")}  # type: ignore[union-attr]  # neither None nor "coo"
    opset = next(entry.version for entry in skeleton.opset_import if entry.domain in ("", "ai.onnx"))
    functions = [schemes[name].function(opset) for name in sorted(schemes)]  # type: ignore[union-attr]  # as above
    if schemes:
        users = [function for function in skeleton.functions if _calls_decoder(function)]
        for holder in (skeleton, *users):
            if not any(entry.domain == DOMAIN for entry in holder.opset_import):
                holder.opset_import.append(protos.domain_import())
        skeleton.functions.extend(functions)
    if schemes and skeleton.ir_version < protos.MIN_IR_VERSION:
        changes.append(
            Change(
                _BY, f"raised the IR version from {skeleton.ir_version} to {protos.MIN_IR_VERSION}: functions need it"
            )
        )
        skeleton.ir_version = protos.MIN_IR_VERSION
    gone = [value.name for value in skeleton.graph.input if value.name in done]
    if gone:
        kept = [value for value in skeleton.graph.input if value.name not in done]
        del skeleton.graph.input[:]
        skeleton.graph.input.extend(kept)
        changes.append(
            Change(_BY, f"{len(gone)} encoded initializers are no graph inputs any more: {', '.join(gone[:4])}")
        )
    return changes


def _calls_decoder(function: onnx.FunctionProto) -> bool:
    return any(node.domain == DOMAIN for node in function.node) or any(
        node.domain == DOMAIN for place in places(onnx.ModelProto(functions=[function])) for node in place.holder.node
    )
