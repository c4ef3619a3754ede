"""How many entries of a weight mean zero."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnxprune_passes.arrays import bits_of
from onnxprune_passes.model import Model
from onnxprune_passes.weights import Weight


def count_zeros(model: Model, weight: Weight) -> int:
    """Entries of `weight` that mean zero: +0, −0, or the zero point of a quantised weight."""
    source = model.initializers.source(weight.key)
    if weight.zero_point is None or not weight.zero_point.any():
        return sum(chunk.size - _nonzero(chunk) for chunk in source.chunks())
    zero = np.broadcast_to(weight.zero_point, weight.shape).reshape(-1)
    zeros = start = 0
    for chunk in source.chunks():
        zeros += int(np.count_nonzero(chunk == zero[start : start + chunk.size]))
        start += chunk.size
    return zeros


def _nonzero(chunk: npt.NDArray[Any]) -> int:
    """How many entries are not zero; the types of ml_dtypes have no fast count of their own."""
    return int(np.count_nonzero(chunk if chunk.dtype.kind in "fiu" else bits_of(chunk) << 1))
