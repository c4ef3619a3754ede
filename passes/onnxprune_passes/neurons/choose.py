"""How strong each channel of a group is, and how many of which group go: counts, rounding, floors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..arrays import CHUNK, Array, Masked
from ..weights import Weight
from .coupled import CoupledGroup, Coupling

Floats = npt.NDArray[np.float64]
Norm = Literal["l1", "l2"]
Reduce = Literal["sum", "mean"]


@dataclass(frozen=True)
class Counts:
    """How many channels a group of n keeps.

    Attributes:
        round_to: what stays is a multiple of this, where n is more than this.
        floor: at least so many stay, or all n where n is less.
    """

    round_to: int
    floor: int

    def kept(self, size: int, sparsity: Fraction) -> int:
        """How many of `size` stay at `sparsity`: size - floor(size x sparsity), rounded up."""
        kept = max(size - math.floor(size * sparsity), self.floor, 1)
        if size > self.round_to:
            kept = -(-kept // self.round_to) * self.round_to
        return min(kept, size)

    def steps(self, size: int) -> list[int]:
        """How many may go: 0 first, then every greater number that leaves an allowed count."""
        allowed = {size - self.kept(size, Fraction(gone, size)) for gone in range(size)} if size else {0}
        return sorted(allowed)


def sparsity_from(value: float) -> Fraction:
    """The decimal number that `value` is written as, so that 0.29 of 100 is 29."""
    return Fraction(repr(float(value)))


def scores(
    found: Coupling, groups: Sequence[CoupledGroup], weights: Mapping[str, Weight], norm: Norm, reduce: Reduce
) -> list[Floats]:
    """For each group one number a channel, float64 [n]: the norm of all weights that make or read it.

    `sum`: of all their entries together. `mean`: the mean of |w| (l1) or its root mean square (l2) of each slice,
    averaged over the slices, so that large weights do not outvote small ones. Quantised weights count as the numbers
    that they stand for; other integers are left out.
    """
    total = np.zeros(found.label.size)
    slices = np.zeros(found.label.size)
    for axis in dict.fromkeys(one for group in groups for one in (*group.made_by, *group.read_by)):
        source = found.trace.graph.model.initializers.source(axis[0])
        weight = weights.get(axis[0])
        if source.dtype.kind in "iub" and (weight is None or not weight.quantised):
            continue
        ids = found.trace.bases[axis]
        powers = slice_powers(source, axis[1], norm, weight)
        if reduce == "mean":
            powers = powers / max(1, source.size // source.shape[axis[1]])
            powers = np.sqrt(powers) if norm == "l2" else powers
        here = ids >= 0
        np.add.at(total, found.label[ids[here]], powers[here])
        np.add.at(slices, found.label[ids[here]], 1)
    if reduce == "mean":
        total = total / np.maximum(slices, 1)
    elif norm == "l2":
        total = np.sqrt(total)
    return [total[group.channels] for group in groups]


def slice_powers(source: Array | Masked, axis: int, norm: Norm, weight: Weight | None = None) -> Floats:
    """Along `axis` of a tensor the sum of |w| (l1) or w² (l2) of each slice: float64 [size of the axis].

    `weight`: what is known of the tensor; a quantised one stands for (q - zero point) x scale.
    """
    values = source.array()
    if weight is not None and weight.zero_point is not None:
        scale = np.ones(()) if weight.scale is None else weight.scale.astype(np.float64)
        values = (values.astype(np.float64) - weight.zero_point) * scale
    found = np.zeros(values.shape[axis])
    others = tuple(one for one in range(values.ndim) if one != axis)
    step = max(1, CHUNK // max(1, math.prod(values.shape[1:])))
    for start in range(0, values.shape[0], step):
        block = values[start : start + step].astype(np.float64)
        powers = (np.abs(block) if norm == "l1" else np.square(block)).sum(axis=others)
        if axis == 0:
            found[start : start + step] = powers
        else:
            found += powers
    return found


def chosen_by_group(strengths: Iterable[Floats], sparsity: float, counts: Counts) -> list[npt.NDArray[np.intp]]:
    """For each group the places of its weakest channels, as many as `sparsity` of the group asks for."""
    share = sparsity_from(sparsity)
    return [np.argsort(one, kind="stable")[: one.size - counts.kept(one.size, share)] for one in strengths]


def chosen_globally(strengths: Sequence[Floats], sparsity: float, counts: Counts) -> list[npt.NDArray[np.intp]]:
    """For each group the places of the channels that go: at most `sparsity` of all channels, the weakest first.

    A channel counts relative to the mean of its group. They go in the steps that rounding allows, by the mean of a
    step; steps that would exceed the count are passed over.
    """
    left = math.floor(sum(one.size for one in strengths) * sparsity_from(sparsity))
    orders = [np.argsort(one, kind="stable") for one in strengths]
    every: list[tuple[float, int, int, int]] = []
    for index, (one, order) in enumerate(zip(strengths, orders, strict=True)):
        mean = float(one.mean()) or 1.0
        spans = list(pairwise(counts.steps(one.size)))
        weights = np.maximum.accumulate([0.0, *(float(one[order[start:stop]].mean()) / mean for start, stop in spans)])
        every += [(weight, index, *span) for weight, span in zip(weights.tolist()[1:], spans, strict=True)]
    gone = [0] * len(orders)
    for _, index, start, stop in sorted(every):
        if gone[index] == start and stop - start <= left:
            gone[index] = stop
            left -= stop - start
    return [order[:count] for order, count in zip(orders, gone, strict=True)]
