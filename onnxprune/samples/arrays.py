"""Samples of arrays in memory: those of an `.npz` file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxprune_passes.errors import DataError

from onnxprune.feeds.layout import Layout, layout_of
from onnxprune.feeds.npz import counted_labels, misfit, read_npz
from onnxprune.runtime import Array, TensorSpec


@dataclass(frozen=True)
class ArraySamples:
    """Arrays by input name, cut along the sample axes of `layout`; `labels` [samples, …] or None."""

    arrays: Mapping[str, Array]
    labels: Array | None
    layout: Layout
    note: str

    def __len__(self) -> int:
        return self.layout.samples

    def batch(self, rows: NDArray[np.int64]) -> tuple[dict[str, Array], Array | None]:
        """Copies of the rows; see `Samples.batch`."""
        if self.layout.stacked and len(rows) != 1:
            raise DataError(
                f"{self.note}: each sample is a whole batch for this model; take one at a time (--batch-size 1)"
            )
        labels = None if self.labels is None else self.labels[rows[0] if self.layout.stacked else rows]
        return self.layout.take(self.arrays, rows), labels


def samples_from_npz(path: str | Path, specs: Sequence[TensorSpec]) -> ArraySamples:
    """The samples of an `.npz` file: arrays named after the model's inputs, and `labels`.

    `labels` holds class indices (integers), or floats in the shape of the first output; first axis = samples. Where
    samples are looked for is said in `onnxprune.feeds.layout`.

    Raises:
        DataError: as `onnxprune.feeds.feeds_from_npz`; or the arrays have no sample axis in common.
    """
    data = read_npz(path, specs)
    layout = layout_of(specs, data.arrays)
    if layout is None or not layout.samples:
        raise misfit(path, specs, data.arrays)
    labels = counted_labels(path, data.labels, layout.samples)
    return ArraySamples(data.arrays, labels, layout, f"{Path(path).name}: {layout.samples} samples")
