"""Coupled groups: channels that lie along the same axes of the same tensors, so that each may go in place of another.

A channel is one class of united ids, as `units` makes them: a filter, a neuron, a hidden unit, an attention head. A
group may lose channels when nothing pins it: whatever reads it is then a weight, which can be given zeros there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..roles import roles_of
from .classes import Ids
from .decide import slabs
from .graph import Node
from .groups import producers
from .slices import BoolArray
from .trace import Trace
from .units import units_of

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
        kinds: ("head",), or the kinds of the weights that make them, as `Weight.kind` has them, sorted.
        pinned_by: what keeps them where they are; None when nothing does.
    """

    channels: Ids
    axes: dict[Axis, int]
    made_by: tuple[Axis, ...]
    read_by: tuple[Axis, ...]
    path: str
    kinds: tuple[str, ...]
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
    units = units_of(trace)
    label = units.label
    lies: dict[int, list[tuple[Axis, int]]] = {}
    for axis, ids in trace.bases.items():
        found, counts = np.unique(label[ids[ids >= 0]], return_counts=True)
        for one, count in zip(found.tolist(), counts.tolist(), strict=True):
            lies.setdefault(one, []).append((axis, count))
    members: dict[tuple[object, ...], list[int]] = {}
    for producer in producers(trace):
        for one in dict.fromkeys(label[producer.ids[producer.ids >= 0]].tolist()):
            where = members.setdefault((*lies.pop(one), int(units.pinned[one])), []) if one in lies else None
            if where is not None:
                where.append(one)
    made = [(one.key, one.axis) for one in producers(trace)]
    kinds = _kinds(trace)
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
                kinds=("head",) if units.heads[channels[0]] else _sorted(kinds[axis] for axis in axes if axis in kinds),
                pinned_by=units.reasons[why] if isinstance(why, int) and why >= 0 else None,
            )
        )
    return Coupling(trace, label, tuple(groups))


def can_be_cut(found: Coupling, chosen: Ids) -> tuple[Ids, dict[int, str]]:
    """`chosen` without channels that would empty an axis or leave it ragged, and why each of the others stays."""
    named: dict[int, tuple[str, Ids]] = {}
    for name, ids in _named(found.trace):
        if ids.size and (ids >= 0).any():
            named.setdefault(id(ids), (name, ids))
    stays: dict[int, str] = {}
    while True:
        gone = np.isin(np.arange(found.label.size), chosen)[found.label]
        before = len(stays)
        for name, ids in named.values():
            hit = np.where(ids >= 0, gone[ids], False)
            if hit.all():
                back, why = ids[:1].reshape(-1)[:1], "it would lose all that it has"
            else:
                back, why = ids[hit & ~slabs(hit)], "only whole slices can be cut"
            for one in np.unique(found.label[back]).tolist():
                stays.setdefault(one, f"blocked by {name}: {why}")
        if len(stays) == before:
            return chosen, stays
        chosen = chosen[~np.isin(chosen, list(stays))]


def _named(trace: Trace) -> list[tuple[str, Ids]]:
    """Arrays of ids with what carries them."""
    makers = {name: node for node in trace.graph.nodes for name in node.proto.output}
    flows = [(str(makers[name]) if name in makers else f"'{name}'", flow.ids) for name, flow in trace.flows.items()]
    return [*flows, *((f"axis {axis} of '{key}'", ids) for (key, axis), ids in trace.bases.items())]


def _kinds(trace: Trace) -> dict[Axis, set[str]]:
    """What kinds of weight make neurons along each axis."""
    found: dict[Axis, set[str]] = {}
    for one in trace.producers:
        found.setdefault((one.key, one.axis), set()).add(_kind(one.node))
    return found


def _kind(node: Node) -> str:
    return next((role.kind for role in roles_of(node.proto).values()), "fc")


def _sorted(kinds: Iterable[set[str]]) -> tuple[str, ...]:
    return tuple(sorted(set().union(*kinds)))


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
