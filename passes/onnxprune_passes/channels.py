"""`PruneChannels`: structured magnitude pruning. Whole channels are masked where weights make and read them.

A masked channel is output-dead, whatever its bias, its BatchNorm or the padding behind it, so `RemoveDeadNeurons` takes
it out exactly. Biases and BatchNorm vectors are not masked: they are cut with the shape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from .channel_groups import keeps_without, why_it_stays
from .channel_reads import find_columns, keeps_without_columns
from .errors import ModelError, SelectionError
from .masks import apply_masks
from .model import Model
from .neurons.aside import count_made, unreached
from .neurons.choose import Counts, counts_for, weakest_of_each
from .neurons.classes import Ids
from .neurons.coupled import CoupledGroup, Coupling, can_be_cut, coupling
from .neurons.groups import traced
from .neurons.slices import ZeroSlices
from .neurons.strength import Floats, Norm, Reduce, scale_scores, scores
from .pipeline import Change, Skip, State
from .selection import matches, require_matches, selected
from .thresholds import checked_sparsity
from .weights import Weight, find_weights

BoolArray = npt.NDArray[np.bool_]
Kind = Literal["conv", "fc", "rnn", "embedding", "head"]
KINDS: tuple[Kind, ...] = ("conv", "fc", "rnn", "embedding", "head")
"""What a channel can be: what a weight of that kind makes, or a head of attention."""


@dataclass(frozen=True)
class PruneChannels:
    """Mask the weakest channels of each coupled group, in every weight that makes or reads them.

    A channel is taken only when every reader is a weight. One that reaches a graph output, a softmax over channels or
    an op without a rule stays, with a Skip that names the node. Channels that are zero already count as pruned.

    Attributes:
        sparsity: share of the channels to prune, 0 ≤ sparsity < 1.
        scope: "layer": the floor(n x sparsity) weakest of each group of n. "global": so many of all channels, each
            compared with the mean of its group.
        score: "norm" of a channel's weights, or "batchnorm": |scale| of the BatchNormalizations that it passes (Liu et
            al. 2017, network slimming). Groups that pass none are scored by the norm then.
        norm: "l1" or "l2".
        reduce: over the weights that make or read it: "sum" takes all entries together, "mean" each weight's mean.
        round_to: what stays of a group of more than this is a multiple of it. Of heads it is their rows that count.
        floor: so many channels of a group stay in any case; at least one does.
        kinds: only channels of these kinds: "conv", "fc", "rnn" and "embedding" are what weights of that kind make,
            "head" is a whole head of attention. A group made by several kinds needs all of them. All when empty.
        layers: (glob, sparsity) pairs: a group made by a weight that matches gets that sparsity for itself, whatever
            the scope; the last match wins.
        only, skip: globs over the keys of the weights: which may lose channels that they make; those that `skip` names
            lose none at all.
        reads: what becomes of channels that stay where they are made: what reads them is masked for the weakest of
            them, and `GatherLiveInputs` takes the others (see `channel_reads`). "auto": where no group may lose
            channels whole; "always"; "never". `only`, `skip` and `layers` then name the weights that read.

    Raises (when made or called):
        SelectionError: a value out of range, or a glob or a choice of kinds that matches nothing.
    """

    sparsity: float
    scope: Literal["global", "layer"] = "global"
    score: Literal["norm", "batchnorm"] = "norm"
    norm: Norm = "l2"
    reduce: Reduce = "sum"
    round_to: int = 8
    floor: int = 1
    kinds: tuple[Kind, ...] = ()
    layers: tuple[tuple[str, float], ...] = ()
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    reads: Literal["auto", "always", "never"] = "auto"
    name: str = "prune-channels"

    def __post_init__(self) -> None:
        for sparsity in (self.sparsity, *(value for _, value in self.layers)):
            checked_sparsity(sparsity)
        choices = (
            *(("kind", kind, " ".join(KINDS)) for kind in self.kinds),
            ("scope", self.scope, "global layer"),
            ("score", self.score, "norm batchnorm"),
            ("norm", self.norm, "l1 l2"),
            ("reduce", self.reduce, "sum mean"),
            ("reads", self.reads, "auto always never"),
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
        weights = {weight.key: weight for weight in find_weights(state.model, embeddings=True)}
        groups, left = self._open(state.model, found, weights)
        strengths, scaled = self._strengths(found, groups, weights)
        wanted = self._weakest(groups, strengths)
        chosen, stays = can_be_cut(found, np.concatenate([np.zeros(0, np.int64), *wanted]))
        kept = [
            (group.made_by[0][0], 1, stays[one])
            for group, channels in zip(groups, wanted, strict=True)
            for one in channels.tolist()
            if one in stays
        ]
        skips = [*self._skips(left), *self._skips(kept)]
        gone = [channels[np.isin(channels, chosen)] for channels in wanted]
        fills = {key: weight.zero_point for key, weight in weights.items() if weight.zero_point is not None}
        keeps = keeps_without(found, groups, gone, zeros, fills)
        notes: list[Change | Skip] = [self._change(groups, gone, found, scaled)] if keeps else []
        if self.reads == "always" or (self.reads == "auto" and not groups):
            more, said = self._unread(found, weights, zeros)
            keeps |= {key: keep & keeps[key] if key in keeps else keep for key, keep in more.items()}
            notes += said
        if not keeps:
            return state.noted(*notes, *skips)
        masks = state.masks.shrunk(keeps)
        model = apply_masks(state.model, masks, fills)
        return replace(state, model=model, masks=masks).noted(*notes, *skips)

    def _open(
        self, model: Model, found: Coupling, weights: Mapping[str, Weight]
    ) -> tuple[list[CoupledGroup], list[tuple[str, int, str]]]:
        """The groups that may lose channels; of others the key of a weight, how many channels it makes, and why not."""
        chosen = set(selected(weights, self.only, self.skip))
        require_matches(tuple(weights), [glob for glob, _ in self.layers])
        self._require_kinds(found)
        stays: dict[str, str | None] = {}
        groups: list[CoupledGroup] = []
        left = [
            (weight.key, count_made(weight), why)
            for weight, why in unreached(model, found.trace)
            if weight.key in chosen
        ]
        for group in found.groups:
            keys = dict.fromkeys(key for key, _ in (*group.made_by, *group.read_by))
            for key in keys:
                if key not in stays:
                    stays[key] = why_it_stays(model, key, weights, self.only)
            makers = {key for key, _ in group.made_by}
            if self.kinds and set(group.kinds) - set(self.kinds):
                continue
            if makers & set(weights) - chosen or any(matches(key, glob) for key in keys for glob in self.skip):
                continue
            why = group.pinned_by or next((reason for key in keys if (reason := stays[key])), None)
            if why is None:
                groups.append(group)
            else:
                left.append((group.made_by[0][0], group.channels.size, why))
        return groups, left

    def _unread(
        self, found: Coupling, weights: Mapping[str, Weight], zeros: ZeroSlices
    ) -> tuple[dict[str, BoolArray], list[Change | Skip]]:
        """Masks of weights that leave channels which stay unread; and what is said of it."""
        model = found.trace.graph.model
        chosen = selected(weights, self.only, self.skip)
        staying = [
            group
            for group in found.groups
            if group.pinned_by is not None
            and not (self.kinds and set(group.kinds) - set(self.kinds))
            and not any(why_it_stays(model, key, weights, self.only) for key, _ in group.made_by)
        ]
        every = find_columns(
            found, staying, {key for key in chosen if not why_it_stays(model, key, weights, self.only)}
        )
        strengths = [one.strengths(model, self.norm, self.reduce) for one in every]
        counts = [Counts(self.round_to, self.floor)] * len(every)
        ranked = weakest_of_each(strengths, [self._own(one.axes) for one in every], counts, self.sparsity)
        pairs = [(one, one.places[np.sort(which)]) for one, which in zip(every, ranked, strict=True) if which.size]
        going = [(one, places) for one, places in pairs if one.can_do_without(model, places.size)]
        keeps = keeps_without_columns(model, going, zeros)
        notes: list[Change | Skip] = [
            Skip(self.name, next(iter(one.axes)), f"{one.read(0)}: a copy without {places.size} would not pay")
            for one, places in pairs
            if not one.can_do_without(model, places.size)
        ]
        if keeps:
            how = f"{self.scope} sparsity {self.sparsity:g} by {self.norm} {self.reduce}"
            said = "; ".join(f"{', '.join(one.axes)} {one.read(places.size)}" for one, places in going)
            notes.insert(0, Change(self.name, f"{how}, of channels that stay where they are made: {said}"))
        return keeps, notes

    def _skips(self, left: Sequence[tuple[str, int, str]]) -> list[Skip]:
        """One Skip for each weight and reason."""
        counts: Counter[tuple[str, str]] = Counter()
        for key, size, why in left:
            counts[key, why] += size
        return [
            Skip(
                self.name,
                key,
                f"{f'{count} channel' if count else 'its channel'}{' stays' if count == 1 else 's stay'}: {why}",
            )
            for (key, why), count in counts.items()
        ]

    def _require_kinds(self, found: Coupling) -> None:
        """Raise SelectionError when no group is of the kinds that are asked for."""
        there = {group.kinds for group in found.groups}
        if self.kinds and there and not any(set(kinds) <= set(self.kinds) for kinds in there):
            said = ", ".join(sorted("+".join(kinds) for kinds in there))
            raise SelectionError(
                f"no group of channels is of kind {' or '.join(self.kinds)}: the model has {said}; "
                "see them with `onnxprune inspect --groups`"
            )

    def _strengths(
        self, found: Coupling, groups: Sequence[CoupledGroup], weights: Mapping[str, Weight]
    ) -> tuple[list[Floats], int]:
        """One number a channel for each group, and how many groups were scored by their BatchNormalizations."""
        norms = scores(found, groups, weights, self.norm, self.reduce)
        if self.score == "norm":
            return norms, 0
        scales = scale_scores(found, groups)
        both = zip(scales, norms, strict=True)
        return [norm if scale is None else scale for scale, norm in both], sum(scale is not None for scale in scales)

    def _weakest(self, groups: Sequence[CoupledGroup], strengths: Sequence[Floats]) -> list[Ids]:
        """For each group the channels that should go."""
        counts = [counts_for(group, self.round_to, self.floor) for group in groups]
        own = [self._own([key for key, _ in group.made_by]) for group in groups]
        places = weakest_of_each(strengths, own, counts, self.sparsity)
        return [group.channels[np.sort(places[at])] for at, group in enumerate(groups)]

    def _own(self, keys: Collection[str]) -> float | None:
        """The sparsity of what these weights make or read by itself; None where it is ranked with all others."""
        fitting = [value for glob, value in self.layers if any(matches(key, glob) for key in keys)]
        return fitting[-1] if fitting else self.sparsity if self.scope == "layer" else None

    def _change(self, groups: Sequence[CoupledGroup], gone: Sequence[Ids], found: Coupling, scaled: int) -> Change:
        sizes = [
            f"{group.made_by[0][0]} {group.channels.size} -> {group.channels.size - channels.size}"
            for group, channels in zip(groups, gone, strict=True)
            if channels.size
        ]
        total = sum(group.channels.size for group in found.groups)
        pinned = total - sum(group.channels.size for group in groups)
        count = sum(channels.size for channels in gone)
        by = f"{self.norm} {self.reduce}"
        if self.score == "batchnorm":
            by = f"BatchNormalization scale in {scaled} of {len(groups)} groups" + (
                "" if scaled == len(groups) else f", by {by} in the others, which pass none"
            )
        return Change(
            self.name,
            f"{self.scope} sparsity {self.sparsity:g} by {by}: masked {count:,} of {total:,} "
            f"channels, {pinned:,} pinned or left out: {', '.join(sizes)}",
        )
