"""Samples of a Hugging Face data set on disk (`Dataset.save_to_disk`). Needs `datasets` (extra `datasets`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxprune_passes.errors import DataError, SelectionError

from onnxprune.feeds import LABELS
from onnxprune.runtime import Array, TensorSpec
from onnxprune.samples.fit import fitted
from onnxprune.samples.images import BROKEN, TRAIN, VALIDATION, broken, require_pillow
from onnxprune.samples.options import PIXELS, DataOptions
from onnxprune.samples.pixels import PixelFormat, pixel_format

MARKS = ("dataset_info.json", "dataset_dict.json", "state.json")
"""Files by which a folder is known as a data set."""


@dataclass(frozen=True)
class TableSamples:
    """Rows of a data set: its columns of numbers (None when there are none), and those of pictures.

    `columns` maps input names (and `labels`) to columns, `pixels` says how pictures are fed.
    """

    numbers: Any
    pictures: Any
    columns: Mapping[str, str]
    pixels: Mapping[str, PixelFormat]
    specs: tuple[TensorSpec, ...]
    note: str

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, rows: NDArray[np.int64]) -> tuple[dict[str, Array], Array | None]:
        """The rows, pictures decoded; see `Samples.batch`."""
        numbers = {} if self.numbers is None else self.numbers[rows.tolist()]
        feeds: dict[str, Any] = {
            name: self._array(numbers[column], column)
            for name, column in self.columns.items()
            if name not in self.pixels
        }
        labels = feeds.pop(LABELS, None) if all(spec.name != LABELS for spec in self.specs) else None
        for name, pixels in self.pixels.items():
            feeds[name] = np.stack([self._picture(row, self.columns[name], pixels) for row in rows.tolist()])
        return fitted(self.note, feeds, labels, self.specs, len(rows))

    def _array(self, values: Any, column: str) -> Array:
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise DataError(f"{self.note}: rows of column {column!r} differ in shape; pad them to one shape") from error
        if array.dtype.kind == "O":
            raise DataError(f"{self.note}: rows of column {column!r} differ in shape or are no numbers; pad them")
        return array

    def _picture(self, row: int, column: str, pixels: PixelFormat) -> Array:
        try:
            return pixels.array(self.pictures[row][column])
        except BROKEN as error:
            raise broken(f"{self.note}: row {row}", error) from error


def is_dataset(folder: Path) -> bool:
    """Whether a folder is a data set that `save_to_disk` wrote."""
    return any((folder / name).is_file() for name in MARKS)


def samples_from_dataset(
    folder: Path, specs: Sequence[TensorSpec], options: DataOptions
) -> tuple[TableSamples, TableSamples | None]:
    """The rows of a data set on disk; nothing is downloaded.

    Each input takes the column of its name, or the one that `column.INPUT=COLUMN` says, or, where the model has one
    input, the only column of pictures. Labels are the column `labels` or `label`, or the only one of class labels; the
    model may do without. Of several splits, `train` and, where there is one, `validation`, `valid`, `val` or `test` are
    taken, or the one that `split=` names.

    Raises:
        DataError: `datasets` is not installed, or the data set is damaged or does not fit the model.
        SelectionError: options that name no split, column or input.
    """
    options.require_only("a data set", (*PIXELS, "split", "columns"))
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{folder} is a data set of Hugging Face: install onnxprune[datasets]") from error
    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{folder}: not a readable data set ({reason}); write one with Dataset.save_to_disk") from error
    if not isinstance(found, datasets.DatasetDict):
        if options.split is not None:
            raise SelectionError(f"{folder} has no splits: leave --data-option split={options.split} out")
        return _samples(folder.name, found, specs, options), None
    if options.split is not None:
        if options.split not in found:
            raise SelectionError(f"{folder} has no split {options.split!r}; it has {', '.join(found)}")
        return _samples(f"{folder.name}, {options.split}", found[options.split], specs, options), None
    first = TRAIN if TRAIN in found else next(iter(found)) if len(found) == 1 else None
    if first is None:
        raise SelectionError(f"{folder} has splits {', '.join(found)}: choose one by --data-option split=NAME")
    other = next((name for name in VALIDATION if name in found and name != first), None)
    held_out = _samples(f"{folder.name}, {other}", found[other], specs, options) if other else None
    return _samples(f"{folder.name}, {first}", found[first], specs, options), held_out


def _samples(name: str, table: Any, specs: Sequence[TensorSpec], options: DataOptions) -> TableSamples:
    kinds = {column: type(feature).__name__ for column, feature in table.features.items()}
    columns = _columns(name, kinds, specs, options)
    if not len(table):
        raise DataError(f"{name}: no rows; give a data set with samples")
    pixels = {spec.name: pixel_format(spec, options) for spec in specs if kinds[columns[spec.name]] == "Image"}
    if not pixels:
        options_read = [one for one in options.given if one in PIXELS]
        if options_read:
            raise SelectionError(f"--data-option {options_read[0]} has no meaning: no column of {name} holds pictures")
    else:
        require_pillow()
    shown = ", ".join(f"{key} from {column!r}" for key, column in columns.items())
    described = "".join(f", {one}" for one in pixels.values())
    numeric = list(dict.fromkeys(columns[key] for key in columns if key not in pixels))
    return TableSamples(
        table.select_columns(numeric).with_format("numpy") if numeric else None,
        (table.select_columns([columns[key] for key in pixels]) if pixels else table).with_format(None),
        columns,
        pixels,
        tuple(specs),
        f"{name}: {len(table)} rows, {shown}{described}",
    )


def _columns(name: str, kinds: Mapping[str, str], specs: Sequence[TensorSpec], options: DataOptions) -> dict[str, str]:
    """Input name (and `labels`) → column."""
    inputs = [spec.name for spec in specs]
    found = ", ".join(f"{column} ({kind})" for column, kind in kinds.items())
    for key, column in options.columns.items():
        if key not in (*inputs, LABELS):
            raise SelectionError(f"--data-option column.{key}: no such input; the model has {', '.join(inputs)}")
        if column not in kinds:
            raise SelectionError(f"--data-option column.{key}={column}: {name} has no such column; it has {found}")
    columns = {key: options.columns.get(key, key) for key in inputs}
    pictures = [column for column, kind in kinds.items() if kind == "Image"]
    if len(inputs) == 1 and columns[inputs[0]] not in kinds and len(pictures) == 1:
        columns[inputs[0]] = pictures[0]
    missing = [key for key, column in columns.items() if column not in kinds]
    if missing:
        expected = ", ".join(str(spec) for spec in specs)
        raise DataError(
            f"{name}: no column for input {', '.join(missing)}; expected {expected}; found {found}; say which: "
            f"--data-option column.{missing[0]}=COLUMN"
        )
    classes = [column for column, kind in kinds.items() if kind == "ClassLabel"]
    label = options.columns.get(LABELS) or next((one for one in (LABELS, "label") if one in kinds), None)
    label = label or (classes[0] if len(classes) == 1 else None)
    if label is not None and label not in columns.values():
        columns.setdefault(LABELS, label)
    return columns
