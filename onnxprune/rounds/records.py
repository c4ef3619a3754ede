"""What pruning in rounds found."""

from __future__ import annotations

from typing import Literal

import msgspec

Unit = Literal["sparsity", "quality", "threshold", "nm", "channels"]


class Measure(msgspec.Struct, frozen=True):
    """What a model measures on the validation samples.

    Attributes:
        metric: the metric's name.
        value: in its own unit.
        larger_is_better: which way it points.
    """

    metric: str
    value: float
    larger_is_better: bool

    def drop_to(self, other: float) -> float:
        """How much worse `other` is than this."""
        return self.value - other if self.larger_is_better else other - self.value


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One round: prune to `target`, then train.

    Attributes:
        number: from 1.
        unit: what `target` is: a sparsity, a quality parameter, and so on.
        target: what was pruned to; null for N:M, and where only channels were pruned.
        density: entries that are kept ÷ entries of the model as it came, over the prunable weights.
        metric_before: on the validation samples, pruned and not yet trained; null where nothing is measured.
        metric: the same after training.
        epochs: how many epochs were trained.
        seconds: wall time.
    """

    number: int
    unit: Unit
    target: float | None
    density: float
    metric_before: float | None
    metric: float | None
    epochs: int
    seconds: float


class Rounds(msgspec.Struct, frozen=True, kw_only=True):
    """All rounds of a run, and which one was taken.

    Attributes:
        dense: what the model as it came measures, on the same samples; null when nothing is measured.
        max_drop: how much worse than `dense` the taken round may be, in the metric's unit; null: any.
        rounds: every round, in order, those that an interrupted run had finished included.
        taken: the number of the round whose model was taken; null when none is within `max_drop`.
        resumed: how many of them an interrupted run had finished.
    """

    dense: Measure | None
    max_drop: float | None
    rounds: tuple[Round, ...]
    taken: int | None
    resumed: int
