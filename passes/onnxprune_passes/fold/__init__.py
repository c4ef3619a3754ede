"""Passes that make a graph simpler around the weights: what changes nothing, and what nothing uses, goes."""

from __future__ import annotations

from .batch_norm import FoldBatchNorm
from .no_ops import RemoveNoOps
from .unused import RemoveUnused

__all__ = ["FoldBatchNorm", "RemoveNoOps", "RemoveUnused"]
