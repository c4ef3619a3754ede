"""Which axes of a reshaped value come from which axes of the value before: row-major order kept, as Reshape does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .flow import Flow
from .graph import Dim


@dataclass(frozen=True)
class Block:
    """Neighbouring axes before that hold the same entries as neighbouring axes after; axes of size 1 are in none."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def blocks(before: Sequence[Dim], after: Sequence[Dim]) -> list[Block]:
    """The smallest blocks that can be told apart, from both ends; what lies between two unknown sizes is one block."""
    one = [axis for axis, dim in enumerate(before) if dim != 1]
    other = [axis for axis, dim in enumerate(after) if dim != 1]
    if 0 in before or 0 in after:
        return [Block(tuple(one), tuple(other))]
    front: list[Block] = []
    while (block := _first(one, other, before, after)) is not None:
        front.append(block)
        one, other = one[len(block.before) :], other[len(block.after) :]
    back: list[Block] = []
    while (block := _first(one[::-1], other[::-1], before, after)) is not None:
        back.insert(0, Block(block.before[::-1], block.after[::-1]))
        one, other = one[: len(one) - len(block.before)], other[: len(other) - len(block.after)]
    middle = [Block(tuple(one), tuple(other))] if one or other else []
    return front + middle + back


def _first(one: list[int], other: list[int], before: Sequence[Dim], after: Sequence[Dim]) -> Block | None:
    """The shortest starts of the two lists of axes with the same number of entries; None when sizes are unknown."""
    if not one or not other:
        return None
    left, right = before[one[0]], after[other[0]]
    if left is not None and left == right:
        return Block((one[0],), (other[0],))
    count, other_count = 1, 1
    while isinstance(left, int) and isinstance(right, int):
        if left == right:
            return Block(tuple(one[:count]), tuple(other[:other_count]))
        grows, at = (one, count) if left < right else (other, other_count)
        if at == len(grows):
            return None
        dim = before[grows[at]] if grows is one else after[grows[at]]
        if not isinstance(dim, int):
            return None
        if grows is one:
            left, count = left * dim, count + 1
        else:
            right, other_count = right * dim, other_count + 1
    return None


def regrouped(flow: Flow, before: Sequence[Dim], after: Sequence[Dim]) -> Flow | None:
    """`flow` of a value of shape `before` once it is reshaped to `after`.

    Axes that merge with a neuron axis are expanded first, so every entry keeps its id. None when a size that is
    needed for this is not known.
    """
    wide, layout = [1] * len(before), [1] * len(after)
    for block in blocks(before, after):
        if all(flow.ids.shape[axis] == 1 for axis in block.before):
            continue
        sizes, new_sizes = _known(before, block.before), _known(after, block.after)
        if sizes is None or new_sizes is None or math.prod(sizes) != math.prod(new_sizes):
            return None
        for axis, size in zip(block.before, sizes, strict=True):
            wide[axis] = size
        for axis, size in zip(block.after, new_sizes, strict=True):
            layout[axis] = size
    return _plain(flow.moved(lambda array: np.broadcast_to(array, wide).reshape(layout)))


def _plain(flow: Flow) -> Flow:
    """`flow` at size 1 along axes where it is the same all along, as long as one axis is left to carry neurons."""
    for axis in flow.axes[::-1]:
        arrays = (flow.ids, flow.known, flow.values)
        if len(flow.axes) > 1 and all(bool((one == one.take([0], axis)).all()) for one in arrays):
            flow = flow.picked(np.zeros(1, np.int64), axis).loose()
    return flow


def first_alone(before: Sequence[Dim], after: Sequence[Dim], axis: int) -> tuple[int, list[Dim], list[Dim]] | None:
    """Where the block that begins with `axis` has unknown sizes: both shapes as if that axis alone made up the block.

    Returns the size of the block's first axis after, and the two shapes, with that axis of that size in both; the
    other axes of the block count as 1. None when the sizes are not multiples of each other.
    """
    block = next((one for one in blocks(before, after) if one.before and one.before[0] == axis and one.after), None)
    if block is None:
        return None
    old, new = before[axis], after[block.after[0]]
    if not isinstance(old, int) or not isinstance(new, int) or (old % new and new % old):
        return None
    shapes = [list(before), list(after)]
    for shape, axes in zip(shapes, (block.before, block.after), strict=True):
        for one in axes:
            shape[one] = 1
        shape[axes[0]] = new
    return new, shapes[0], shapes[1]


def _known(dims: Sequence[Dim], axes: Sequence[int]) -> list[int] | None:
    """The sizes of `axes`; None when one is unknown."""
    found = [dim for axis in axes if isinstance(dim := dims[axis], int)]
    return found if len(found) == len(axes) else None


def solved(
    before: Sequence[Dim], target: Sequence[int | None], stated: Sequence[Dim] | None, *, zero_copies: bool
) -> list[Dim]:
    """The shape that Reshape gives a value of shape `before`.

    `target`: the numbers asked for (0 copies the axis at its place, -1 takes what is left), None where one is not
    known. `stated`: what shape inference says; it fills in what is not known here.
    """
    known = list(stated) if stated is not None and len(stated) == len(target) else [None] * len(target)
    after: list[Dim] = []
    copied = [axis for axis, asked in enumerate(target) if asked == 0 and zero_copies and axis < len(before)]
    for axis, asked in enumerate(target):
        if axis in copied:
            after.append(before[axis])
        else:
            after.append(known[axis] if asked is None else asked)
    if -1 in after:
        rest = after.index(-1)
        others = [dim for axis, dim in enumerate(after) if axis != rest and axis not in copied]
        after[rest] = _quotient([dim for axis, dim in enumerate(before) if axis not in copied], others)
        after[rest] = known[rest] if after[rest] is None else after[rest]
    return after


def _quotient(before: Sequence[Dim], others: Sequence[Dim]) -> int | None:
    """How many entries of `before` are left for each entry of `others`; None when that is not a known number."""
    left = list(before)
    for dim in others:
        if isinstance(dim, str) and dim in left:
            left.remove(dim)
        elif not isinstance(dim, int):
            return None
    counts = [dim for dim in left if isinstance(dim, int)]
    shared = math.prod(dim for dim in others if isinstance(dim, int))
    if len(counts) < len(left) or shared <= 0 or math.prod(counts) % shared:
        return None
    return math.prod(counts) // shared
