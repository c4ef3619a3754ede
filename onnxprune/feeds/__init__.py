"""What to run a model on: the user's arrays from an .npz file, or seeded random ones that fit the graph."""

from __future__ import annotations

from onnxprune.feeds.batches import Feeds, feeds_as_float32
from onnxprune.feeds.npz import BATCH_SIZE, LABELS, feeds_from_npz
from onnxprune.feeds.synthesize import synthesize_feeds

__all__ = ["BATCH_SIZE", "LABELS", "Feeds", "feeds_as_float32", "feeds_from_npz", "synthesize_feeds"]
