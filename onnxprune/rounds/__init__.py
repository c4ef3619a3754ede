"""Pruning in rounds: a little, retrain, measure, a little more (Han et al. 2015, section 3.4)."""

from __future__ import annotations

from .records import Measure, Round, Rounds, Unit
from .run import MaxDropError, Target, Trained, Trainer, prune_in_rounds
from .schedule import targets_from
from .store import RoundStore

__all__ = [
    "MaxDropError",
    "Measure",
    "Round",
    "RoundStore",
    "Rounds",
    "Target",
    "Trained",
    "Trainer",
    "Unit",
    "prune_in_rounds",
    "targets_from",
]
