"""Weight sharing: the kept entries of a tensor in a few clusters, each with one value.

The clusters are those of k-means in one dimension, begun in three ways of which the one with the smallest error is
taken: linearly between the smallest and the largest entry, as Han, Mao, Dally 2016 found best (section 3.2); at equal
numbers of entries; and as densely as the cube root of the entries' density, which is best for many clusters (Panter and
Dite 1951, "Quantization distortion in pulse-count modulation with nonuniform spacing of levels"). Lloyd's iterations
run on a histogram over the upper bits of the entries, so that memory does not grow with the tensor: a bin is 1/2048 of
a power of two wide, and has the exact sum of its entries. What pruning leaves has a gap around 0, where clusters stay
empty; they go where the error is largest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .arrays import NDArray, TensorSource, bits_of
from .errors import PassError

MAX_BITS = 8
_DROPPED = 12
"""Low bits of an entry that its bin does not see."""
_BINS = 1 << (32 - _DROPPED)
_ITERATIONS = 300
_GROUPS = 256
"""Groups of equal numbers of entries whose widths tell the density."""
_BLOCK = 1 << 20
"""Entries that are counted at a time."""


def codebook(source: TensorSource, entries: int) -> NDArray:
    """At most `entries` float32 values, ascending, that the kept entries of a float32 tensor are best shared into.

    Raises PassError when an entry is infinite or NaN.
    """
    (table,) = codebooks(source, (entries,))
    return table


def codebooks(source: TensorSource, sizes: Sequence[int]) -> tuple[NDArray, ...]:
    """`codebook` for each of several sizes; the tensor is counted once."""
    counts, sums = _histogram(source)
    present = np.flatnonzero(counts)
    if not present.size:
        return tuple(np.zeros(0, np.float32) for _ in sizes)
    counts, sums = counts[present], sums[present]
    means = sums / counts
    if not np.all(np.isfinite(means)):
        raise PassError("an entry is infinite or NaN, so that no clusters can be made; skip this weight")
    return tuple(_table(source, means, counts, entries) for entries in sizes)


def _table(source: TensorSource, means: NDArray, counts: NDArray, entries: int) -> NDArray:
    """The codebook of a tensor that has been counted."""
    if means.size <= entries and (distinct := _exact(source, entries)) is not None:
        return distinct
    found = [_clusters(means, counts, start) for start in _starts(means, counts, entries)]
    centres = min(found, key=lambda each: _square_error(means, counts, each))
    return _without_zero(np.unique(centres.astype(np.float32)))


def _starts(means: NDArray, counts: NDArray, entries: int) -> list[NDArray]:
    """`entries` centres to begin with: linearly, at equal numbers, and by the cube root of density; float64 each."""
    middles = (np.arange(entries) + 0.5) / entries
    ranks = (np.cumsum(counts) - counts / 2) / counts.sum()
    groups = np.interp(np.linspace(0, 1, _GROUPS + 1), ranks, means)
    roots = np.concatenate(([0.0], np.cumsum(np.diff(groups) ** (2 / 3))))
    starts = [np.linspace(means[0], means[-1], entries), np.interp(middles, ranks, means)]
    if roots[-1] > 0:
        starts.append(np.interp(middles * roots[-1], roots, groups))
    return starts


def _clusters(means: NDArray, counts: NDArray, centres: NDArray) -> NDArray:
    """Where k-means ends that begins with `centres`; clusters that stay empty go where the error is largest."""
    for _ in range(len(centres)):
        centres, members = _settled(means, counts, centres)
        empty = int(np.count_nonzero(members == 0))
        if not empty:
            break
        centres = _split(means, counts, centres[members > 0], empty)
    return centres


def _square_error(means: NDArray, counts: NDArray, centres: NDArray) -> float:
    """Sum over the entries of the square of the way to the nearest centre, those of a bin taken at its mean."""
    return float(np.sum(counts * (means - np.repeat(centres, np.diff(_edges(means, centres)))) ** 2))


def _settled(means: NDArray, counts: NDArray, centres: NDArray) -> tuple[NDArray, NDArray]:
    """Lloyd's iterations on bins, until nothing moves: the centres, and how many entries each has."""
    below_count, below_sum = (np.concatenate(([0.0], np.cumsum(each))) for each in (counts, counts * means))
    members = np.zeros_like(centres)
    for _ in range(_ITERATIONS):
        edges = _edges(means, centres)
        members, total = np.diff(below_count[edges]), np.diff(below_sum[edges])
        moved = np.sort(np.where(members > 0, total / np.maximum(members, 1), centres))
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres, np.diff(below_count[_edges(means, centres)])


def _split(means: NDArray, counts: NDArray, centres: NDArray, number: int) -> NDArray:
    """`centres` and up to `number` more: the clusters of largest square error become two, a deviation to each side."""
    edges = _edges(means, centres)
    off = counts * (means - np.repeat(centres, np.diff(edges))) ** 2
    errors = np.diff(np.concatenate(([0.0], np.cumsum(off)))[edges])
    members = np.diff(np.concatenate(([0.0], np.cumsum(counts)))[edges])
    worst = np.argsort(-errors, kind="stable")[:number]
    worst = worst[errors[worst] > 0]
    spread = np.sqrt(errors[worst] / members[worst])
    return np.sort(np.concatenate((np.delete(centres, worst), centres[worst] - spread, centres[worst] + spread)))


def _edges(means: NDArray, centres: NDArray) -> NDArray:
    """Where in `means` each cluster begins, and the end of the last."""
    found: NDArray = np.concatenate(([0], np.searchsorted(means, (centres[1:] + centres[:-1]) / 2), [means.size]))
    return found


def shared(source: TensorSource, table: NDArray) -> tuple[NDArray, NDArray]:
    """Every kept entry replaced by the nearest of `table` (ascending); zeros stay.

    Returns the new tensor, and the code of each entry: uint8, 0 for a zero, i for table[i - 1]. A gradient of the
    table, to train it, is the gradient of the tensor summed by code.
    """
    middles = ((table[1:].astype(np.float64) + table[:-1]) / 2).astype(np.float32)
    values = np.zeros(source.size, np.float32)
    codes = np.zeros(source.size, np.uint8)
    start = 0
    for chunk in source.chunks():
        kept = np.flatnonzero(bits_of(chunk))
        nearest = np.searchsorted(middles, chunk[kept])
        values[start + kept] = table[nearest]
        codes[start + kept] = nearest + 1
        start += chunk.size
    return values.reshape(source.shape), codes.reshape(source.shape)


def _kept_blocks(source: TensorSource) -> Iterator[NDArray]:
    """The kept entries, about a million at a time."""
    pieces: list[NDArray] = []
    gathered = 0
    for chunk in source.chunks():
        pieces.append(chunk[np.flatnonzero(bits_of(chunk))])
        gathered += pieces[-1].size
        if gathered >= _BLOCK:
            yield np.concatenate(pieces)
            pieces, gathered = [], 0
    if gathered:
        yield np.concatenate(pieces)


def _histogram(source: TensorSource) -> tuple[NDArray, NDArray]:
    """How many kept entries there are in each bin, and their sum, float64 [bins], bins in the order of their values."""
    counts, sums = np.zeros(_BINS), np.zeros(_BINS)
    for entries in _kept_blocks(source):
        bits = bits_of(entries)
        negative = (bits >> np.uint32(31)).astype(np.bool_)
        ordered = np.where(negative, ~bits, bits | np.uint32(1 << 31)) >> np.uint32(_DROPPED)
        counts += np.bincount(ordered, minlength=_BINS)
        sums += np.bincount(ordered, weights=entries.astype(np.float64), minlength=_BINS)
    return counts, sums


def _exact(source: TensorSource, entries: int) -> NDArray | None:
    """The distinct kept values, when there are no more than `entries`."""
    found = np.zeros(0, np.float32)
    for block in _kept_blocks(source):
        found = np.union1d(found, block)
        if found.size > entries:
            return None
    return _without_zero(found)


def _without_zero(table: NDArray) -> NDArray:
    """`table` with a very small value in the place of 0, which would prune the entries that share it."""
    smallest = max(np.finfo(np.float32).tiny, np.abs(table).max(initial=0) * np.float32(2**-24))
    return np.unique(np.where(table == 0, smallest, table).astype(np.float32))
