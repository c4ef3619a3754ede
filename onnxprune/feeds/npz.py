"""Feeds from the user's `.npz` file: arrays named after the model's inputs, and `labels` where accuracy is wanted.

Three layouts are understood, tried in this order:

1. The arrays fit the inputs as they are: one batch. When the first axis is dynamic and longer than `batch_size`, it is
   the sample axis and is split.
2. Every array that does not fit has one more axis in front, of one common size K: K batches.
3. The model's first axis is fixed at n and the array's is longer: the first axis holds samples, cut in batches of n.
   Samples left over at the end are dropped, and the note says how many.

Arrays that fit as they are go unchanged into every batch of layouts 2 and 3. Nothing is ever scaled or transposed.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from onnxprune_passes.errors import DataError

from onnxprune.feeds.batches import Feeds
from onnxprune.runtime import Array, TensorSpec, is_float

BATCH_SIZE = 64
LABELS = "labels"


def feeds_from_npz(path: str | Path, specs: Sequence[TensorSpec], *, batch_size: int = BATCH_SIZE) -> Feeds:
    """Read the arrays a model must be fed and cut them in batches.

    Args:
        path: the `.npz` file. Arrays that are no input are ignored, `labels` (integers, first axis = samples) apart.
        specs: the model's inputs (`onnxprune.runtime.input_specs`).
        batch_size: samples per batch where the model's first axis is dynamic.

    Returns:
        Feeds whose arrays have the dtype and fit the shape of their spec. float64 becomes float32 and integers become
        the wanted integer type where every value survives; NaN and Inf pass.

    Raises:
        DataError: not an .npz file; an input without array; a dtype or shape that does not fit; labels that do not
            count the samples. The message lists what was expected and found.
    """
    expected = ", ".join(str(spec) for spec in specs)
    try:
        with Path(path).open("rb") as file, _opened(file) as archive:
            found = set(archive.files)
            missing = [spec.name for spec in specs if spec.name not in found]
            if missing:
                raise DataError(
                    f"{path}: no array named {', '.join(missing)}; expected {expected}; found {_listing(archive)}; "
                    f"name the arrays after the model's inputs"
                )
            arrays = {spec.name: _cast(path, archive[spec.name], spec) for spec in specs}
            labels = archive[LABELS] if LABELS in found and all(spec.name != LABELS for spec in specs) else None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a readable .npz file ({reason}); write one with numpy.savez") from error
    split = _split(path, specs, arrays, batch_size)
    split_labels = None if labels is None else _split_labels(path, labels, split)
    return Feeds(split.batches, split_labels, f"{Path(path).name}: {split.note}")


def _opened(file: BinaryIO) -> np.lib.npyio.NpzFile:
    """The archive; `ValueError` when the file is a single array or pickled."""
    archive = np.load(file, allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError("it holds a single array without a name")
    return archive


def _listing(arrays: Mapping[str, Array]) -> str:
    """`name dtype[shape]` of every array."""
    return ", ".join(f"{name} {arrays[name].dtype.name}{list(arrays[name].shape)}" for name in arrays) or "no array"


def _cast(path: str | Path, array: Array, spec: TensorSpec) -> Array:
    """The array in the dtype of its spec, where that keeps the meaning of every value."""
    wanted, found = spec.dtype, array.dtype
    if wanted is None:
        raise DataError(f"{path}: input {spec} cannot be given as an array; only tensor inputs are supported")
    if found == wanted or (wanted == np.dtype(object) and found.kind == "U"):
        return array
    if is_float(wanted) and is_float(found):
        with np.errstate(over="ignore"):
            rounded = array.astype(wanted)
        if np.array_equal(np.isinf(rounded), np.isinf(array)):
            return rounded
        raise DataError(f"{path}: {spec.name} has values too large for {wanted.name}; scale them as in training")
    if wanted.kind in "iub" and found.kind in "iub":
        converted = array.astype(wanted)
        if np.array_equal(converted, array):
            return converted
        low, high = int(array.min()), int(array.max())
        raise DataError(f"{path}: {spec.name} has values {low}..{high}, which {wanted.name} cannot hold; correct them")
    if is_float(wanted) and found.kind in "iub":
        raise DataError(
            f"{path}: {spec.name} is {found.name}, but the model takes {wanted.name}; store it as {wanted.name}, "
            f"scaled as the model was trained (nothing is scaled here)"
        )
    raise DataError(
        f"{path}: {spec.name} is {found.name}, but the model takes {wanted.name}; store it as {wanted.name}"
    )


@dataclass(frozen=True)
class _Split:
    """Batches, how many samples each holds, how many samples the arrays hold (None: unknown), how they were cut."""

    batches: tuple[Mapping[str, Array], ...]
    sizes: tuple[int, ...]
    samples: int | None
    note: str


def _split(path: str | Path, specs: Sequence[TensorSpec], arrays: dict[str, Array], batch_size: int) -> _Split:
    """The arrays cut by the first layout that fits; `DataError` when none does."""
    split: _Split | None
    if all(spec.accepts_shape(arrays[spec.name].shape) for spec in specs):
        split = _by_dynamic_axis(specs, arrays, batch_size)
    else:
        split = _by_leading_axis(specs, arrays) or _by_fixed_axis(specs, arrays)
    if split is None or not split.batches or any(array.size == 0 for array in arrays.values()):
        expected = ", ".join(str(spec) for spec in specs)
        raise DataError(
            f"{path}: arrays do not fit the model's inputs; expected {expected}; found {_listing(arrays)}; give at "
            f"least one batch in the shape of the inputs, or samples along the first axis"
        )
    return split


def _by_dynamic_axis(specs: Sequence[TensorSpec], arrays: dict[str, Array], batch_size: int) -> _Split:
    """Layout 1: as given, or cut along the dynamic first axis (and along other axes of the same symbol)."""
    leading = [spec for spec in specs if spec.shape and not isinstance(spec.shape[0], int)]
    counts = {arrays[spec.name].shape[0] for spec in leading}
    if len(counts) != 1:
        return _Split((arrays,), (), None, "one batch as given")
    (count,) = counts
    if count <= batch_size:
        return _Split((arrays,), (count,), count, f"{count} samples in one batch")
    symbols = {spec.shape[0] for spec in leading}
    axes = {spec.name: _sample_axis(spec, arrays[spec.name], symbols, count) for spec in specs}
    starts = range(0, count, batch_size)
    batches = tuple(
        {name: _cut(array, axes[name], start, start + batch_size) for name, array in arrays.items()} for start in starts
    )
    sizes = tuple(min(batch_size, count - start) for start in starts)
    return _Split(batches, sizes, count, f"{count} samples in {len(batches)} batches of {batch_size}")


def _sample_axis(spec: TensorSpec, array: Array, symbols: set[int | str | None], count: int) -> int | None:
    """The axis of an input that counts the samples, None when it has none."""
    return next(
        (axis for axis, dim in enumerate(spec.shape) if dim in symbols and array.shape[axis] == count),
        None,
    )


def _cut(array: Array, axis: int | None, start: int, stop: int) -> Array:
    return array if axis is None else array[(slice(None),) * axis + (slice(start, stop),)]


def _by_leading_axis(specs: Sequence[TensorSpec], arrays: dict[str, Array]) -> _Split | None:
    """Layout 2: one more axis in front."""
    stacked = {spec.name for spec in specs if not spec.accepts_shape(arrays[spec.name].shape)}
    if not all(spec.accepts_shape(arrays[spec.name].shape[1:]) for spec in specs if spec.name in stacked):
        return None
    counts = {arrays[name].shape[0] for name in stacked}
    if len(counts) != 1:
        return None
    (count,) = counts
    batches = tuple(
        {name: np.asarray(array[index]) if name in stacked else array for name, array in arrays.items()}
        for index in range(count)
    )
    return _Split(batches, (1,) * count, count, f"{count} batches along the first axis")


def _by_fixed_axis(specs: Sequence[TensorSpec], arrays: dict[str, Array]) -> _Split | None:
    """Layout 3: samples along a first axis that the model fixes."""
    sizes: dict[str, int] = {}
    for spec in specs:
        shape = arrays[spec.name].shape
        if spec.accepts_shape(shape):
            continue
        if not shape or not spec.shape or not isinstance(spec.shape[0], int):
            return None
        if not spec.accepts_shape((spec.shape[0], *shape[1:])):
            return None
        sizes[spec.name] = spec.shape[0]
    counts = {arrays[name].shape[0] for name in sizes}
    if len(counts) != 1 or len(set(sizes.values())) != 1:
        return None
    (count,), (size,) = counts, set(sizes.values())
    starts = range(0, count - count % size, size)
    batches = tuple(
        {name: array[start : start + size] if name in sizes else array for name, array in arrays.items()}
        for start in starts
    )
    dropped = f", the last {count % size} left out" if count % size else ""
    note = f"{count} samples in {len(batches)} batches of {size}{dropped}"
    return _Split(batches, (size,) * len(batches), count, note)


def _split_labels(path: str | Path, labels: Array, split: _Split) -> tuple[Array, ...]:
    """Labels per batch, cut like the arrays."""
    if labels.dtype.kind not in "iu":
        raise DataError(f"{path}: labels are {labels.dtype.name}; give class indices as integers")
    if split.samples is None:
        return (labels,)
    if labels.shape[:1] != (split.samples,):
        found, samples = list(labels.shape), split.samples
        raise DataError(f"{path}: labels {found} for {samples} samples; give one label or row of labels per sample")
    stops = np.cumsum(split.sizes).tolist()
    return tuple(labels[stop - size : stop] for stop, size in zip(stops, split.sizes, strict=True))
