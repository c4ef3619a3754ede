"""How many channels of which group go, the weakest first: counts, rounding, floors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .coupled import CoupledGroup
from .strength import Floats


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


def counts_for(group: CoupledGroup, round_to: int, floor: int) -> Counts:
    """How many channels of `group` may stay. Heads are several coordinates wide, and it is those that are rounded."""
    width = min((group.axes[axis] for axis in group.made_by), default=1) if group.kinds == ("head",) else 1
    return Counts(round_to // math.gcd(round_to, width), floor)


def sparsity_from(value: float) -> Fraction:
    """The decimal number that `value` is written as, so that 0.29 of 100 is 29."""
    return Fraction(repr(float(value)))


def weakest(strengths: Floats, sparsity: float, counts: Counts) -> npt.NDArray[np.intp]:
    """The places of the weakest channels of a group, as many as `sparsity` asks for."""
    kept = counts.kept(strengths.size, sparsity_from(sparsity))
    return np.argsort(strengths, kind="stable")[: strengths.size - kept]


def weakest_of_all(
    strengths: Sequence[Floats], sparsity: float, counts: Sequence[Counts]
) -> list[npt.NDArray[np.intp]]:
    """For each group the places of the channels that go: at most `sparsity` of all channels, the weakest first.

    A channel counts relative to the mean of its group. They go in the steps that rounding allows, by the mean of a
    step; steps that would exceed the count are passed over.
    """
    left = math.floor(sum(one.size for one in strengths) * sparsity_from(sparsity))
    orders = [np.argsort(one, kind="stable") for one in strengths]
    every: list[tuple[float, int, int, int]] = []
    for index, (one, order) in enumerate(zip(strengths, orders, strict=True)):
        mean = float(one.mean()) or 1.0
        spans = list(pairwise(counts[index].steps(one.size)))
        weights = np.maximum.accumulate([0.0, *(float(one[order[start:stop]].mean()) / mean for start, stop in spans)])
        every += [(weight, index, *span) for weight, span in zip(weights.tolist()[1:], spans, strict=True)]
    gone = [0] * len(orders)
    for _, index, start, stop in sorted(every):
        if gone[index] == start and stop - start <= left:
            gone[index] = stop
            left -= stop - start
    return [order[:count] for order, count in zip(orders, gone, strict=True)]


def weakest_of_each(
    strengths: Sequence[Floats], sparsities: Sequence[float | None], counts: Sequence[Counts], shared: float
) -> list[npt.NDArray[np.intp]]:
    """For each group the places of the channels that go, by its own sparsity; those that have none share one ranking.

    `shared`: the sparsity of all those together; see `weakest_of_all`.
    """
    together = [at for at, value in enumerate(sparsities) if value is None]
    places = {at: weakest(strengths[at], value, counts[at]) for at, value in enumerate(sparsities) if value is not None}
    ranked = weakest_of_all([strengths[at] for at in together], shared, [counts[at] for at in together])
    places.update(zip(together, ranked, strict=True))
    return [places[at] for at in range(len(sparsities))]
