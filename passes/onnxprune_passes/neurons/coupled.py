"""Coupled groups: channels that lie along the same axes of the same tensors, so that each may go in place of another.

A channel is one class of united ids. Where channels split into several axes (a Reshape to heads, a channel shuffle)
only whole slices can be cut, and a channel is a slice of the longest such axis. A group may lose channels when nothing
pins it: whatever reads it is then a weight, which can be given zeros there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .classes import Ids, classes
from .decide import slabs
from .groups import producers
from .slices import BoolArray
from .trace import Trace

Axis = tuple[str, int]
"""The key of a tensor, and one of its axes."""


@dataclass(frozen=True, eq=False)
class CoupledGroup:
    """Channels that go together along the same axes.

    Attributes:
        channels: the class of each: int64 [n], in the order of their places along the first axis.
        axes: every axis of a tensor that is cut with them → how many coordinates a channel has there.
        made_by, read_by: those of `axes` along which a weight makes or reads them.
        path: the same to read: "conv1.weight out 64 -> bn1 -> conv2.weight in".
        pinned_by: what keeps them where they are; None when nothing does.
    """

    channels: Ids
    axes: dict[Axis, int]
    made_by: tuple[Axis, ...]
    read_by: tuple[Axis, ...]
    path: str
    pinned_by: str | None


@dataclass(frozen=True, eq=False)
class Coupling:
    """The channels of a finished trace; `label` gives the class of an id, which is the channel's name."""

    trace: Trace
    label: Ids
    groups: tuple[CoupledGroup, ...]

    def where(self, chosen: Ids, ids: Ids) -> BoolArray:
        """Where `ids` belong to one of the channels `chosen`."""
        return np.asarray((ids >= 0) & np.isin(self.label[ids], chosen))


def coupling(trace: Trace) -> Coupling:
    """The groups of `trace`, in the order of the first weight that makes some of their channels."""
    label = _units(trace)
    pinned, reasons = _pinned(trace, label)
    lies: dict[int, list[tuple[Axis, int]]] = {}
    for axis, ids in trace.bases.items():
        found, counts = np.unique(label[ids[ids >= 0]], return_counts=True)
        for one, count in zip(found.tolist(), counts.tolist(), strict=True):
            lies.setdefault(one, []).append((axis, count))
    members: dict[tuple[object, ...], list[int]] = {}
    for producer in producers(trace):
        for one in dict.fromkeys(label[producer.ids[producer.ids >= 0]].tolist()):
            where = members.setdefault((*lies.pop(one), int(pinned[one])), []) if one in lies else None
            if where is not None:
                where.append(one)
    made = [(one.key, one.axis) for one in producers(trace)]
    read = [_read_axis(trace, site.node.input(site.index), site.in_axis) for site in trace.sites]
    groups = []
    for (*pairs, why), channels in members.items():
        axes: dict[Axis, int] = dict(pairs)  # type: ignore[arg-type]
        groups.append(
            CoupledGroup(
                channels=np.array(channels, np.int64),
                axes=axes,
                made_by=tuple(axis for axis in dict.fromkeys(made) if axis in axes),
                read_by=tuple(axis for axis in dict.fromkeys(read) if axis in axes),
                path=_path(trace, axes, set(made), set(read), len(channels)),
                pinned_by=reasons[why] if isinstance(why, int) and why >= 0 else None,
            )
        )
    return Coupling(trace, label, tuple(groups))


def can_be_cut(found: Coupling, chosen: Ids) -> Ids:
    """`chosen` without channels that would empty an axis or leave it ragged."""
    while True:
        gone = np.isin(np.arange(found.label.size), chosen)[found.label]
        back: list[Ids] = []
        for ids in _arrays(found.trace):
            hit = np.where(ids >= 0, gone[ids], False)
            stuck = (
                ids[:1].reshape(-1)[:1] if hit.all() else ids[hit & ~slabs(hit)] if hit.any() else ids.reshape(-1)[:0]
            )
            if stuck.size:
                back.append(found.label[stuck])
        if not back:
            return chosen
        chosen = chosen[~np.isin(chosen, np.concatenate(back))]


def _units(trace: Trace) -> Ids:
    """The class of each id after what can only be cut together was united too."""
    pairs: list[tuple[Ids, Ids]] = list(trace.pairs)
    label = classes(trace.count, pairs)
    arrays = [ids for ids in _arrays(trace) if sum(size > 1 for size in ids.shape) > 1]
    while True:
        more = [pair for ids in arrays for pair in _slices(label, ids)]
        if not more:
            return label
        pairs += more
        label = classes(trace.count, pairs)


def _slices(label: Ids, ids: Ids) -> list[tuple[Ids, Ids]]:
    """What to unite so that each slice of the longest axis is one class; nothing when some axis is like that."""
    found = np.where(ids >= 0, label[ids], -1)
    wide = sorted((axis for axis in range(ids.ndim) if ids.shape[axis] > 1), key=lambda axis: -ids.shape[axis])
    for axis in wide:
        first = _first(found, axis)
        if np.array_equal(np.broadcast_to(first, found.shape), found):
            return []
    first = np.broadcast_to(_first(ids, wide[0]), ids.shape)
    both = (ids >= 0) & (first >= 0)
    apart = both & (label[ids] != label[first])
    return [(ids[apart], first[apart])] if apart.any() else []


def _first(array: Ids, axis: int) -> Ids:
    """The first entry of each slice of `axis`, laid along it."""
    return array[tuple(slice(None) if one == axis else slice(0, 1) for one in range(array.ndim))]


def _arrays(trace: Trace) -> list[Ids]:
    every = [flow.ids for flow in trace.flows.values()] + list(trace.bases.values())
    return list({id(ids): ids for ids in every if ids.size and (ids >= 0).any()}.values())


def _pinned(trace: Trace, label: Ids) -> tuple[Ids, list[str]]:
    """For each class the index of the first reason that pins it (-1: none), and the reasons."""
    pinned = np.full(trace.count, -1, np.int64)
    reasons: list[str] = []
    for pin in trace.pins:
        new = label[pin.ids][pinned[label[pin.ids]] < 0]
        if new.size:
            pinned[new] = len(reasons)
            reasons.append(pin.reason)
    return pinned, reasons


def _read_axis(trace: Trace, name: str, axis: int) -> Axis:
    const = trace.graph.constants[name]
    return const.key, const.axes[axis]


def _path(trace: Trace, axes: Iterable[Axis], made: set[Axis], read: set[Axis], size: int) -> str:
    """The axes as one reads a network: weights by key, everything else by the node, in the order of the graph."""
    steps: dict[str, int] = {}
    weighted = {key for key, _ in (*made, *read)}
    showing = _showing(trace)
    for key, axis in axes:
        readers = [node for name in showing.get(key, ()) for node, _ in trace.graph.readers.get(name, ())]
        at = min((node.index for node in readers), default=0)
        if (key, axis) in made:
            steps[f"{key} out {size}"] = at
        elif (key, axis) in read:
            steps[f"{key} in"] = at
        else:
            steps.update({node.name: node.index for node in readers if not weighted & _keys(trace, node.proto.input)})
    return " -> ".join(sorted(steps, key=lambda step: steps[step]))


def _showing(trace: Trace) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, const in trace.graph.constants.items():
        found.setdefault(const.key, []).append(name)
    return found


def _keys(trace: Trace, names: Sequence[str]) -> set[str]:
    return {const.key for name in names if (const := trace.constant(name)) is not None}
