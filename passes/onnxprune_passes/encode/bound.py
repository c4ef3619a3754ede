"""What no code can go under that knows of a tensor only how often each thing occurs."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ..arrays import TensorSource, bits_of
from .counts import Counts
from .int8 import scales_of, to_int8

_MANTISSA = 24
"""Bits of a float32 that are not its exponent; they are taken to be random."""


def bound_nbytes(source: TensorSource, counts: Counts) -> float:
    """Bytes of the positions of the kept entries, at their entropy, and of their values.

    Values are at their entropy too where they are few enough for a codebook (which is counted, but for 0), or int8 with
    a scale for each channel (which are counted); of other float32 tensors the exponents are; others take the bits that
    they have.
    """
    dropped = counts.size - counts.kept
    positions = counts.size * entropy((counts.kept, dropped))
    distinct = counts.values.distinct
    axis = counts.values.channel_axis
    scales = None if axis is None else scales_of(source, axis)
    if scales is not None and axis is not None:
        whole = to_int8(source, scales, axis)
        times = np.bincount(whole.reshape(-1).view(np.uint8), minlength=256)
        values = counts.kept * entropy(times[1:].tolist()) + 32 * scales.size
    elif distinct is not None:
        table = np.array(distinct, f"u{counts.dtype.itemsize}")
        times = np.zeros(table.size, np.int64)
        for chunk in source.chunks():
            bits = bits_of(chunk)
            times += np.bincount(np.searchsorted(table, bits[bits != 0]), minlength=table.size)
        values = counts.kept * entropy(times.tolist()) + 8 * table.nbytes
    elif any(counts.values.exponents):
        values = counts.kept * (_MANTISSA + entropy(counts.values.exponents))
    else:
        values = counts.kept * 8 * counts.dtype.itemsize
    return (positions + min(values, counts.kept * 8 * counts.dtype.itemsize)) / 8


def entropy(times: Iterable[int]) -> float:
    """Bits for each occurrence, when things occur so many times."""
    present = [number for number in times if number]
    total = sum(present)
    return -sum(number / total * math.log2(number / total) for number in present)
