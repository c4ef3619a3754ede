"""N:M sparsity: the N largest of every M neighbours along the input axis are kept."""

from __future__ import annotations

import numpy as np

from .arrays import CHUNK, NDArray
from .masks import BoolArray


def nm_keep(magnitudes: NDArray, in_axis: int, n: int, m: int) -> BoolArray:
    """The mask that keeps the `n` largest of every `m` entries along `in_axis`; of equal ones the later stay.

    Args:
        magnitudes: |w|, any shape and real dtype.
        in_axis: the axis that is summed over.
        n: kept entries a group.
        m: entries a group; what is left over at the end of the axis is kept whole.

    Returns:
        bool array of the shape of `magnitudes`.
    """
    moved = np.moveaxis(magnitudes, in_axis, -1)
    whole = moved.shape[-1] // m * m
    keep = np.ones(moved.shape, np.bool_)
    rows = moved.reshape(-1, moved.shape[-1])
    kept = keep.reshape(rows.shape)
    step = max(CHUNK // max(rows.shape[1], 1), 1)
    for start in range(0, len(rows) if whole else 0, step):
        groups = rows[start : start + step, :whole].reshape(-1, m)
        order = np.argsort(groups, axis=1, kind="stable")
        part = np.ones(groups.shape, np.bool_)
        np.put_along_axis(part, order[:, : m - n], values=False, axis=1)
        kept[start : start + step, :whole] = part.reshape(-1, whole)
    return np.moveaxis(keep, -1, in_axis)
