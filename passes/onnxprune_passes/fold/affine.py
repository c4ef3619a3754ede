"""What a BatchNormalization does to each channel, and weights that do it themselves.

In inference y = γ · (x − mean) / √(variance + ε) + β (Ioffe and Szegedy, "Batch Normalization", 2015, Algorithm 2).
All of it in float64, rounded once to the weight's type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from ..arrays import CHUNK, Array, Masked, NDArray

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Affine:
    """y = scale · (x − mean) + offset, one number a channel each: float64 [C]."""

    scale: Float64
    mean: Float64
    offset: Float64

    @property
    def is_finite(self) -> bool:
        """False where a variance is negative, or something is NaN or infinite."""
        return all(bool(np.isfinite(one).all()) for one in (self.scale, self.mean, self.offset))

    def of(self, values: Float64) -> Float64:
        """What becomes of the numbers `values` [C]."""
        return self.scale * (values - self.mean) + self.offset


def affine_from(gamma: NDArray, beta: NDArray, mean: NDArray, variance: NDArray, epsilon: float) -> Affine:
    """What a BatchNormalization with these vectors [C] does."""
    wide = [one.reshape(-1).astype(np.float64) for one in (gamma, beta, mean, variance)]
    with np.errstate(all="ignore"):
        return Affine(wide[0] / np.sqrt(wide[3] + epsilon), wide[2], wide[1])


def part_factors(op_type: str, shape: tuple[int, ...], scale: Float64, *, out_axis: int, groups: int) -> list[Float64]:
    """The factors of a weight, to be broadcast to equal parts of it along axis 0.

    One part, but for a grouped ConvTranspose, whose channels are numbered group by group: [in, out / groups, …].
    """
    laid = [1] * len(shape)
    laid[out_axis] = -1
    if op_type != "ConvTranspose":
        return [scale.reshape(laid)]
    return [part.reshape(laid) for part in np.split(scale, groups)]


def scaled(source: Array | Masked, factors: Sequence[Float64]) -> Array | Masked | None:
    """`source` times `factors` (see `part_factors`), in its own type; zeros stay +0, and a mask stays.

    None when the type cannot hold the result: an entry leaves its range, or all of a channel is so small that
    roundings are no longer small beside it.
    """
    base = source.base.values if isinstance(source, Masked) and source.fill is None else source.array()
    result = np.empty(base.shape, base.dtype)
    rows = base.shape[0] // len(factors)
    eps = float(ml_dtypes.finfo(base.dtype).eps)  # type: ignore[no-untyped-call]
    for index, factor in enumerate(factors):
        worst, peak = np.zeros(factor.shape), np.zeros(factor.shape)
        for start, stop in _steps(index * rows, (index + 1) * rows, base.size // max(base.shape[0], 1)):
            along = slice(None) if factor.shape[0] == 1 else slice(start, stop)
            with np.errstate(all="ignore"):
                product = base[start:stop].astype(np.float64) * factor[along]
                rounded = product.astype(base.dtype)
                rounded[rounded == 0] = 0  # -0 too
                error = np.abs(rounded.astype(np.float64) - product)
            result[start:stop] = rounded
            axes = tuple(axis for axis, size in enumerate(factor.shape) if size == 1)
            worst[along] = np.maximum(worst[along], error.max(axis=axes, keepdims=True, initial=0))
            peak[along] = np.maximum(peak[along], np.abs(product).max(axis=axes, keepdims=True, initial=0))
        if not bool((worst <= eps * peak).all()):
            return None
    if isinstance(source, Masked) and source.fill is None:
        return Masked(Array(result), source.bits)
    return Array(result)


def _steps(start: int, stop: int, row: int) -> Iterator[tuple[int, int]]:
    """Runs of rows of about `CHUNK` entries, `row` entries each."""
    step = max(CHUNK // max(row, 1), 1)
    for first in range(start, stop, step):
        yield first, min(first + step, stop)


def rounded_to(values: Float64, dtype: np.dtype[Any]) -> NDArray | None:
    """`values` in `dtype`; None when one leaves its range."""
    with np.errstate(all="ignore"):
        result: NDArray = values.astype(dtype)
    return result if bool(np.isfinite(result.astype(np.float64)).all()) else None
