"""Samples to train on and to score: `read_samples` reads what `--data` names."""

from __future__ import annotations

from onnxprune.samples.arrays import ArraySamples, samples_from_npz
from onnxprune.samples.base import Samples, batch_size_of, spread
from onnxprune.samples.feeds import feeds_from_data, feeds_from_samples, first_sample
from onnxprune.samples.options import DataOptions, data_options_from
from onnxprune.samples.read import read_measured, read_pair, read_samples

__all__ = [
    "ArraySamples",
    "DataOptions",
    "Samples",
    "batch_size_of",
    "data_options_from",
    "feeds_from_data",
    "feeds_from_samples",
    "first_sample",
    "read_measured",
    "read_pair",
    "read_samples",
    "samples_from_npz",
    "spread",
]
