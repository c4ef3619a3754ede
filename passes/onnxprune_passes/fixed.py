"""Weights that are not learned: Fourier bases, mel or ERB filter banks, triangular masks. Zeroing their small
entries breaks them.

A weight looks like a fixed transform when at least 90 % of its filters are windowed sinusoids (one spectral peak
holds at least 90 % of the energy, and the filters have their peaks at different frequencies), when at least 90 % of
its rows or columns are non-negative triangles on mostly zeros whose peaks move along from one to the next, or when it
is a triangular mask (a square of two values, one below the diagonal and the other above; the diagonal may go with
either).
"""

from __future__ import annotations

import numpy as np

from .arrays import Masked, NDArray
from .model import Model
from .weights import Weight

_SHARE = 0.9
_MIN_FILTERS = 8
_MIN_LENGTH = 32
_PAD = 4
_LOBE = 2 * _PAD
"""Half the width of a peak, in bins of the padded spectrum: the main lobe of a Hann window is 2 bins to each side."""
_PROBE = 16


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # NaN and infinity look like nothing
def fixed_transform(model: Model, weight: Weight) -> str | None:
    """Why `weight` looks like a fixed transform (`sinusoids`, `triangular filters`, `triangular mask`), or None.

    Entries that a mask prunes are seen with the values they had, so that a later prune judges alike.
    """
    if weight.quantised or not weight.uses or weight.kind in ("rnn", "embedding"):
        return None
    use = weight.uses[0]
    if use.out_axis is None or len(weight.shape) < 2:
        return None
    rows, length = weight.shape[use.out_axis], weight.size // max(weight.shape[use.out_axis], 1)
    if rows < _MIN_FILTERS or length < _MIN_FILTERS:
        return None
    source = model.initializers.source(weight.key)
    values = (source.base if isinstance(source, Masked) else source).array()
    filters = np.moveaxis(values, use.out_axis, 0)
    probe = _as_rows(filters[:: max(rows // _PROBE, 1)])
    one_line = sum(size > 1 for size in filters.shape[1:]) == 1  # along time, or a matrix: not an image filter
    if one_line and length >= _MIN_LENGTH and _sinusoids(probe) >= _SHARE / 2:
        whole = _as_rows(filters)
        if _sinusoids(whole) >= _SHARE and _frequencies(whole) >= max(rows // 3, _MIN_FILTERS // 2):
            return "sinusoids"
    if len(weight.shape) == 2:
        if rows == length and _is_triangular_mask(filters):
            return "triangular mask"
        if bool((probe >= 0).all()) and _is_filter_bank(_as_rows(filters)):
            return "triangular filters"
    return None


def _as_rows(filters: NDArray) -> NDArray:
    return filters.reshape(filters.shape[0], -1).astype(np.float64)


def _spectra(rows: NDArray) -> NDArray:
    spectra: NDArray = np.abs(np.fft.rfft(rows, n=_PAD * rows.shape[1], axis=1)) ** 2
    return spectra


def _frequencies(rows: NDArray) -> int:
    """The number of bins of the unpadded spectrum that hold the peak of a row; learned smooth filters share a few."""
    return np.unique(np.round(_spectra(rows).argmax(axis=1) / _PAD)).size


def _sinusoids(rows: NDArray) -> float:
    """The share of rows of which one spectral peak holds at least 90 % of the energy; rows of zeros are left out."""
    rows = rows[np.abs(rows).sum(axis=1) > 0]
    if not rows.size:
        return 0.0
    spectra = _spectra(rows)
    bins = np.arange(spectra.shape[1])
    near = np.abs(bins - spectra.argmax(axis=1)[:, None]) <= _LOBE
    share = (spectra * near).sum(axis=1) / spectra.sum(axis=1)
    return float((share >= _SHARE).mean())


def _is_filter_bank(rows: NDArray) -> bool:
    """True when `rows` or its columns are non-negative triangles on zeros."""
    if (rows < 0).any() or (rows > 0).mean() > 0.5 or not rows.any():
        return False
    return any(_triangles(side) >= _SHARE for side in (rows, rows.T))


def _triangles(rows: NDArray) -> float:
    """The share of the rows that are not all zero in which one run of entries rises and then falls; 0 when the peaks
    do not move along from row to row, as in a pruned matrix.
    """
    rows = rows[rows.any(axis=1)]
    if len(rows) < _MIN_FILTERS or rows.shape[1] < _MIN_FILTERS:
        return 0.0
    peaks = rows.argmax(axis=1)
    moves = np.diff(peaks)
    if max((moves >= 0).mean(), (moves <= 0).mean()) < _SHARE or np.unique(peaks).size < min(rows.shape) // 2:
        return 0.0
    steps = np.diff(np.pad(rows, ((0, 0), (1, 1))), axis=1)
    falls = np.maximum.accumulate(steps < 0, axis=1)
    return float((~(falls & (steps > 0)).any(axis=1)).mean())


def _is_triangular_mask(square: NDArray) -> bool:
    """True when row i is one value up to the diagonal and another behind it; rows that differ end the look."""
    low, high, at = square[-1, 0], square[0, -1], np.arange(len(square))
    end = at + (square[0, 0] == low)  # where the values above the diagonal begin
    return bool(low != high) and all(
        np.array_equal(square[row], np.where(at < end[row], low, high)) for row in at[::-1]
    )
