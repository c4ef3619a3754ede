"""The rounds themselves: prune, train, measure, keep, and the choice among them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnxprune_passes.errors import DataError, OnnxPruneError
from onnxprune_passes.pipeline import State
from onnxprune_passes.weights import find_weights

from .records import Measure, Round, Rounds, Unit
from .store import RoundStore

_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Trained:
    """A state after training, the metric before and after it, and how many epochs it took."""

    state: State
    before: float | None
    after: float | None
    epochs: int


@dataclass(frozen=True, eq=False)
class Trainer:
    """What trains, and what measures.

    Attributes:
        train: (state, number of the round) → what the training gave.
        measure: state → what it measures on the same samples; None when nothing is measured.
    """

    train: Callable[[State, int], Trained]
    measure: Callable[[State], Measure | None]


@dataclass(frozen=True)
class Target:
    """What one round prunes with, and how the report says it."""

    prune: Callable[[State], State]
    unit: Unit
    value: float | None


class MaxDropError(OnnxPruneError):
    """No round kept the metric within what was allowed; `rounds` holds the table."""

    def __init__(self, rounds: Rounds) -> None:
        self.rounds = rounds
        measured = [one for one in rounds.rounds if one.metric is not None]
        assert rounds.dense is not None  # else nothing could be out of bounds
        best = min(measured, key=lambda one: rounds.dense.drop_to(one.metric or 0.0), default=None)  # type: ignore[union-attr]
        found = "" if best is None else f"; the nearest is round {best.number} with {best.metric:.4g}"
        super().__init__(
            f"no round is within --max-drop {rounds.max_drop:g} of the model's {rounds.dense.metric} "
            f"{rounds.dense.value:.4g}{found}: allow more, prune less, or train longer"
        )


def prune_in_rounds(
    state: State, targets: Sequence[Target], trainer: Trainer, store: RoundStore, max_drop: float | None = None
) -> tuple[State, Rounds]:
    """Prune `state` to each of `targets` in turn and train after each.

    Each round begins with what the one before gave. Finished rounds of `store` are not done again.

    Args:
        max_drop: take the last round whose metric is at most so much worse than that of `state`; None takes the last.

    Returns:
        The state after the round that is taken, and all rounds.

    Raises:
        MaxDropError: no round is within `max_drop`.
        DataError: `max_drop` is given and nothing is measured; a finished round cannot be read.
        What the passes and the training raise.
    """
    resumed = len(store.rounds)
    dense = store.dense if resumed else trainer.measure(state)
    if max_drop is not None and dense is None:
        raise DataError("--max-drop needs a metric: give --data with labels, and --validation or --validation-data")
    now = store.state(resumed) if resumed else state
    entries = entries_of(state)
    for number, target in enumerate(targets, start=1):
        if number <= resumed:
            continue
        start = time.perf_counter()
        trained = trainer.train(target.prune(now), number)
        now = trained.state
        one = Round(
            number=number,
            unit=target.unit,
            target=target.value,
            density=kept_of(now) / max(entries, 1),
            metric_before=trained.before,
            metric=trained.after,
            epochs=trained.epochs,
            seconds=time.perf_counter() - start,
        )
        store.add(one, now, dense)
    taken = _taken(store.rounds, dense, max_drop)
    rounds = Rounds(dense=dense, max_drop=max_drop, rounds=store.rounds, taken=taken, resumed=resumed)
    if taken is None:
        raise MaxDropError(rounds)
    return (now if taken == len(targets) else store.state(taken)), rounds


def entries_of(state: State) -> int:
    """Entries of the prunable weights."""
    return sum(weight.size for weight in find_weights(state.model))


def kept_of(state: State) -> int:
    """Entries of the prunable weights that are not zero."""
    kept = 0
    for weight in find_weights(state.model):
        zero = 0 if weight.zero_point is None else weight.zero_point
        kept += int(np.count_nonzero(state.model.initializers[weight.key] != zero))
    return kept


def _taken(rounds: Sequence[Round], dense: Measure | None, max_drop: float | None) -> int | None:
    """The number of the last round within `max_drop` of `dense`."""
    if max_drop is None or dense is None:
        return rounds[-1].number
    within = [
        one.number for one in rounds if one.metric is not None and dense.drop_to(one.metric) <= max_drop + _ROUNDING
    ]
    return max(within, default=None)
