"""Coupled groups of channels: what can be said of them, and the masks that take some of their channels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .arrays import NDArray
from .fixed import fixed_transform
from .model import Model
from .neurons.aside import count_made, unreached
from .neurons.classes import Ids
from .neurons.coupled import Axis, CoupledGroup, Coupling, coupling
from .neurons.groups import traced
from .neurons.slices import ZeroSlices
from .neurons.strength import scores, slice_powers
from .weights import Weight, find_weights

BoolArray = npt.NDArray[np.bool_]
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class ChannelGroup:
    """What can be said of one coupled group.

    Attributes:
        path: its axes in the order of the graph: "conv1.weight out 64 -> bn1 -> conv2.weight in".
        size: how many channels.
        kinds: what they are: ("head",), or the kinds of the weights that make them (`Weight.kind`).
        norms: the smallest, the quartiles and the largest L2 norm of a channel, over all weights that make or read it;
            of a weight that is not followed, over its own entries.
        pinned_by: what keeps its channels whatever their weights are; None when nothing does.
    """

    path: str
    size: int
    kinds: tuple[str, ...]
    norms: tuple[float, ...]
    pinned_by: str | None


def find_channels(model: Model) -> tuple[ChannelGroup, ...]:
    """The coupled groups of `model`, in the order of the graph, and then weights that are not followed.

    Nothing is changed.

    Raises:
        ModelError: the shapes of the graph cannot be inferred.
    """
    trace = traced(model)
    found = coupling(trace)
    weights = {weight.key: weight for weight in find_weights(model)}
    with np.errstate(all="ignore"):
        strengths = scores(found, found.groups, weights, "l2", "sum")
        norms = [tuple(map(float, np.quantile(one, _QUANTILES))) for one in strengths]
        aside = [_aside(model, weight, why) for weight, why in unreached(model, trace)]
    groups = [
        ChannelGroup(group.path, group.channels.size, group.kinds, one, group.pinned_by)
        for group, one in zip(found.groups, norms, strict=True)
    ]
    return (*groups, *aside)


def _aside(model: Model, weight: Weight, why: str) -> ChannelGroup:
    """The channels of a weight that the walk does not reach, all pinned; none counted where their axis is not known."""
    size, axis = count_made(weight), weight.uses[0].out_axis
    if not size or axis is None:
        return ChannelGroup(weight.key, 0, (weight.kind,), (), why)
    powers = slice_powers(model.initializers.source(weight.key), axis, "l2", weight)
    norms = np.sqrt(powers.reshape(-1, size).sum(axis=0))
    quantiles = tuple(map(float, np.quantile(norms, _QUANTILES)))
    return ChannelGroup(f"{weight.key} out {size}", size, (weight.kind,), quantiles, why)


def why_it_stays(model: Model, key: str, weights: Mapping[str, Weight], only: Collection[str]) -> str | None:
    """Why no channel that the tensor `key` makes or reads may go; None when they may.

    What looks like a fixed transform may when it is named in `only`.
    """
    weight = weights.get(key)
    looks = fixed_transform(model, weight) if weight is not None and key not in only else None
    if weight is not None and looks is not None:
        return f"'{key}' looks like a fixed transform ({looks}) in {weight.uses[0].node!r}"
    source = model.initializers.source(key)
    if source.dtype.kind not in "iub" and not all(np.isfinite(chunk).all() for chunk in source.chunks()):
        return f"'{key}' holds NaN or infinity"
    return None


def keeps_without(
    found: Coupling,
    groups: Sequence[CoupledGroup],
    gone: Sequence[Ids],
    zeros: ZeroSlices,
    fills: Mapping[str, NDArray],
) -> dict[str, BoolArray]:
    """Masks that prune the channels `gone` where weights make and read them; none for tensors that are zero there."""
    along: dict[Axis, BoolArray] = {}
    sources = found.trace.graph.model.initializers
    for group, channels in zip(groups, gone, strict=True):
        for axis in dict.fromkeys((*group.made_by, *group.read_by)) if channels.size else ():
            here = found.where(channels, found.trace.bases[axis])
            along[axis] = along[axis] | here if axis in along else here
    keeps: dict[str, BoolArray] = {}
    for (key, number), here in along.items():
        source = sources.source(key)
        if (here & ~zeros.of(source, fills.get(key))[number]).any():
            keep = keeps.setdefault(key, np.ones(source.shape, np.bool_))
            np.moveaxis(keep, number, 0)[here] = False
    return keeps
