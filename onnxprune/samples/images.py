"""Samples of a folder of class folders of pictures: `cats/*.jpg`, `dogs/*.jpg`. Needs Pillow (extra `images`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxprune_passes.errors import DataError

from onnxprune.runtime import Array, TensorSpec
from onnxprune.samples.options import PIXELS, DataOptions
from onnxprune.samples.pixels import PixelFormat, pixel_format

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
)
TRAIN, VALIDATION = "train", ("validation", "valid", "val", "test")


@dataclass(frozen=True)
class ImageSamples:
    """Pictures on disk, each decoded when it is asked for; `labels` holds the class of each file."""

    name: str
    files: tuple[Path, ...]
    labels: NDArray[np.int64]
    pixels: PixelFormat
    note: str

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, rows: NDArray[np.int64]) -> tuple[dict[str, Array], Array | None]:
        """The decoded pictures and their classes; see `Samples.batch`."""
        pictures = [read_image(self.files[row], self.pixels) for row in rows.tolist()]
        return {self.name: np.stack(pictures)}, self.labels[rows]


def read_image(path: Path, pixels: PixelFormat) -> Array:
    """The picture in a file as a sample. Raises DataError, with the path, when it cannot be decoded."""
    image_module = require_pillow()
    try:
        with image_module.open(path) as image:
            return pixels.array(image)
    except (*BROKEN, image_module.DecompressionBombError) as error:
        raise broken(path, error) from error


BROKEN = (OSError, ValueError, SyntaxError, EOFError, IndexError, MemoryError)
"""What Pillow raises for damaged files."""


def broken(where: str | Path, error: Exception) -> DataError:
    """The error of a picture that cannot be decoded."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{where}: the picture cannot be read ({reason}); replace or remove it")


def require_pillow() -> Any:
    """The module `PIL.Image`. Raises DataError when Pillow is not installed."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError("pictures need Pillow: install onnxprune[images]") from error
    return Image


def samples_from_folder(
    folder: Path, specs: Sequence[TensorSpec], options: DataOptions
) -> tuple[ImageSamples, ImageSamples | None]:
    """The pictures below class folders; classes are numbered from 0 in the order of the folders' sorted names.

    A folder that holds `train` and one of `validation`, `valid`, `val` and `test`, with class folders in each, gives
    two: the classes are those of `train`.

    Raises:
        DataError: no class folders or no pictures, or the model does not take one picture.
        SelectionError: options that contradict the model.
    """
    options.require_only("a folder of pictures", PIXELS)
    require_pillow()
    if len(specs) != 1:
        expected = ", ".join(str(spec) for spec in specs)
        raise DataError(
            f"{folder}: a folder of pictures feeds one input, the model has {len(specs)} ({expected}); give an .npz "
            f"file or module:function"
        )
    pixels = pixel_format(specs[0], options)
    inside = {path.name for path in _folders(folder)}
    held_out = next((name for name in VALIDATION if name in inside), None)
    if TRAIN in inside and held_out and inside <= {TRAIN, *VALIDATION}:
        classes = _class_names(folder / TRAIN)
        return (
            _samples(folder / TRAIN, classes, specs[0], pixels),
            _samples(folder / held_out, classes, specs[0], pixels),
        )
    return _samples(folder, _class_names(folder), specs[0], pixels), None


def _samples(folder: Path, classes: Sequence[str], spec: TensorSpec, pixels: PixelFormat) -> ImageSamples:
    files: list[Path] = []
    labels: list[int] = []
    unknown = sorted(set(_class_names(folder)) - set(classes))
    if unknown:
        raise DataError(f"{folder}: class {', '.join(unknown)} is not among those of {TRAIN}; use the same names")
    for label, name in enumerate(classes):
        found = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in SUFFIXES)
        files += found
        labels += [label] * len(found)
    if not files:
        raise DataError(f"{folder}: no pictures in its class folders; expected FOLDER/CLASS/*.jpg or *.png")
    note = f"{folder.name}: {len(files)} pictures of {len(classes)} classes, {pixels}"
    return ImageSamples(spec.name, tuple(files), np.array(labels, np.int64), pixels, note)


def _class_names(folder: Path) -> list[str]:
    names = [path.name for path in _folders(folder)]
    if not names:
        raise DataError(f"{folder}: no class folders in it; expected FOLDER/CLASS/*.jpg or *.png, one folder a class")
    return names


def _folders(folder: Path) -> list[Path]:
    """Folders inside, hidden ones apart, by name."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); give a folder that you may read") from error
