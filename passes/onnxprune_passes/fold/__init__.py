"""Passes that make a graph simpler around the weights: what changes nothing, and what nothing uses, goes."""

from __future__ import annotations

from .batch_norm import FoldBatchNorm
from .live_inputs import GatherLiveInputs
from .no_ops import RemoveNoOps
from .unused import RemoveUnused

__all__ = ["FoldBatchNorm", "GatherLiveInputs", "RemoveNoOps", "RemoveUnused"]
