"""Along each axis of a tensor, which slices are all zero, and the tensor without some of them; read in chunks.

A slice of axis 0 of a weight [out, in] is a row, a slice of axis 1 a column. -0.0 is zero, NaN is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from ..arrays import CHUNK, Array, Bits, Masked, NDArray

BoolArray = npt.NDArray[np.bool_]


class ZeroSlices:
    """The all-zero slices of tensors, computed once for each source."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, bytes], tuple[Array | Masked, tuple[BoolArray, ...]]] = {}

    def of(self, source: Array | Masked, zero_point: NDArray | None = None) -> tuple[BoolArray, ...]:
        """For each axis a bool array of its length: True where the slice holds nothing but zeros.

        `zero_point`: the integers that mean 0, broadcast to the tensor; None for 0 itself.
        """
        zero = zero_point is None or not zero_point.any()
        key = (id(source), b"" if zero_point is None or zero else zero_point.tobytes())
        found = self._found.get(key)
        if found is None:
            found = (source, zero_slices(source) if zero_point is None or zero else _at(source, zero_point))
            self._found[key] = found
        return found[1]


def _at(source: Array | Masked, zero_point: NDArray) -> tuple[BoolArray, ...]:
    """For each axis of `source`, True where the slice holds nothing but `zero_point`."""
    alive = source.array() != zero_point
    others = [tuple(one for one in range(alive.ndim) if one != axis) for axis in range(alive.ndim)]
    return tuple(np.asarray(~alive.any(axis=axes)) for axes in others)


def zero_slices(source: Array | Masked) -> tuple[BoolArray, ...]:
    """For each axis of `source` a bool array of its length: True where the slice holds nothing but zeros."""
    shape = source.shape
    alive = tuple(np.zeros(size, np.bool_) for size in shape)
    start = 0
    for chunk in source.chunks():
        nonzero = chunk != 0
        for axis, flags in enumerate(alive):
            if not flags.all():
                mark(flags, nonzero, start, math.prod(shape[axis + 1 :]))
        start += chunk.size
    return tuple(~flags for flags in alive)


def mark(alive: BoolArray, nonzero: BoolArray, start: int, inner: int) -> None:
    """Set `alive` of an axis where the flat piece `nonzero`, which begins at `start`, has a True.

    `inner`: the number of elements from one coordinate of the axis to the next.
    """
    if inner == 1:
        _mark_last(alive, nonzero, start % alive.size)
        return
    bounds = np.arange(-start % inner, nonzero.size, inner)
    if start % inner:
        bounds = np.concatenate([[0], bounds])
    flags = np.logical_or.reduceat(nonzero, bounds)
    alive[(start // inner + np.flatnonzero(flags)) % alive.size] = True


def _mark_last(alive: BoolArray, nonzero: BoolArray, offset: int) -> None:
    """`mark` for the last axis, the piece beginning at coordinate `offset` of it."""
    head = min(-offset % alive.size, nonzero.size)
    alive[offset : offset + head] |= nonzero[:head]
    rows, left = divmod(nonzero.size - head, alive.size)
    if rows:
        alive |= nonzero[head : head + rows * alive.size].reshape(rows, alive.size).any(axis=0)
    alive[:left] |= nonzero[nonzero.size - left :]


def cut(source: Array | Masked, keep: Mapping[int, BoolArray]) -> Array | Masked:
    """`source` with only the kept slices of some axes: `keep[axis]` is True where a slice stays.

    A masked tensor stays masked. Only the result is allocated, block of rows by block of rows.
    """
    if isinstance(source, Masked) and source.fill is None:
        return Masked(Array(_cut_array(source.base.values, keep)), cut_bits(source.bits, source.shape, keep))
    return Array(_cut_array(source.array(), keep))


def _cut_array(values: NDArray, keep: Mapping[int, BoolArray]) -> NDArray:
    rows = np.flatnonzero(keep[0]) if 0 in keep else np.arange(values.shape[0])
    others = {axis: np.flatnonzero(flags) for axis, flags in keep.items() if axis != 0}
    shape = (
        rows.size,
        *(others[axis].size if axis in others else values.shape[axis] for axis in range(1, values.ndim)),
    )
    after = np.empty(shape, values.dtype)
    step = max(1, CHUNK // max(1, math.prod(values.shape[1:])))
    for start in range(0, rows.size, step):
        block = values[rows[start : start + step]]
        for axis, picked in others.items():
            block = block.take(picked, axis=axis)
        after[start : start + step] = block
    return after


def cut_bits(bits: Bits, shape: tuple[int, ...], keep: Mapping[int, BoolArray]) -> Bits:
    """A packed mask (8 a byte, least significant bit first, over the flat tensor) with only the kept slices."""
    pieces: list[Bits] = []
    rest = np.zeros(0, np.uint8)
    for block in _cut_blocks(bits, shape, keep):
        flat = np.concatenate([rest, block])
        whole = flat.size // 8 * 8
        pieces.append(np.packbits(flat[:whole], bitorder="little"))
        rest = flat[whole:]
    pieces.append(np.packbits(rest, bitorder="little"))
    return np.concatenate(pieces)


def _cut_blocks(bits: Bits, shape: tuple[int, ...], keep: Mapping[int, BoolArray]) -> Iterator[Bits]:
    """The unpacked entries of the cut mask, flat, rows after rows."""
    row = math.prod(shape[1:])
    step = max(1, CHUNK // max(1, row))
    for start in range(0, shape[0], step):
        stop = min(start + step, shape[0])
        first = start * row // 8
        flat = np.unpackbits(bits[first : (stop * row + 7) // 8], bitorder="little")
        block = flat[start * row - first * 8 : stop * row - first * 8].reshape(stop - start, *shape[1:])
        for axis, flags in keep.items():
            block = block.compress(flags[start:stop] if axis == 0 else flags, axis=axis)
        yield block.reshape(-1)
