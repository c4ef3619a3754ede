"""What users' code and data sets hand over, as arrays that fit the model's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnxprune_passes.errors import DataError

from onnxprune.feeds import LABELS
from onnxprune.feeds.cast import cast
from onnxprune.runtime import Array, TensorSpec


def array_from(value: Any) -> Array:
    """A numpy array of whatever holds numbers: arrays, torch tensors on any device, lists."""
    for name in ("detach", "cpu"):
        value = getattr(value, name)() if hasattr(value, name) else value
    return np.asarray(value)


def fitted(
    where: str, feeds: Mapping[str, Any], labels: Any, specs: Sequence[TensorSpec], samples: int | None = None
) -> tuple[dict[str, Array], Array | None]:
    """Feeds and labels as arrays of the dtypes and shapes that the model declares.

    The first axis may have any size, also where the model fixes it: who runs the model takes as many as it needs.

    Args:
        where: the data's name, for messages.
        feeds: by input name; other names are ignored.
        labels: or None.
        specs: the model's inputs.
        samples: how many samples there must be along the first axis of the labels; None does not look.

    Raises:
        DataError: an input is missing, or an array does not fit; says what was expected and found.
    """
    found = {name: array_from(value) for name, value in feeds.items()}
    missing = [spec.name for spec in specs if spec.name not in found]
    if missing:
        raise DataError(
            f"{where}: nothing for input {', '.join(missing)}; expected {_expected(specs)}; found {_listing(found)}"
        )
    arrays = {spec.name: cast(where, found[spec.name], spec) for spec in specs}
    for spec in specs:
        shape = arrays[spec.name].shape
        if len(shape) != len(spec.shape) or not spec.accepts_shape((*_any_first(spec), *shape[1:])):
            raise DataError(
                f"{where}: {spec.name} does not fit; expected {_expected(specs)}; found {_listing(found)}; give "
                f"samples along the first axis, in the shape of the input"
            )
    return arrays, _fitted_labels(where, labels, samples)


def _fitted_labels(where: str, labels: Any, samples: int | None) -> Array | None:
    if labels is None:
        return None
    array = array_from(labels)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{where}: labels are {array.dtype.name}; give class indices, or floats as the first output")
    if samples is not None and array.shape[:1] != (samples,):
        raise DataError(
            f"{where}: labels {list(array.shape)} for {samples} samples; give one label or row of labels per sample"
        )
    return array.astype(np.int64, copy=False) if array.dtype.kind in "iu" else array


def by_name(where: str, item: Any, specs: Sequence[TensorSpec]) -> tuple[dict[str, Any], Any]:
    """Feeds and labels of one item of a loader or data set.

    Understood are: a dict by input name, with `labels` or `label`; a pair of such a dict and labels; inputs in the
    graph's order, followed by labels or not; one input alone.

    Raises:
        DataError: none of these.
    """
    names = [spec.name for spec in specs]
    if isinstance(item, Mapping):
        label = next((name for name in (LABELS, "label") if name in item and name not in names), None)
        return {name: item[name] for name in item if name != label}, None if label is None else item[label]
    if not isinstance(item, (tuple, list)):
        item = (item,)
    if len(item) == 2 and isinstance(item[0], Mapping):
        return dict(item[0]), item[1]
    if len(item) in (len(names), len(names) + 1):
        return dict(zip(names, item, strict=False)), item[len(names)] if len(item) > len(names) else None
    raise DataError(
        f"{where}: a batch has {len(item)} parts; expected {_expected(specs)} in this order, then labels, or a dict by "
        f"input name"
    )


def _any_first(spec: TensorSpec) -> tuple[int, ...]:
    """A size for the first axis that the spec accepts; nothing for scalars."""
    first = spec.shape[:1]
    return tuple(dim if isinstance(dim, int) else 1 for dim in first)


def _expected(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(str(spec) for spec in specs)


def _listing(arrays: Mapping[str, Array]) -> str:
    return ", ".join(f"{name} {array.dtype.name}{list(array.shape)}" for name, array in arrays.items()) or "nothing"
