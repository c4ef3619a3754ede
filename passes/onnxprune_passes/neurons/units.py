"""What one channel is: ids that can only go together, and what keeps them.

Beyond the ids that the graph itself unites:

- A head of attention is one channel: its queries, keys, values and scores (Michel, Levy, Neubig 2019, "Are Sixteen
  Heads Really Better than One?"). Where something pins it, its parts stay channels of their own.
- Where channels split into several axes (a Reshape, a channel shuffle) only whole slices can be cut, and a channel is a
  slice of the longest such axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .classes import Ids, classes
from .records import Pin, Tie
from .slices import BoolArray
from .sums import varying
from .trace import Trace


@dataclass(frozen=True, eq=False)
class Units:
    """The channels of a trace. All arrays have one entry an id.

    Attributes:
        label: the class of an id; that id is the name of the class.
        heads: of a class, whether it is a head of attention.
        pinned: of a class, the index in `reasons` of the first thing that pins it, -1 when nothing does.
    """

    label: Ids
    heads: BoolArray
    pinned: Ids
    reasons: tuple[str, ...]


def units_of(trace: Trace) -> Units:
    """The channels of a finished trace."""
    ties, pins = trace.ties, [*trace.pins, *varying(trace)]
    while True:
        label = _united(trace, ties)
        pinned, reasons = _pinned(trace, pins, label)
        free = [tie for tie in ties if not (pinned[label[_members(tie)]] >= 0).any()]
        if len(free) == len(ties):
            break
        ties = free
    heads = np.zeros(trace.count, np.bool_)
    for tie in ties:
        heads[label[_members(tie)]] = True
    return Units(label, heads, pinned, tuple(reasons))


def id_arrays(trace: Trace) -> list[Ids]:
    """Every array of ids, of values and of tensors, that holds one."""
    every = trace.arrays()
    return list({id(ids): ids for ids in every if ids.size and (ids >= 0).any()}.values())


def _members(tie: Tie) -> Ids:
    """The ids that a tie is about."""
    every = np.concatenate([tie.rows.reshape(-1), tie.heads.reshape(-1)])
    return every[every >= 0]


def _united(trace: Trace, ties: list[Tie]) -> Ids:
    """The class of each id after what can only be cut together was united too."""
    pairs = list(trace.pairs)
    for tie in ties:
        heads = np.broadcast_to(tie.heads[:, None], tie.rows.shape)
        both = (tie.rows >= 0) & (heads >= 0)
        pairs.append((tie.rows[both], heads[both]))
    label = classes(trace.count, pairs)
    arrays = [ids for ids in id_arrays(trace) if sum(size > 1 for size in ids.shape) > 1]
    whole = False
    while not whole:
        whole = True
        for ids in arrays:
            more = _slices(label, ids)
            if more is not None:
                pairs.append(more)
                label, whole = classes(trace.count, pairs), False
    return label


def _slices(label: Ids, ids: Ids) -> tuple[Ids, Ids] | None:
    """What to unite so that each slice of the longest axis is one class; None when some axis is like that."""
    found = np.where(ids >= 0, label[ids], -1)
    wide = sorted((axis for axis in range(ids.ndim) if ids.shape[axis] > 1), key=lambda axis: -ids.shape[axis])
    for axis in wide:
        first = _first(found, axis)
        if np.array_equal(np.broadcast_to(first, found.shape), found):
            return None
    first = np.broadcast_to(_first(ids, wide[0]), ids.shape)
    both = (ids >= 0) & (first >= 0)
    apart = both & (label[ids] != label[first])
    return (ids[apart], first[apart]) if apart.any() else None


def _first(array: Ids, axis: int) -> Ids:
    """The first entry of each slice of `axis`, laid along it."""
    return array[tuple(slice(None) if one == axis else slice(0, 1) for one in range(array.ndim))]


def _pinned(trace: Trace, pins: list[Pin], label: Ids) -> tuple[Ids, list[str]]:
    """For each class the index of the first reason that pins it (-1: none), and the reasons."""
    pinned = np.full(trace.count, -1, np.int64)
    reasons: list[str] = []
    for pin in pins:
        stays = label[pin.ids]
        if pin.unless is not None:
            stays = stays[(pin.unless < 0) | (stays != label[pin.unless])]
        new = stays[pinned[stays] < 0]
        if new.size:
            pinned[new] = len(reasons)
            reasons.append(pin.reason)
    return pinned, reasons
