"""Which tensors of a model are encoded, and how: those that may be, counted, and the choice among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..arrays import TensorSource, bits_of
from ..model import Model
from ..pipeline import Skip
from ..storage import stubs
from ..weights import find_weights
from . import coo, protos
from .choose import choose
from .coding import Coding
from .counts import Counts, count
from .densify import decoders
from .limits import FIRST_OPSET, basic_support
from .places import Place, places
from .registry import CODINGS, LIVE, SCALED

Encoding = Literal["auto", "dense", "coo", "gaps", "bitmask", "rice", "2of4", "blocks"]
BY = "encode"
"""The name of encoding in logs."""
_WORTH_SAYING = 0.9
"""Density under which a tensor that stays dense is mentioned."""
_NO_WEIGHTS = (np.bool_, np.int32, np.int64)
"""Dtypes of masks, indices and shapes, which nobody expects to be encoded."""


@dataclass(frozen=True)
class Chosen:
    """A tensor that will be stored by `coding`, or, when that is None, as a sparse tensor of the standard."""

    counts: Counts
    coding: Coding | None


@dataclass(frozen=True)
class ModelPlan:
    """Key → how the tensor will be stored, in file order and without those that stay dense; what to say of the
    latter.
    """

    chosen: Mapping[str, Chosen]
    skips: tuple[Skip, ...]


def plan_for(
    model: Model, encoding: Encoding, *, keep_inputs: bool, inline: bool = False, live: bool = True
) -> ModelPlan:
    """The choice for every tensor of `model`, as if its opset were at least 11; see `encode_model`."""
    counts, skips = candidates(model, coo_wanted=encoding == "coo", keep_inputs=keep_inputs)
    chosen: dict[str, Chosen] = {}
    if encoding == "coo":
        for key, found in counts.items():
            if coo.nbytes(key, found) < protos.tensor_nbytes(key, found.shape, found.dtype):
                chosen[key] = Chosen(found, None)
        return ModelPlan(chosen, tuple(skips))
    codings = codings_for(encoding, counts.values() if live else ())
    for choice in choose(counts, max(model.opset, FIRST_OPSET), codings, inline=inline).choices:
        if choice.coding is not None:
            chosen[choice.name] = Chosen(choice.counts, choice.coding)
        elif not choice.nbytes_by_coding and choice.counts.kept < _WORTH_SAYING * choice.counts.size:
            skips.append(_dense(choice.name, next(iter(choice.refused.values()))))
    return ModelPlan(chosen, tuple(skips))


def codings_for(encoding: Encoding, tensors: Iterable[Counts]) -> tuple[Coding, ...]:
    """The codings that `encoding` chooses among for such tensors; none for `coo` and `dense`."""
    live = LIVE if any(counts.live for counts in tensors) else ()
    return tuple(
        coding for coding in (*CODINGS, *SCALED, *live) if encoding == "auto" or coding.index.name.startswith(encoding)
    )


def candidates(model: Model, *, coo_wanted: bool, keep_inputs: bool) -> tuple[dict[str, Counts], list[Skip]]:
    """The counts of every tensor that may be encoded, and a Skip for every other one that is sparse.

    Tensors of 64 entries or fewer are left out: their parts would take more bytes. So are the parts of what is encoded
    already.
    """
    parts = {key for decoder in decoders(model) for key in decoder.inputs}
    fixed = _fixed(model, keep_inputs=keep_inputs)
    axes = {weight.key: weight.uses[0].out_axis or 0 for weight in find_weights(model, embeddings=True)}
    counts: dict[str, Counts] = {}
    skips: list[Skip] = []
    for place in places(model.skeleton):
        for name, _ in place.tensors():
            key = place.prefix + name
            if key in parts or key not in model.initializers:
                continue
            source = model.initializers.source(key)
            if source.size <= stubs.SMALL or source.dtype in _NO_WEIGHTS:
                continue
            reason = fixed.get(key) or basic_support(source.shape, source.dtype, FIRST_OPSET).reason
            reason = reason or (_coo_reason(place, name) if coo_wanted else "")
            if not reason:
                counts[key] = count(source, axes.get(key))
            elif _is_sparse(source):
                skips.append(_dense(key, reason))
    return counts, skips


def _coo_reason(place: Place, name: str) -> str:
    """Why a tensor cannot be a standard sparse one; both were seen with onnxruntime 1.31.

    When it inlines a function, it keeps a reference to the freed name of a sparse Constant, and crashes now and then.
    """
    if name in place.outputs():
        return "it is an output, which onnxruntime would hand out as a sparse tensor"
    return "it lies in a function, where onnxruntime can crash on sparse tensors" if place.function is not None else ""


def _fixed(model: Model, *, keep_inputs: bool) -> dict[str, str]:
    """Initializers of the main graph that have to stay initializers, with the reason."""
    trained = (
        entry.key
        for info in model.skeleton.training_info
        for entry in (*info.initialization_binding, *info.update_binding)
    )
    fixed = dict.fromkeys(trained, "the model's training information sets it")
    if keep_inputs:
        fixed |= {value.name: "it is a graph input too, and those are kept" for value in model.graph.input}
    return fixed


def _dense(key: str, reason: str) -> Skip:
    return Skip(BY, key, f"stays dense: {reason}")


def _is_sparse(source: TensorSource) -> bool:
    kept = sum(int(np.count_nonzero(bits_of(chunk))) for chunk in source.chunks())
    return kept < _WORTH_SAYING * source.size
