"""A tensor without its dead slices: those along axis 0 (rows) or axis 1 (columns) that are wholly zero.

An entry is zero when its bit pattern is. In the compact tensor a slice of zeros comes first, for all the dead ones to
be read from. That of columns is turned, its axes in the opposite order, so that the columns of a matrix are its rows:
entries of one column, whose density is much the same, come one after the other, which makes their positions cheaper.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..arrays import NDArray, TensorSource, bits_of
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
    """The compact tensor: a new array [1 + live rows, ...], or [..., 1 + live columns, rows]."""
    whole = source.array() if axis == 0 else source.array().transpose()
    at = 0 if axis == 0 else whole.ndim - 2
    dims = list(whole.shape)
    dims[at] = 1 + int(np.count_nonzero(live))
    found = np.zeros(dims, source.dtype)
    np.moveaxis(found, at, 0)[1:] = np.moveaxis(whole, at, 0)[live]
    return found


def spread(compact: NDArray, live: BoolArray, axis: int) -> NDArray:
    """The tensor from its compact form; the number of live slices has to fit."""
    order = np.cumsum(live) * live
    whole = compact if axis == 0 else compact.transpose()
    return np.ascontiguousarray(whole.take(order, axis=axis))
