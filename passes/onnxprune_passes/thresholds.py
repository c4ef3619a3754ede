"""What a magnitude prune is asked for: four frozen values, each checked when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .errors import SelectionError

Scope = Literal["global", "layer"]
Score = Literal["lamp", "magnitude"]


def checked_sparsity(value: float) -> float:
    """`value` when it is a sparsity, 0 ≤ value < 1. Raises SelectionError otherwise."""
    if not 0 <= value < 1:
        raise SelectionError(
            f"a sparsity is a share of zeros, 0 <= sparsity < 1; found {value:g} (90 % is written 0.9)"
        )
    return value


def checked_threshold(value: float, what: str) -> float:
    """`value` when it is finite and not negative. Raises SelectionError naming `what` otherwise."""
    if not (math.isfinite(value) and value >= 0):
        raise SelectionError(f"a {what} is a finite number >= 0; found {value:g}")
    return value


@dataclass(frozen=True)
class Sparsity:
    """Zero the smallest entries until a share `value` of them is zero, those that were zero already counted.

    The count is exact: floor(value · n + ½) of n entries; equal ones go by position, first first.

    Attributes:
        value: the target sparsity, 0 ≤ value < 1.
        scope: `global` ranks all selected weights together, `layer` each on its own.
        score: what is ranked, with scope `global`: `magnitude` = |w|, or `lamp` = w² / Σ v² over the entries v of
            the layer with |v| ≥ |w| (Lee et al. 2021, "Layer-adaptive sparsity for the magnitude-based pruning", eq.
            3). Within a layer both rank alike.
    """

    value: float
    scope: Scope = "global"
    score: Score = "lamp"

    def __post_init__(self) -> None:
        checked_sparsity(self.value)
        if self.scope not in ("global", "layer"):
            raise SelectionError(f"scope is 'global' or 'layer'; found {self.scope!r}")
        if self.score not in ("lamp", "magnitude"):
            raise SelectionError(f"score is 'lamp' or 'magnitude'; found {self.score!r}")


@dataclass(frozen=True)
class Quality:
    """Keep |w| ≥ q · std(layer): the quality parameter of Han et al. 2015, section 3; std over all entries of the
    layer, zeros too.
    """

    q: float

    def __post_init__(self) -> None:
        checked_threshold(self.q, "quality parameter")


@dataclass(frozen=True)
class Absolute:
    """Keep |w| ≥ threshold, in the unit of the weights."""

    threshold: float

    def __post_init__(self) -> None:
        checked_threshold(self.threshold, "threshold")


@dataclass(frozen=True)
class NM:
    """Keep the `n` largest of every `m` entries that follow each other along the input axis (2:4 is NM(2, 4))."""

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 0 < self.n <= self.m:
            raise SelectionError(f"N:M keeps N of every M entries, 0 < N <= M; found {self.n}:{self.m}")


Threshold = Sparsity | Quality | Absolute | NM
