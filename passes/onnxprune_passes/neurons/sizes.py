"""Sizes that a graph names: targets of Reshape and Expand, given or computed from Shape.

Shape's output carries, at the place of an axis with neurons, an id that stands for the size of that axis. Where it
arrives unchanged in a target, at the place of an axis with the very same neurons, the target follows the removal by
itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import NDArray
from .classes import Ids
from .cut import Cut
from .flow import Flow
from .graph import Dim, Node
from .trace import Trace


@dataclass(frozen=True, eq=False)
class NamedSizes:
    """A target shape: the numbers where they are known, the ids of sizes (-1: none)."""

    values: tuple[int | None, ...]
    ids: Ids

    def fits_by_itself(self, axis: int, copies: Collection[int] = ()) -> bool:
        """True when the number at `axis` need not be rewritten: -1, a 0 that copies the very axis, a measured size."""
        return bool(self.ids[axis] >= 0) or self.values[axis] == -1 or (self.values[axis] == 0 and axis in copies)

    def follow(self, trace: Trace, flow: Flow, copies: Collection[int], rewritable: bool) -> bool:
        """True when the target will fit what `flow`, the output's, keeps: it can be rewritten, or fits by itself.

        `copies`: the axes at which a 0 copies the very axis. Neurons whose number is the target are united with those
        that lie along its axis: they are the same, or in the same groups; nothing is united where they are the same in
        another order (a channel shuffle), since as many stay in any case.
        """
        for axis, value in enumerate(self.values):
            if self.ids[axis] >= 0:
                measured = trace.dim_axes.get(int(self.ids[axis]))
                own = flow.ids.reshape(-1)
                if measured is None or flow.axes != (axis,) or measured.shape != own.shape or min(*measured, *own) < 0:
                    return False
                if not np.array_equal(np.sort(measured), np.sort(own)):
                    trace.pairs.append((measured, own))
            elif (axis in flow.axes or value == 0) and not (rewritable or self.fits_by_itself(axis, copies)):
                return False
        return True

    def settled(self, before: Sequence[Dim], after: Sequence[Dim], *, zero_copies: bool) -> NDArray | None:
        """The target of a Reshape as numbers: 0 for an unknown size that is copied, -1 for the last one; int64."""
        numbers = [
            0
            if value is None and zero_copies and axis < len(before) and before[axis] and before[axis] == after[axis]
            else value
            for axis, value in enumerate(self.values)
        ]
        if None in numbers and -1 in numbers:
            return None
        left = numbers.count(None)
        return None if left > 1 else np.array([-1 if number is None else number for number in numbers], np.int64)


def named_sizes(trace: Trace, name: str) -> NamedSizes | None:
    """The target shape that value `name` holds; None when nothing at all is known of it."""
    dims = trace.dims(name)
    if dims is None or len(dims) != 1 or not isinstance(dims[0], int):
        return None
    flow = trace.flow(name)
    ids, known, numbers = (np.broadcast_to(array, dims[0]) for array in (flow.ids, flow.known, flow.values))
    values = tuple(int(number) if sure else None for number, sure in zip(numbers, known, strict=True))
    return NamedSizes(values, ids)


def rewrite_sizes(cut: Cut, node: Node, index: int, target: NDArray) -> None:
    """Bring the numbers `target` of input `index` in step with what the output keeps; 0 and -1 stay where they fit."""
    after = np.array(target)
    for axis, keep in cut.keep(node.output(0)).items():
        own = cut.keep(node.input(0)).get(axis)
        copied = after[axis] == 0 and own is not None and own.sum() == keep.sum()
        if after[axis] != -1 and not copied:
            after[axis] = keep.sum()
    for axis in np.flatnonzero(after == 0).tolist():
        if axis not in cut.keep(node.output(0)) and axis in cut.keep(node.input(0)):
            after[axis] = cut.size(node.output(0), axis)
    cut.set_input(node, index, after)
