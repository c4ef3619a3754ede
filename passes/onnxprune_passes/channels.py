"""`PruneChannels`: structured magnitude pruning. Whole channels are masked where weights make and read them.

A masked channel is output-dead, whatever its bias, its BatchNorm or the padding behind it, so `RemoveDeadNeurons` takes
it out exactly. Biases and BatchNorm vectors are not masked: they are cut with the shape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from .arrays import NDArray
from .errors import ModelError, SelectionError
from .fixed import fixed_transform
from .masks import apply_masks
from .model import Model
from .neurons.aside import unreached
from .neurons.choose import Counts, Norm, Reduce, chosen_by_group, chosen_globally, scores
from .neurons.classes import Ids
from .neurons.coupled import Axis, CoupledGroup, Coupling, can_be_cut, coupling
from .neurons.groups import traced
from .neurons.slices import ZeroSlices
from .pipeline import Change, Skip, State
from .selection import matches, selected
from .thresholds import checked_sparsity
from .weights import Weight, find_weights

BoolArray = npt.NDArray[np.bool_]
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class ChannelGroup:
    """What can be said of one coupled group.

    Attributes:
        path: its axes in the order of the graph: "conv1.weight out 64 -> bn1 -> conv2.weight in".
        size: how many channels.
        norms: the smallest, the quartiles and the largest L2 norm of a channel, over all weights that make or read it.
        pinned_by: what keeps its channels whatever their weights are; None when nothing does.
    """

    path: str
    size: int
    norms: tuple[float, ...]
    pinned_by: str | None


@dataclass(frozen=True)
class PruneChannels:
    """Mask the weakest channels of each coupled group, in every weight that makes or reads them.

    A channel is taken only when every reader is a weight. One that reaches a graph output, a softmax over channels or
    an op without a rule stays, with a Skip that names the node. Channels that are zero already count as pruned.

    Attributes:
        sparsity: share of the channels to prune, 0 ≤ sparsity < 1.
        scope: "layer": the floor(n x sparsity) weakest of each group of n. "global": so many of all channels, each
            compared with the mean of its group.
        norm: of a channel's weights: "l1" or "l2".
        reduce: over the weights that make or read it: "sum" takes all entries together, "mean" each weight's mean.
        round_to: what stays of a group of more than this is a multiple of it.
        floor: so many channels of a group stay in any case; at least one does.
        only, skip: globs over the keys of the weights: which may lose channels that they make; those that `skip` names
            lose none at all.

    Raises (when made or called):
        SelectionError: a value out of range, or a glob that matches nothing.
    """

    sparsity: float
    scope: Literal["global", "layer"] = "global"
    norm: Norm = "l2"
    reduce: Reduce = "sum"
    round_to: int = 8
    floor: int = 1
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    name: str = "prune-channels"

    def __post_init__(self) -> None:
        checked_sparsity(self.sparsity)
        choices = (
            ("scope", self.scope, "global layer"),
            ("norm", self.norm, "l1 l2"),
            ("reduce", self.reduce, "sum mean"),
        )
        for what, value, known in choices:
            if value not in known.split():
                raise SelectionError(f"{what} is {value!r}: choose one of {', '.join(known.split())}")
        for what, number in (("round_to", self.round_to), ("floor", self.floor)):
            if number < 1:
                raise SelectionError(f"{what} is {number}: give a whole number of at least 1")

    def __call__(self, state: State) -> State:
        """`state` with smaller masks; the same object when enough channels are zero already."""
        zeros = ZeroSlices()
        try:
            found = coupling(traced(state.model, zeros))
        except ModelError as error:
            return state.noted(Skip(self.name, "the graph", f"{error}: no channel was pruned"))
        weights = {weight.key: weight for weight in find_weights(state.model)}
        groups, skips = self._open(state.model, found, weights)
        strengths = scores(found, groups, weights, self.norm, self.reduce)
        rule = Counts(self.round_to, self.floor)
        places = (chosen_by_group if self.scope == "layer" else chosen_globally)(strengths, self.sparsity, rule)
        wanted = [group.channels[np.sort(place)] for group, place in zip(groups, places, strict=True)]
        chosen = can_be_cut(found, np.concatenate([np.zeros(0, np.int64), *wanted]))
        gone = [channels[np.isin(channels, chosen)] for channels in wanted]
        fills = {key: weight.zero_point for key, weight in weights.items() if weight.zero_point is not None}
        keeps = _keeps(found, groups, gone, zeros, fills)
        if not keeps:
            return state.noted(*skips)
        masks = state.masks.shrunk(keeps)
        model = apply_masks(state.model, masks, fills)
        return replace(state, model=model, masks=masks).noted(self._change(groups, gone, found), *skips)

    def _open(
        self, model: Model, found: Coupling, weights: Mapping[str, Weight]
    ) -> tuple[list[CoupledGroup], list[Skip]]:
        """The groups that may lose channels, and a Skip for each reason that keeps others."""
        chosen = set(selected(weights, self.only, self.skip))
        stays: dict[str, str | None] = {}
        groups: list[CoupledGroup] = []
        skips = [
            (weight.key, weight.shape[weight.uses[0].out_axis or 0], why)
            for weight, why in unreached(model, found.trace)
            if weight.key in chosen
        ]
        for group in found.groups:
            keys = dict.fromkeys(key for key, _ in (*group.made_by, *group.read_by))
            for key in keys:
                if key not in stays:
                    stays[key] = self._why_it_stays(model, key, weights)
            makers = {key for key, _ in group.made_by}
            if makers & set(weights) - chosen or any(matches(key, glob) for key in keys for glob in self.skip):
                continue
            why = group.pinned_by or next((reason for key in keys if (reason := stays[key])), None)
            if why is None:
                groups.append(group)
            else:
                skips.append((group.made_by[0][0], group.channels.size, why))
        counts: Counter[tuple[str, str]] = Counter()
        for key, size, why in skips:
            counts[key, why] += size
        return groups, [
            Skip(self.name, key, f"{count} channel{'s stay' if count > 1 else ' stays'}: {why}")
            for (key, why), count in counts.items()
        ]

    def _why_it_stays(self, model: Model, key: str, weights: Mapping[str, Weight]) -> str | None:
        """Why no channel that the weight `key` makes or reads may go; None when they may."""
        weight = weights.get(key)
        looks = fixed_transform(model, weight) if weight is not None and key not in self.only else None
        if weight is not None and looks is not None:
            return f"'{key}' looks like a fixed transform ({looks}) in {weight.uses[0].node!r}"
        source = model.initializers.source(key)
        if source.dtype.kind not in "iub" and not all(np.isfinite(chunk).all() for chunk in source.chunks()):
            return f"'{key}' holds NaN or infinity"
        return None

    def _change(self, groups: Sequence[CoupledGroup], gone: Sequence[Ids], found: Coupling) -> Change:
        sizes = [
            f"{group.made_by[0][0]} {group.channels.size} -> {group.channels.size - channels.size}"
            for group, channels in zip(groups, gone, strict=True)
            if channels.size
        ]
        total = sum(group.channels.size for group in found.groups)
        pinned = total - sum(group.channels.size for group in groups)
        count = sum(channels.size for channels in gone)
        return Change(
            self.name,
            f"{self.scope} sparsity {self.sparsity:g} by {self.norm} {self.reduce}: masked {count:,} of {total:,} "
            f"channels, {pinned:,} pinned or left out: {', '.join(sizes)}",
        )


def find_channels(model: Model) -> tuple[ChannelGroup, ...]:
    """The coupled groups of `model`, in the order of the graph; nothing is changed.

    Raises:
        ModelError: the shapes of the graph cannot be inferred.
    """
    found = coupling(traced(model))
    weights = {weight.key: weight for weight in find_weights(model)}
    with np.errstate(all="ignore"):
        strengths = scores(found, found.groups, weights, "l2", "sum")
        norms = [tuple(map(float, np.quantile(one, _QUANTILES))) for one in strengths]
    return tuple(
        ChannelGroup(group.path, group.channels.size, one, group.pinned_by)
        for group, one in zip(found.groups, norms, strict=True)
    )


def _keeps(
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
