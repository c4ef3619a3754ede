"""Which neurons may go, which constants fold where, and what is in the way of the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .classes import Ids, classes
from .records import Pin, Site, Sum, Tie
from .slices import BoolArray
from .trace import Trace

KEPT_LAST = "an axis keeps at least one neuron, and loses whole slices only"


@dataclass(frozen=True, eq=False)
class Decision:
    """What a trace comes to; `label` gives the class of an id, all other arrays have one entry a class.

    Attributes:
        removed: it goes.
        unread: weights may read it and none does, or nothing is there to read it.
        blocked: the index in `reasons` of what is in the way, -1 where nothing is.
    """

    label: Ids
    removed: BoolArray
    unread: BoolArray
    blocked: Ids
    reasons: tuple[str, ...]

    def gone(self, ids: Ids) -> BoolArray:
        """Where `ids` go; never where there is none (-1)."""
        return self._of(self.removed, ids)

    def output_dead(self, ids: Ids) -> BoolArray:
        """Where `ids` are neurons that weights may read and none does."""
        return self._of(self.unread, ids)

    def reasons_of(self, ids: Ids) -> list[str | None]:
        """What is in the way of each of `ids` (all ≥ 0, flat); None where nothing is."""
        return [self.reasons[index] if index >= 0 else None for index in self.blocked[self.label[ids]].tolist()]

    def _of(self, by_class: BoolArray, ids: Ids) -> BoolArray:
        found = np.zeros(ids.shape, np.bool_)
        found[ids >= 0] = by_class[self.label[ids[ids >= 0]]]
        return found


def decide(trace: Trace) -> Decision:
    """Draw the conclusion of a finished trace."""
    label = classes(trace.count, trace.pairs)
    reasons: list[str] = []
    blocked = np.full(trace.count, -1, np.int64)
    conditional = [pin for pin in trace.pins if pin.unless is not None]
    for pin in trace.pins:
        if pin.unless is not None:
            continue
        _block(blocked, label[pin.ids], pin.reason, reasons)
    reads, read = np.zeros(trace.count, np.bool_), np.zeros(trace.count, np.bool_)
    for site in trace.sites:
        has_id = site.ids >= 0
        of_class = label[site.ids]
        reads[of_class[has_id]] = True
        read[of_class[has_id & ~site.zero]] = True
        for stays, reason in _in_the_way(site):
            _block(blocked, of_class[has_id & stays], reason, reasons)
    for one in trace.sums:
        for stays, reason in _in_the_way(one):
            _block(blocked, label[one.ids[(one.ids >= 0) & stays]], reason, reasons)
    removed = np.zeros(trace.count, np.bool_)
    fresh = np.ones(trace.count, np.bool_)
    fresh[np.fromiter(trace.dim_axes, np.int64, len(trace.dim_axes))] = False
    removed[label[fresh]] = True
    removed &= blocked < 0
    keepers = trace.arrays()
    last: list[Ids] = []
    while True:
        while back := next(_tied(label, removed, conditional, trace.ties), None):
            removed[back[0]] = False
            _block(blocked, *back, reasons)
        ragged = _keep_whole(label, removed, keepers)
        if not ragged.size:
            break
        last.append(ragged)
    for kept in last:
        blocked[kept] = len(reasons)
    return Decision(label, removed, ~read & (reads | (blocked < 0)), blocked, (*reasons, KEPT_LAST))


def _block(blocked: Ids, found: Ids, reason: str, reasons: list[str]) -> None:
    """Note `reason` for the classes `found` that nothing is in the way of yet."""
    new = found[blocked[found] < 0]
    if new.size:
        blocked[new] = len(reasons)
        reasons.append(reason)


def _in_the_way(site: Site | Sum) -> Iterator[tuple[BoolArray, str]]:
    """Where `site` needs its neurons, and why."""
    finite = np.isfinite(site.values.astype(np.float64))
    needed = ~site.zero & ~(site.known & finite)
    if isinstance(site, Sum):
        yield needed, f"blocked by {site.node}: it sums over neurons, and this is no known constant there"
    else:
        yield needed, f"read by {site.node}, where it is not a known constant"
    if site.border:
        stuck = ~site.zero & site.known & finite & (site.values != 0)
        found = np.unique(site.values[stuck].astype(np.float64))
        which = "constant" if found.size == 1 else "constants such as"
        yield stuck, f"{which} {found[0]:g} {site.border}" if found.size else site.border


def _tied(label: Ids, removed: BoolArray, pins: list[Pin], ties: list[Tie]) -> Iterator[tuple[Ids, str]]:
    """The classes to take back from `removed` because of what they are tied to, and why: what is needed comes first."""
    for pin in pins:
        if pin.unless is not None:
            back = label[pin.ids[removed[label[pin.ids]] & ~_gone(label, removed, pin.unless)]]
            if back.size:
                yield back, pin.reason
    both = [(tie, _gone(label, removed, tie.rows).all(axis=1), _gone(label, removed, tie.heads)) for tie in ties]
    for tie, rows, heads in both:
        if (heads & ~rows).any():
            yield label[tie.heads[heads & ~rows]], tie.reason
    for tie, rows, heads in both:
        if (rows & ~heads).any():
            yield label[tie.rows[rows & ~heads].reshape(-1)], tie.reason


def _gone(label: Ids, removed: BoolArray, ids: Ids) -> BoolArray:
    return np.asarray((ids >= 0) & removed[label[ids]])


def _keep_whole(label: Ids, removed: BoolArray, arrays: list[Ids]) -> Ids:
    """Take back, in `removed`, what would empty an axis or leave it ragged; the classes taken back."""
    before = removed.copy()
    unique = list({id(array): array for array in arrays if array.size and (array >= 0).any()}.values())
    changed = True
    while changed:
        changed = False
        for ids in unique:
            gone = np.where(ids >= 0, removed[label[ids]], False)
            if not gone.any():
                continue
            back = label[ids.reshape(-1)[:1]] if gone.all() else label[ids[gone & ~slabs(gone)]]
            if back.size:
                removed[back] = False
                changed = True
    return np.flatnonzero(before & ~removed)


def slabs(gone: BoolArray) -> BoolArray:
    """Where `gone` can be cut: the union of the whole slices, along any axis, that are all gone."""
    cut = np.zeros(gone.shape, np.bool_)
    for axis in range(gone.ndim):
        if gone.shape[axis] > 1:
            cut |= gone.all(axis=tuple(one for one in range(gone.ndim) if one != axis), keepdims=True)
    return cut
