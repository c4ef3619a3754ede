"""A tensor without its dead slices: those along axis 0 (rows) or axis 1 (columns) that are wholly zero.

An entry is zero when its bit pattern is. In the compact tensor a slice of zeros comes first, for all the dead ones to
be read from. That of columns is turned, its axes in the opposite order, so that the columns of a matrix are its rows:
entries of one column, whose density is much the same, come one after the other, which makes their positions cheaper.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..arrays import CHUNK, NDArray, TensorSource, bits_of
from ..neurons.slices import mark

BoolArray = npt.NDArray[np.bool_]

AXES = (0, 1)
"""Rows, columns."""

_FOUR = 4
"""Entries of a group in a 2:4 pattern."""

_LOOK = 1 << 14
"""How many entries are looked at at least for a pattern."""

_LEAST = 64
"""Bytes that names, dims and the node take at least."""

_ROWS = 64
"""Rows that are turned at a time at least: so many entries then lie one after the other."""


def live_slices(source: TensorSource, axis: int) -> BoolArray:
    """Which slices along `axis` have an entry that is not zero, bool [dim]; read in chunks until all have."""
    live = np.zeros(source.shape[axis], np.bool_)
    inner, start = math.prod(source.shape[axis + 1 :]), 0
    for chunk in source.chunks():
        mark(live, bits_of(chunk) != 0, start, inner)
        start += chunk.size
        if live.all():
            break
    return live


def worth_it(kept: int, live: BoolArray) -> bool:
    """Whether so many kept entries could take fewer bytes without the dead slices.

    Each takes fewer bits by the logarithm of how much shorter the tensor is, if they are spread evenly.
    """
    left = int(np.count_nonzero(live))
    return left > 0 and kept * math.log2(live.size / left) > live.size + 8 * _LEAST


def column_pattern(source: TensorSource) -> bool:
    """Whether a matrix seems to keep an even number of each four entries of a column, as a 2:4 pattern along its first
    axis does, and blocks. A matrix like that is worth turning, whatever slices are dead. Its first rows are looked at.
    """
    if len(source.shape) != 2 or source.shape[0] % _FOUR or not source.size:
        return False
    rows, columns = source.shape
    kept = np.zeros(columns * min(rows, -(-_LOOK // (_FOUR * columns)) * _FOUR), np.bool_)
    start = 0
    for chunk in source.chunks():
        part = kept[start : start + chunk.size]
        part[:] = bits_of(chunk[: part.size]) != 0
        start += part.size
        if start == kept.size:
            break
    density = float(np.mean(kept))
    odd = np.mean(np.count_nonzero(kept.reshape(-1, _FOUR, columns), axis=1) % 2)
    by_chance = 4 * density * (1 - density) * (density**2 + (1 - density) ** 2)
    return bool(odd < by_chance / 4)


def compacted(source: TensorSource, live: BoolArray, axis: int) -> NDArray:
    """The compact tensor: a new array [1 + live rows, ...], or [..., 1 + live columns, rows]; filled block by block."""
    values, places = source.array(), np.flatnonzero(live)
    if axis == 0:
        found = np.zeros((1 + places.size, *values.shape[1:]), values.dtype)
        np.take(values, places, axis=0, out=found[1:], mode="clip")  # which any but "raise" fills without a copy
        return found
    found = np.zeros((*values.shape[:1:-1], 1 + places.size, values.shape[0]), values.dtype)
    step = max(_ROWS, CHUNK // math.prod(values.shape[1:]))
    for start in range(0, values.shape[0], step):
        block = values[start : start + step].take(places, axis=1)
        found[..., 1:, start : start + step] = block.transpose()
    return found


def spread(compact: NDArray, live: BoolArray, axis: int) -> NDArray:
    """The tensor from its compact form; the number of live slices has to fit."""
    order = np.cumsum(live) * live
    whole = compact if axis == 0 else compact.transpose()
    return np.ascontiguousarray(whole.take(order, axis=axis))
