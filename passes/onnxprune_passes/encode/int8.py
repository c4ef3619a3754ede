"""Int8 with a scale for each channel: w = scale[c] × q, q from -127 to 127. Symmetric, so that 0 is 0.

`quantized` rounds a weight to such values, with the largest magnitude of a channel ÷ 127 for its scale (Jacob et al.
2018, "Quantization and training of neural networks for efficient integer-arithmetic-only inference", section 2.1, with
zero-point 0). `scales_of` finds the scales of a weight that holds such values, bit for bit, whoever rounded it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from ..arrays import NDArray, TensorSource, bits_of
from . import functions

MOST = 127
"""The largest magnitude of q; -128 is not used."""
_BLOCK = 1 << 20
"""Entries looked at at a time."""
_LOOK = 1 << 15
"""Kept entries that are looked at before all of a weight is."""
_CHUNKS = 64
"""Chunks that are read for them at most."""
_CLOSEST = np.float32(127.5)
"""How many times its smallest step the largest magnitude of a channel can be, rounding counted in."""
_NEIGHBOURS = (0, 1, -1, 2, -2)
"""How many float32 numbers the scale can lie beside the largest magnitude ÷ 127, since both are rounded."""

_SIGNATURE = "DequantizeInt8 (quantized, scales) => (weight)"

_DOC = """Version 1. {quantized} (filler 0) x {scales}, one for each channel."""

_BODY = """
  wide = Cast <to = 1> (quantized)
  weight = Mul (wide, scales)
"""


@dataclass(frozen=True)
class Int8:
    """What makes a float32 weight of an int8 one, behind its index scheme."""

    @property
    def name(self) -> str:
        """`int8`."""
        return "int8"

    @property
    def op_type(self) -> str:
        """`DequantizeInt8`."""
        return "DequantizeInt8"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the names of the node's inputs; the first is made by the node of the index scheme."""
        return ("quantized", "scales")

    def function(self, opset: int) -> onnx.FunctionProto:
        """`DequantizeInt8`; see `Decodable.function`."""
        return functions.function_from_text(_SIGNATURE, _BODY, _DOC, opset)


def scales_shape(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    """The dims of the scales, which broadcast against a weight whose channels lie along `axis`."""
    return tuple(dim if place == axis else 1 for place, dim in enumerate(shape))


def quantized(source: TensorSource, axis: int) -> NDArray | str:
    """A float32 weight rounded to multiples of a scale for each channel along `axis`; float32, or why it cannot be."""
    values = _by_channel(source, axis)
    scales = _largest(values) / np.float32(MOST)
    if not np.all(np.isfinite(scales)):
        return "an entry is infinite or NaN, so that it has no scale"
    if np.any((scales < np.finfo(np.float32).tiny) & (_largest(values) > 0)):
        return "the entries of a channel are too small for a scale"
    found = np.empty(values.shape, np.float32)
    for where, block, own in _blocks(values, scales):
        found[where] = _whole(block, own) * own
    return found.reshape(source.shape)


def scales_of(source: TensorSource, axis: int) -> NDArray | None:
    """The scales, float32 [channels], of a float32 weight that `to_int8` can store exactly; else None."""
    if source.size == 0 or len(source.shape) <= axis:
        return None
    if not _may_have_scales(source, axis):
        return None
    values = _by_channel(source, axis)
    largest = _largest(values)
    if not np.all(np.isfinite(largest)):
        return None
    return _scales(values, largest)


def _may_have_scales(source: TensorSource, axis: int) -> bool:
    """A look at the first entries, so that a weight of other values need not be in memory as a whole.

    Magnitudes of a channel are multiples of its scale, so no two that differ lie closer than a scale to each other, or
    to 0, and none is above 127 of them. Of values that were not rounded some nearly always do.
    """
    inner, channels = math.prod(source.shape[axis + 1 :]), source.shape[axis]
    magnitudes, owners, start = np.zeros(0, np.float32), np.zeros(0, np.int64), 0
    for number, chunk in enumerate(source.chunks()):
        kept = np.flatnonzero(chunk)
        magnitudes = np.concatenate((magnitudes, np.abs(chunk[kept])))
        owners = np.concatenate((owners, (start + kept) // inner % channels))
        start += chunk.size
        if magnitudes.size >= _LOOK or number + 1 == _CHUNKS:
            break
    order = np.lexsort((magnitudes, owners))
    magnitudes, owners = magnitudes[order], owners[order]
    first = np.diff(owners, prepend=-1) != 0
    places = np.flatnonzero(first)
    if not places.size:
        return True
    with np.errstate(all="ignore"):  # infinities and NaN are looked at later
        steps = np.where(first, magnitudes, np.diff(magnitudes, prepend=np.float32(0)))
        steps[steps == 0] = np.inf
        smallest = np.minimum.reduceat(steps, places)
        largest = np.maximum.reduceat(magnitudes, places)
        return not np.any(largest > _CLOSEST * smallest)


def _scales(values: NDArray, largest: NDArray) -> NDArray | None:
    """The scales of [outer, channels, inner] with these largest magnitudes, float32 [channels]; None without such."""
    base = largest / np.float32(MOST)
    found, open_ = base.copy(), np.ones(base.size, np.bool_)
    for steps in _NEIGHBOURS:
        scales = np.where(open_ & (base > 0), (base.view(np.int32) + np.int32(steps)).view(np.float32), found)
        fits = _exact(values, scales)
        found = np.where(open_, scales, found)
        open_ &= ~fits
        if not open_.any():
            return found
    return None


def to_int8(source: TensorSource, scales: NDArray, axis: int) -> NDArray:
    """The whole numbers of a weight by scales that `scales_of` found; int8, in the weight's shape."""
    values = _by_channel(source, axis)
    found = np.empty(values.shape, np.int8)
    for where, block, own in _blocks(values, scales):
        found[where] = _whole(block, own)
    return found.reshape(source.shape)


def _by_channel(source: TensorSource, axis: int) -> NDArray:
    """A view [outer, channels, inner]."""
    shape = source.shape
    return source.array().reshape(math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))


def _blocks(values: NDArray, scales: NDArray) -> Iterator[tuple[tuple[slice, slice], NDArray, NDArray]]:
    """Pieces of [outer, channels, inner]: where they lie, their entries, and their scales [channels, 1]."""
    outer, channels, inner = values.shape
    step = max(1, _BLOCK // max(1, inner))
    rows = max(1, step // channels)
    for first in range(0, outer, rows):
        for channel in range(0, channels, step):
            where = (slice(first, first + rows), slice(channel, channel + step))
            yield where, values[where], scales[where[1], None]


def _largest(values: NDArray) -> NDArray:
    """The largest magnitude of each channel, float32 [channels]."""
    found = np.zeros(values.shape[1], np.float32)
    for where, block, _ in _blocks(values, found):
        found[where[1]] = np.maximum(found[where[1]], np.abs(block).max(axis=(0, 2)))
    return found


def _whole(block: NDArray, scales: NDArray) -> NDArray:
    """The nearest multiples, int8; 0 where a scale is 0."""
    with np.errstate(all="ignore"):
        found = np.rint(block / np.where(scales > 0, scales, np.float32(1)))
    whole: NDArray = np.clip(found, -MOST, MOST).astype(np.int8)
    return whole


def _exact(values: NDArray, scales: NDArray) -> NDArray:
    """Of which channels every entry is a multiple of the scale, bit for bit; bool [channels]."""
    fits = np.ones(values.shape[1], np.bool_)
    for where, block, own in _blocks(values, scales):
        same = bits_of(_whole(block, own) * own) == bits_of(np.ascontiguousarray(block))
        fits[where[1]] &= same.all(axis=(0, 2))
    return fits
