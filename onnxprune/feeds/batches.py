"""The value that data readers and the synthesiser hand to verification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune.runtime import Array, is_float


@dataclass(frozen=True)
class Feeds:
    """Batches to run a model on.

    `batches` holds, per batch, input name -> array of the dtype and shape the model declares. `labels`, when known,
    holds one integer array per batch. `note` says in one line where they came from, for the report.
    """

    batches: tuple[Mapping[str, Array], ...]
    labels: tuple[Array, ...] | None
    note: str


def feeds_as_float32(feeds: Feeds) -> Feeds:
    """The same feeds with every floating-point array as float32, for a model made by `float32_copy`."""
    batches = tuple(
        {name: array.astype(np.float32) if is_float(array.dtype) else array for name, array in batch.items()}
        for batch in feeds.batches
    )
    return Feeds(batches, feeds.labels, feeds.note)
