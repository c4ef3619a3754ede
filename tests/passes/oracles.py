"""What magnitude pruning should do, said in a few plain lines: everything is sorted, nothing is clever."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from builders import NDArray


def magnitudes(layer: NDArray) -> NDArray:
    found: NDArray = np.abs(layer.astype(np.float64)).reshape(-1)
    return found


def lamp(layer: NDArray) -> list[Fraction]:
    """w² over the sum of all v² with |v| ≥ |w| (Lee et al. 2021, eq. 3), exactly."""
    squares = [Fraction(float(w)) ** 2 for w in layer.astype(np.float64).reshape(-1)]
    sums = {square: sum((other for other in squares if other >= square), Fraction(0)) for square in set(squares)}
    return [square / sums[square] if sums[square] else Fraction(0) for square in squares]


def kept(scores: Sequence[Any], shapes: Sequence[tuple[int, ...]], count: int) -> list[NDArray]:
    """One mask a layer: all but the `count` smallest of all scores, equal ones by position."""
    flat = [score for layer in scores for score in layer]
    order = sorted(range(len(flat)), key=lambda at: (flat[at], at))
    keep = np.ones(len(flat), np.bool_)
    keep[order[:count]] = False
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(keep, ends[:-1]), shapes, strict=True)]


def count_of(sparsity: float, size: int) -> int:
    return int(np.floor(sparsity * size + 0.5))
