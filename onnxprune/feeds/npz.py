"""Feeds from the user's `.npz` file: arrays named after the model's inputs, and `labels` where accuracy is wanted.

`layout` says where samples are looked for. A dynamic sample axis longer than `batch_size` is split; where the model
fixes it at n, samples are cut in batches of n, those left over at the end are dropped, and the note says how many.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnxprune_passes.errors import DataError

from onnxprune.feeds.archive import NpzArchive
from onnxprune.feeds.batches import Feeds
from onnxprune.feeds.cast import cast
from onnxprune.feeds.layout import Layout, fits, layout_of
from onnxprune.runtime import Array, TensorSpec

BATCH_SIZE = 64
LABELS = "labels"


def feeds_from_npz(path: str | Path, specs: Sequence[TensorSpec], *, batch_size: int = BATCH_SIZE) -> Feeds:
    """Read the arrays a model must be fed and cut them in batches.

    Args:
        path: the `.npz` file. Arrays that are no input are ignored, `labels` apart: integers (first axis = samples)
            are class indices; floats are targets of a training, from which no accuracy is taken.
        specs: the model's inputs (`onnxprune.runtime.input_specs`).
        batch_size: samples per batch where the model's first axis is dynamic.

    Returns:
        Feeds whose arrays have the dtype and fit the shape of their spec. float64 becomes float32 and integers become
        the wanted integer type where every value survives; NaN and Inf pass.

    Raises:
        DataError: not an .npz file; an input without array; a dtype or shape that does not fit; labels that do not
            count the samples. The message lists what was expected and found.
    """
    return _split(path, specs, read_npz(path, specs), batch_size)


@dataclass(frozen=True)
class NpzData:
    """What an `.npz` file holds for a model: an array for each input, in the wanted dtype, and the labels as stored."""

    arrays: dict[str, Array]
    labels: Array | None


def read_npz(path: str | Path, specs: Sequence[TensorSpec]) -> NpzData:
    """The arrays of an `.npz` file by input name, each read once, or mapped when it is large and fits as it is.

    Raises DataError like `feeds_from_npz`.
    """
    expected = ", ".join(str(spec) for spec in specs)
    try:
        with NpzArchive(Path(path)) as archive:
            found = archive.headers
            missing = [spec.name for spec in specs if spec.name not in found]
            if missing:
                listing = ", ".join(f"{name} {header}" for name, header in found.items()) or "no array"
                raise DataError(
                    f"{path}: no array named {', '.join(missing)}; expected {expected}; found {listing}; "
                    f"name the arrays after the model's inputs"
                )
            arrays = {spec.name: cast(path, archive.read(spec.name), spec) for spec in specs}
            labels = archive.read(LABELS) if LABELS in found and all(spec.name != LABELS for spec in specs) else None
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a readable .npz file ({reason}); write one with numpy.savez") from error
    return NpzData(arrays, labels)


def _listing(arrays: Mapping[str, Array]) -> str:
    """`name dtype[shape]` of every array."""
    return ", ".join(f"{name} {arrays[name].dtype.name}{list(arrays[name].shape)}" for name in arrays) or "no array"


def _split(path: str | Path, specs: Sequence[TensorSpec], data: NpzData, batch_size: int) -> Feeds:
    """The arrays and labels cut in batches; `DataError` when no layout fits."""
    name, layout = Path(path).name, layout_of(specs, data.arrays)
    as_given = fits(specs, {name: array.shape for name, array in data.arrays.items()})
    size = batch_size if layout is None or layout.batch is None else layout.batch
    if (layout is None and not as_given) or any(array.size == 0 for array in data.arrays.values()):
        raise misfit(path, specs, data.arrays)
    if layout is None or (as_given and layout.batch is not None):
        labels = class_labels(data.labels)
        return Feeds((data.arrays,), None if labels is None else (labels,), f"{name}: one batch as given")
    starts = range(0, layout.samples, size)
    if layout.batch is not None:
        starts = range(0, layout.samples - layout.samples % size, size)
    if not starts:
        raise misfit(path, specs, data.arrays)
    cuts = [slice(start, min(start + size, layout.samples)) for start in starts]
    batches = tuple(layout.take(data.arrays, cut) for cut in cuts)
    labels = class_labels(counted_labels(path, data.labels, layout.samples))
    note = f"{name}: {_how(layout, len(batches), size)}"
    return Feeds(batches, None if labels is None else tuple(labels[cut] for cut in cuts), note)


def misfit(path: str | Path, specs: Sequence[TensorSpec], arrays: Mapping[str, Array]) -> DataError:
    """The error of arrays that fit no layout."""
    expected = ", ".join(str(spec) for spec in specs)
    return DataError(
        f"{path}: arrays do not fit the model's inputs; expected {expected}; found {_listing(arrays)}; give at "
        f"least one batch in the shape of the inputs, or samples along the first axis"
    )


def _how(layout: Layout, batches: int, size: int) -> str:
    """What was cut into what."""
    if layout.stacked:
        return f"{batches} batches along the first axis"
    if batches == 1 and layout.batch is None:
        return f"{layout.samples} samples in one batch"
    left = layout.samples % size if layout.batch is not None else 0
    dropped = f", the last {left} left out" if left else ""
    return f"{layout.samples} samples in {batches} batches of {size}{dropped}"


def counted_labels(path: str | Path, labels: Array | None, samples: int) -> Array | None:
    """The labels once they are known to count the samples; integers as int64."""
    if labels is None:
        return None
    if labels.dtype.kind not in "iuf":
        raise DataError(
            f"{path}: labels are {labels.dtype.name}; give class indices as integers, or floats in the shape of the "
            f"first output"
        )
    if labels.shape[:1] != (samples,):
        found = list(labels.shape)
        raise DataError(f"{path}: labels {found} for {samples} samples; give one label or row of labels per sample")
    return labels.astype(np.int64, copy=False) if labels.dtype.kind in "iu" else labels


def class_labels(labels: Array | None) -> Array | None:
    """Labels that are class indices; None for others, which no accuracy can be taken from."""
    return labels if labels is not None and labels.dtype.kind in "iu" else None
