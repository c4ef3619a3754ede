"""Class scores: which output holds them, how often two agree on the first class, how often it is the label."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnxprune_passes.errors import DataError

from onnxprune.runtime import Array, is_float


def looks_like_scores(array: Array) -> bool:
    """Whether an output may hold class scores: floating point, rank 2 or more, more than one entry on the last axis."""
    return is_float(array.dtype) and array.ndim >= 2 and array.shape[-1] > 1


def top1(scores: Array) -> Array:
    """The class with the largest score along the last axis, the first of equal ones; int64, shape [rows]."""
    rows = scores.reshape(-1, scores.shape[-1])
    return np.asarray(np.argmax(rows if rows.dtype.kind == "f" else rows.astype(np.float32), axis=1))


def top1_agreement(before: Array, after: Array) -> float:
    """Share of rows (all axes but the last) in which both score arrays have the same first class.

    Raises:
        DataError: the shapes differ, or an array does not look like class scores.
    """
    if before.shape != after.shape or not looks_like_scores(before) or not looks_like_scores(after):
        raise DataError(
            f"class scores of shapes {list(before.shape)} and {list(after.shape)}: expected two floating-point arrays "
            f"of one shape [..., classes]; compare outputs that hold class scores"
        )
    return float(np.mean(top1(before) == top1(after))) if before.size else 1.0


def accuracy(scores: Array, labels: Array) -> float:
    """Share of rows of `scores` [..., classes] whose first class is the label; `labels` has one integer per row.

    Raises:
        DataError: the labels do not count the rows, or a label is no class.
    """
    return correct(scores, labels) / max(labels.size, 1)


def correct(scores: Array, labels: Array) -> int:
    """How many rows have their label as first class; raises like `accuracy`."""
    if not looks_like_scores(scores) or labels.size * scores.shape[-1] != scores.size:
        raise DataError(
            f"labels of shape {list(labels.shape)} do not count the rows of scores of shape {list(scores.shape)}; "
            f"give one class index per row"
        )
    classes = scores.shape[-1]
    if labels.size and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        raise DataError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, but the scores have {classes} classes; "
            f"number the classes from 0"
        )
    return int(np.count_nonzero(top1(scores) == labels.reshape(-1)))


def scored_output(outputs: Mapping[str, Array], labels: Array) -> str | None:
    """The first output with one row of class scores per label; None when there is none."""
    return next(
        (
            name
            for name, array in outputs.items()
            if looks_like_scores(array) and labels.size * array.shape[-1] == array.size
        ),
        None,
    )
