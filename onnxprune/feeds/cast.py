"""Arrays in the dtype that a model takes, where no value changes its meaning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnxprune_passes.errors import DataError

from onnxprune.runtime import Array, TensorSpec, is_float


def cast(where: str | Path, array: Array, spec: TensorSpec) -> Array:
    """The array in the dtype of its spec, where that keeps the meaning of every value."""
    wanted, found = spec.dtype, array.dtype
    if wanted is None:
        raise DataError(f"{where}: input {spec} cannot be given as an array; only tensor inputs are supported")
    if found == wanted or (wanted == np.dtype(object) and found.kind == "U"):
        return array
    if is_float(wanted) and is_float(found):
        with np.errstate(over="ignore"):
            rounded = array.astype(wanted)
        if np.array_equal(np.isinf(rounded), np.isinf(array)):
            return rounded
        raise DataError(f"{where}: {spec.name} has values too large for {wanted.name}; scale them as in training")
    if wanted.kind in "iub" and found.kind in "iub":
        converted = array.astype(wanted)
        if np.array_equal(converted, array):
            return converted
        low, high = int(array.min()), int(array.max())
        raise DataError(f"{where}: {spec.name} has values {low}..{high}, which {wanted.name} cannot hold; correct them")
    if is_float(wanted) and found.kind in "iub":
        raise DataError(
            f"{where}: {spec.name} is {found.name}, but the model takes {wanted.name}; store it as {wanted.name}, "
            f"scaled as the model was trained (nothing is scaled here)"
        )
    raise DataError(
        f"{where}: {spec.name} is {found.name}, but the model takes {wanted.name}; store it as {wanted.name}"
    )
