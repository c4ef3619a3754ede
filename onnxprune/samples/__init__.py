"""Samples to train on and to score: `read_samples` reads what `--data` names."""

from __future__ import annotations

from onnxprune.samples.arrays import ArraySamples, samples_from_npz
from onnxprune.samples.base import Samples, batch_size_of
from onnxprune.samples.read import read_samples

__all__ = ["ArraySamples", "Samples", "batch_size_of", "read_samples", "samples_from_npz"]
