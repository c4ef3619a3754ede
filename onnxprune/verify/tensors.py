"""Whether two arrays are the same, byte for byte."""

from __future__ import annotations

import numpy as np

from onnxprune.runtime import Array


def same_bytes(before: Array, after: Array) -> bool:
    """Whether two arrays have equal dtype, shape and bytes (−0.0 differs from 0.0, a NaN equals itself)."""
    if before.dtype != after.dtype or before.shape != after.shape:
        return False
    if before.dtype.kind == "O":
        return bool(np.array_equal(before, after))
    flat_before, flat_after = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (before, after))
    return bool(np.array_equal(flat_before, flat_after))
