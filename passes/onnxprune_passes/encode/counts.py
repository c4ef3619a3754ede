"""What the size of a tensor's encodings depends on, counted in one pass over its chunks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import ml_dtypes
import numpy as np

from ..arrays import Array, NDArray, TensorSource, bits_of
from ..errors import EncodeError
from .compact import AXES, column_pattern, compacted, live_slices, worth_it
from .int8 import scales_of
from .limits import require_encodable
from .patterns import PatternCounter, Patterns

GAP_BITS = (2, 3, 4, 6, 8)
"""Widths of a gap code that `count` counts escapes for; a code of b bits has the escape 2^b - 1."""

REST_BITS = (0, 1, 2, 3, 4, 5, 6, 7, 8)
"""Widths of the rest of a gap in a Rice code; 0 where codes into a codebook stand beside it (see `rice_codes`)."""

MAX_DISTINCT = 256
"""A tensor with more distinct values gets no codebook."""

_FLOAT32 = np.dtype(np.float32)
_NARROW = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


@dataclass(frozen=True)
class Values:
    """What is known of the kept entries of a tensor.

    Attributes:
        distinct: their bit patterns in ascending order; None when there are more than `MAX_DISTINCT`, or not counted.
        exponents: of float32 the number of entries at each biased exponent (0 to 255); empty for other dtypes.
        denormal: some entry of exponent 0 is not -0.0.
        narrow: names of the narrower dtypes that hold every entry exactly: float16, bfloat16.
        channel_axis: the axis along which each channel has a scale that its entries are multiples of (see `int8`);
            None when they are not, or that was not looked for.
    """

    distinct: tuple[int, ...] | None = None
    exponents: tuple[int, ...] = ()
    denormal: bool = False
    narrow: tuple[str, ...] = ()
    channel_axis: int | None = None


@dataclass(frozen=True)
class Counts:
    """What the size of a tensor's encodings depends on.

    Attributes:
        shape: dims of the tensor.
        dtype: dtype of its entries.
        kept: entries whose bit pattern is not zero.
        escapes: width of a gap code in bits → escapes that the tensor's gaps need at that width.
        values: what is known of the kept entries.
        quotients: width of a rest in bits → sum of the quotients by 2^width of the zeros behind each kept entry.
        patterns: what is known of where kept entries lie within aligned runs.
        live: axis → the same of the tensor without the slices along it that are wholly zero, which turns columns (see
            `compact`), for those axes where that may take fewer bytes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    kept: int
    escapes: Mapping[int, int]
    values: Values = field(default_factory=Values)
    quotients: Mapping[int, int] = field(default_factory=dict)
    patterns: Patterns = field(default_factory=Patterns)
    live: Mapping[int, Counts] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Entries of the tensor."""
        return math.prod(self.shape)


def kept_runs(source: TensorSource, patterns: PatternCounter | None = None) -> Iterator[tuple[NDArray, NDArray]]:
    """The kept entries of each chunk that has any; `patterns` takes in where they lie.

    Yields (gaps, entries), equally long: uint32, how many zeros lie between this kept entry and the one before it (in
    whatever chunk), or the start of the tensor; and the entries themselves, in the tensor's dtype.
    """
    zeros = 0
    for chunk in source.chunks():
        mask = bits_of(chunk) != 0
        if patterns:
            patterns.add(mask)
        kept = np.flatnonzero(mask)
        if kept.size:
            yield (np.diff(kept, prepend=-1 - zeros) - 1).astype(np.uint32), chunk[kept]
            zeros = chunk.size - 1 - int(kept[-1])
        else:
            zeros += chunk.size


def count(source: TensorSource, channel_axis: int | None = None) -> Counts:
    """Count, in one pass, what the encoded size of a tensor depends on; what is left of one with dead slices too.

    `channel_axis`: look whether the entries of a float32 tensor are multiples of a scale for each channel along it,
    which takes up to two passes more where they are, and seldom more than a look where they are not.

    Raises EncodeError for a tensor that `encode` refuses, unless it is one without entries.
    """
    if source.size:
        require_encodable("count", source)
    found, longest = _counted(source)
    if channel_axis is not None and source.dtype == _FLOAT32 and scales_of(source, channel_axis) is not None:
        found = replace(found, values=replace(found.values, channel_axis=channel_axis))
    return replace(found, live=_live(source, found, longest))


def _live(source: TensorSource, found: Counts, longest: int) -> dict[int, Counts]:
    """The counts of the compact tensors that may be worth storing; `longest`: how many zeros lie in a row at most."""
    counts: dict[int, Counts] = {}
    for axis in AXES if 0 < found.kept < found.size and len(found.shape) > 1 else ():
        if axis == 0 and longest < math.prod(found.shape[1:]):
            continue  # no row is wholly zero
        live = live_slices(source, axis)
        if worth_it(found.kept, live) or (axis == 1 and column_pattern(source)):
            counts[axis], _ = _counted(Array(compacted(source, live, axis)))
    return counts


def _counted(source: TensorSource) -> tuple[Counts, int]:
    """What one pass finds, and how many zeros lie in a row at most; scales and dead slices are not looked for."""
    total, end, longest = 0, 0, 0
    escapes = dict.fromkeys(GAP_BITS, 0)
    quotients = dict.fromkeys(REST_BITS, 0)
    values, patterns = _ValueCounter(source.dtype), PatternCounter()
    for gaps, entries in kept_runs(source, patterns):
        behind = gaps if total else gaps[1:]  # what lies before the first entry lies behind none
        end += int(np.sum(gaps, dtype=np.int64)) + gaps.size
        total += entries.size
        longest = max(longest, int(gaps.max()))
        for bits in REST_BITS:
            quotients[bits] += int(np.sum(behind >> np.uint32(bits), dtype=np.int64))
        for bits in GAP_BITS:
            escape = np.uint32(2**bits - 1)
            gaps = gaps[gaps >= escape]
            if not gaps.size:
                break
            escapes[bits] += int(np.sum(gaps // escape, dtype=np.int64))
        values.add(entries)
    for bits in REST_BITS if total else ():
        quotients[bits] += (source.size - end) >> bits
    found = Counts(source.shape, source.dtype, total, escapes, values.found(), quotients, patterns.found())
    return found, max(longest, source.size - end)


class _ValueCounter:
    """Gathers `Values` chunk by chunk; what has turned out not to hold is not looked at again."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._distinct: NDArray | None = np.empty(0, f"u{dtype.itemsize}")
        self._exponents = np.zeros(256 if dtype == _FLOAT32 else 0, np.int64)
        self._denormal = False
        self._narrow = list(_NARROW) if dtype == _FLOAT32 else []

    def add(self, entries: NDArray) -> None:
        """Take in the kept entries of one chunk."""
        bits = bits_of(entries)
        if self._distinct is not None:
            self._distinct = _merged(self._distinct, bits)
        if self._exponents.size:
            exponents = np.bincount((bits >> np.uint32(23)) & np.uint32(255), minlength=256)
            self._exponents += exponents
            if exponents[0] and not self._denormal:
                self._denormal = bool(np.any((bits & np.uint32(0x7F800000) == 0) & (bits & np.uint32(0x7FFFFFFF) != 0)))
        self._narrow = [narrow for narrow in self._narrow if exact_in(entries, narrow)]

    def found(self) -> Values:
        """What was found in all chunks."""
        distinct = None if self._distinct is None else tuple(self._distinct.tolist())
        names = tuple(dtype.name for dtype in self._narrow)
        return Values(distinct, tuple(self._exponents.tolist()), self._denormal, names)


def _merged(known: NDArray, bits: NDArray) -> NDArray | None:
    """`known` bit patterns (sorted) and those of `bits`; None when they are too many."""
    if known.size:
        place = np.minimum(np.searchsorted(known, bits), known.size - 1)
        bits = bits[known[place] != bits]
        if not bits.size:
            return known
    merged = np.union1d(known, bits[:4096])
    if merged.size <= MAX_DISTINCT and bits.size > 4096:
        merged = np.union1d(merged, bits)
    return merged if merged.size <= MAX_DISTINCT else None


def exact_in(entries: NDArray, narrow: np.dtype[Any]) -> bool:
    """Whether every float32 of `entries` comes back from the dtype `narrow` bit for bit; a NaN never does."""
    if narrow.name == "bfloat16":
        return not np.any(bits_of(entries) & np.uint32(0xFFFF)) and not np.any(np.isnan(entries))
    if entries.size > 4096 and not exact_in(entries[:4096], narrow):
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        back = entries.astype(narrow).astype(np.float32)
    return np.array_equal(bits_of(back), bits_of(entries)) and not np.any(np.isnan(entries))


def counts_of(source: TensorSource, counts: Counts | None) -> Counts:
    """`counts`, or new ones when there are none. Raises EncodeError when they speak of another shape or dtype."""
    if counts is None:
        return count(source)
    if (counts.shape, counts.dtype) != (source.shape, source.dtype):
        raise EncodeError(
            f"counts of a {counts.dtype} tensor {list(counts.shape)} do not fit a {source.dtype} one "
            f"{list(source.shape)}; count again"
        )
    return counts


def changed() -> EncodeError:
    """The error for a tensor that does not hold what was counted."""
    return EncodeError("the tensor does not hold what was counted in it; count and encode the same values")
