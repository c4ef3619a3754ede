"""What training and scoring read: samples by row number, in any order, as the model is fed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onnxprune.runtime import Array, TensorSpec


class Samples(Protocol):
    """Random access to samples."""

    @property
    def note(self) -> str:
        """One line for the report: what was read and how."""
        ...

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def batch(self, rows: NDArray[np.int64]) -> tuple[dict[str, Array], Array | None]:
        """Some samples, in the order of `rows`, which may repeat.

        Args:
            rows: int64 [B], each in 0..len − 1.

        Returns:
            The feeds by input name, of the dtype the model declares, [B, …] (along another axis where the model's
            sample axis is another one; inputs without one come whole), and the labels: int64 class indices
            [B, …], floats in the shape of the first output, or None where the data has none.

        Raises:
            DataError: a sample cannot be read; names it.
        """
        ...


def spread(total: int, count: int) -> NDArray[np.int64]:
    """At most `count` of `total` rows, evenly spread, since folders of classes come sorted; int64, ascending."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(np.int64)


def batch_size_of(specs: Sequence[TensorSpec]) -> int | None:
    """How many samples a model takes at once: its fixed first axis where all inputs agree, None where it is free."""
    sizes = {spec.shape[0] for spec in specs if spec.shape}
    (size,) = sizes if len(sizes) == 1 else (None,)
    return size if isinstance(size, int) else None
