"""Exact cuts on |w| over any number of weights, without sorting or copying them.

|w| is compared through its bit pattern: for IEEE floats without sign, the unsigned integer order is the order of
magnitudes. The upper 16 bits of that pattern (15 without the sign) make a histogram of 32,768 buckets, each at most
1/128 wide (float32); only the entries of the few buckets that a cut runs through are looked at again. Everything
streams in chunks: memory is the histogram and those entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import CHUNK, Masked, NDArray
from .errors import ModelError
from .model import Model
from .weights import Weight

BUCKETS = 1 << 15
_HALF = np.uint16(BUCKETS - 1)
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Layer:
    """What is ranked together: a weight, or one block of it (a gate matrix).

    Attributes:
        weight: the weight.
        block: which of `weight.blocks` equal parts.
        wide: True compares as float64 (some selected weight is float64), False as float32.
    """

    model: Model
    weight: Weight
    block: int
    wide: bool

    @property
    def size(self) -> int:
        """The number of entries."""
        return self.weight.size // self.weight.blocks

    def magnitude_bits(self) -> Iterator[NDArray]:
        """The bit patterns of |w| as unsigned integers (uint32, or uint64 when wide), flat, in chunks."""
        for values in self.values():
            floats = np.ascontiguousarray(values, np.float64 if self.wide else np.float32)
            yield floats.view(np.uint64 if self.wide else np.uint32) & self._no_sign

    def values(self, *, masked: bool = True) -> Iterator[NDArray]:
        """The entries as numbers, flat, in chunks; quantised ones as (q - zero point) · scale.

        `masked=False` gives pruned entries with the values they had, where the model still holds them.
        """
        source = self.model.initializers.source(self.weight.key)
        if isinstance(source, Masked) and not masked:
            source = source.base
        if self.weight.blocks == 1 and not self.weight.quantised:
            yield from source.chunks()
            return
        whole = source.array()
        if self.weight.zero_point is not None and self.weight.scale is not None:
            whole = (whole.astype(np.float32) - self.weight.zero_point.astype(np.float32)) * self.weight.scale.astype(
                np.float32
            )
        part = whole.reshape(self.weight.blocks, -1)[self.block]
        for start in range(0, part.size, CHUNK):
            yield part[start : start + CHUNK]

    def histogram(self) -> Counts:
        """Entries per bucket, int64 [32768]. Raises ModelError when one is NaN or infinite."""
        step, infinite = (4, 0x7FF0) if self.wide else (2, 0x7F80)
        counts = np.zeros(BUCKETS, np.int64)
        for keys in self.magnitude_bits():
            counts += np.bincount(keys.view(np.uint16)[step - 1 :: step] & _HALF, minlength=BUCKETS)
        bad = int(counts[infinite:].sum())
        if bad:
            raise ModelError(
                f"weight {self.weight.key!r} holds {bad} NaN or infinite values of {self.size}: "
                "magnitudes cannot be compared; export the model again, or leave it out with --skip"
            )
        return counts

    def between(self, first: int, last: int) -> NDArray:
        """The keys in buckets `first` … `last`, in file order."""
        low, high = first << self.shift, ((last + 1) << self.shift) - 1
        found = [keys[(keys >= low) & (keys <= high)] for keys in self.magnitude_bits()]
        return np.concatenate(found) if found else np.empty(0, self._no_sign.dtype)

    def energy_above(self, bucket: int) -> float:
        """The sum of squares of the entries above `bucket`, in float64."""
        edge = (bucket + 1) << self.shift
        total = 0.0
        for keys in self.magnitude_bits():
            large = (keys * (keys >= edge)).view(self.floats).astype(np.float64)
            total += float(np.square(large, out=large).sum())  # no BLAS: its threads wait for busy cores
        return total

    @property
    def floats(self) -> type[Any]:
        """The float type whose bit patterns the keys are."""
        return np.float64 if self.wide else np.float32

    @property
    def shift(self) -> int:
        """The bits of a key below those that number its bucket."""
        return 48 if self.wide else 16

    @property
    def _no_sign(self) -> Any:  # a numpy scalar of the keys' type
        return np.uint64((1 << 63) - 1) if self.wide else np.uint32((1 << 31) - 1)

    def edges(self) -> tuple[Floats, Floats]:
        """The smallest and largest |w| of each bucket, float64 [32768] each."""
        numbers = np.arange(BUCKETS, dtype=np.uint64) << np.uint64(self.shift)
        filled = numbers + np.uint64((1 << self.shift) - 1)
        if self.wide:
            return numbers.view(np.float64), filled.view(np.float64)
        with np.errstate(invalid="ignore"):  # the last buckets are NaN
            low, high = (bits.astype(np.uint32).view(np.float32).astype(np.float64) for bits in (numbers, filled))
        return low, high


@dataclass(frozen=True)
class Cut:
    """Entries with a key below `key` are pruned, and the first `ties` of those equal to it."""

    key: int
    ties: int = 0


def layers_of(model: Model, weights: tuple[Weight, ...]) -> tuple[Layer, ...]:
    """The layers of `weights`: each weight, or each of its blocks."""
    wide = any(weight.dtype == np.float64 for weight in weights)
    return tuple(Layer(model, weight, block, wide) for weight in weights for block in range(weight.blocks))


def cut_at(layer: Layer, threshold: float) -> Cut:
    """The cut that keeps |w| ≥ `threshold`."""
    with np.errstate(over="ignore"):  # past the largest float32 is infinity, which nothing reaches
        rounded = layer.floats(threshold)
    if float(rounded) < threshold:
        rounded = np.nextafter(rounded, layer.floats(np.inf))
    return Cut(int(np.array(rounded).view(np.uint64 if layer.wide else np.uint32)))


def standard_deviation(layer: Layer) -> float:
    """The standard deviation (n in the denominator) over all entries of `layer`, zeros too.

    Entries that a mask prunes count with the value they had, so that pruning twice by it prunes once.

    Raises:
        ModelError: an entry is NaN or infinite.
    """
    total = squares = 0.0
    for values in layer.values(masked=False):
        wide = values.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            total += float(wide.sum())
            squares += float(np.square(wide, out=wide).sum())
    mean = total / max(layer.size, 1)
    variance = squares / max(layer.size, 1) - mean * mean
    if not np.isfinite(variance):
        layer.histogram()
        raise ModelError(f"weight {layer.weight.key!r} is too large for a standard deviation; leave it out with --skip")
    return float(np.sqrt(max(variance, 0.0)))


def cuts_by_magnitude(layers: tuple[Layer, ...], count: int) -> list[Cut]:
    """The cuts that prune exactly the `count` smallest |w| over all `layers`, equal ones in file order."""
    histograms = [layer.histogram() for layer in layers]
    if count <= 0:
        return [Cut(0)] * len(layers)
    reached = np.cumsum(np.sum(histograms, axis=0))
    bucket = int(np.searchsorted(reached, count))
    below = int(reached[bucket - 1]) if bucket else 0
    inside = [
        layer.between(bucket, bucket) if counts[bucket] else np.empty(0, np.uint64)
        for layer, counts in zip(layers, histograms, strict=True)
    ]
    together = np.concatenate(inside)
    key = together[np.argpartition(together, count - below - 1)[count - below - 1]]
    ties_left = count - below - int((together < key).sum())
    return _with_ties([int(key)] * len(layers), [int((keys == key).sum()) for keys in inside], ties_left)


def cuts_by_lamp(layers: tuple[Layer, ...], count: int) -> list[Cut]:
    """The cuts that prune exactly the `count` entries of lowest LAMP score over all `layers`, equal ones in file
    order.
    """
    histograms = [layer.histogram() for layer in layers]
    if count <= 0:
        return [Cut(0)] * len(layers)
    ranges = _lamp_buckets(layers, histograms, count)
    keys_of, scores_of, below = [], [], 0
    for layer, counts, (first, last) in zip(layers, histograms, ranges, strict=True):
        below += int(counts[:first].sum())
        keys, scores = _lamp_scores(layer, first, last)
        keys_of.append(keys)
        scores_of.append(scores)
    together = np.concatenate(scores_of)
    wanted = count - below
    score = together[np.argpartition(together, wanted - 1)[wanted - 1]]
    ties_left = wanted - int((together < score).sum())
    cuts = []
    for layer, keys, scores, (_, last) in zip(layers, keys_of, scores_of, ranges, strict=True):
        smaller, up_to = (int(np.searchsorted(scores, score, side)) for side in ("left", "right"))
        ties = min(up_to - smaller, ties_left)
        ties_left -= ties
        cuts.append(_cut_after(keys, smaller + ties, (last + 1) << layer.shift))
    return cuts


def _cut_after(keys: NDArray, count: int, end: int) -> Cut:
    """The cut that prunes the first `count` of the sorted `keys` and everything smaller; all keys are below `end`."""
    if count == keys.size:
        return Cut(end)
    key = int(keys[count])  # the first that stays, unless equal ones before it go
    return Cut(key, count - int(np.searchsorted(keys, keys[count])))


def _lamp_buckets(layers: tuple[Layer, ...], histograms: list[Counts], count: int) -> list[tuple[int, int]]:
    """For each layer the buckets that the cut may run through: all below are pruned, all above kept.

    From the counts alone every bucket has bounds on the scores of its entries: sums of squares lie between those of
    its edges.
    """
    bounds = []
    for layer, counts in zip(layers, histograms, strict=True):
        low, high = layer.edges()
        with np.errstate(over="ignore"):
            low, high = np.where(counts, low, 0.0) ** 2, np.where(counts, high, 0.0) ** 2
            sum_low, sum_high = (np.cumsum((counts * edge)[::-1])[::-1] for edge in (low, high))
        if not np.isfinite(sum_high[0]):
            raise ModelError(f"weight {layer.weight.key!r} is too large to be squared: rank with --score magnitude")
        above = np.append(sum_low[1:], 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            bounds.append(
                (np.nan_to_num(low / sum_high) * (1 - 1e-9), np.nan_to_num(high / (above + high)) * (1 + 1e-9))
            )
    counts = np.concatenate(histograms)
    lower, upper = (np.concatenate(side) for side in zip(*bounds, strict=True))
    earliest, latest = (_reaching(side[counts > 0], counts[counts > 0], count) for side in (lower, upper))
    ranges = []
    for layer_counts, (low, high) in zip(histograms, bounds, strict=True):
        open_ = np.flatnonzero((layer_counts > 0) & (high >= earliest) & (low <= latest))
        pruned = np.flatnonzero((layer_counts > 0) & (high < earliest))
        start = int(pruned[-1]) + 1 if pruned.size else 0
        ranges.append((start, max(int(open_[-1]), start) if open_.size else start - 1))
    return ranges


def _reaching(values: Floats, counts: Counts, count: int) -> float:
    """The smallest value such that the entries at or below it number at least `count`."""
    order = np.argsort(values, kind="stable")
    return float(values[order[np.searchsorted(np.cumsum(counts[order]), count)]])


def _lamp_scores(layer: Layer, first: int, last: int) -> tuple[NDArray, Floats]:
    """The keys in buckets `first` … `last`, sorted, and the score of each; equal keys share the score over all of
    them.
    """
    keys = np.sort(layer.between(first, last)) if last >= first else np.empty(0, np.uint64)
    if not keys.size:
        return keys, np.empty(0)
    squares = keys.view(layer.floats).astype(np.float64) ** 2
    at_least = np.cumsum(squares[::-1])[::-1] + layer.energy_above(last)
    at_least = at_least[np.searchsorted(keys, keys)]  # from the first of equal keys on
    return keys, np.divide(squares, at_least, out=np.zeros_like(squares), where=at_least > 0)


def _with_ties(cut_keys: list[int], tied: list[int], ties_left: int) -> list[Cut]:
    """Cuts at `cut_keys`; `ties_left` of the entries that are equal to the cut go too, in order of the layers."""
    cuts = []
    for key, equal in zip(cut_keys, tied, strict=True):
        ties = min(equal, ties_left)
        ties_left -= ties
        cuts.append(Cut(key, ties))
    return cuts
