"""MNIST as numpy arrays, and as the `.npz` file that `onnxprune --data` takes.

The four files of the data set are read from the first of

1. the `data` argument (`--data`): the folder that holds them, or that folder's parent;
2. the environment variable ONNXPRUNE_DATA, read the same way (the files lie in its `mnist/`);
3. scikit-learn's `fetch_openml("mnist_784")`, which downloads them once and caches them.

    python models/mnist.py --data DIR --out mnist_test.npz [--split train|test] [--count N]

Commands take the images without a file too: `--data models.mnist:training` (all 60,000), `--data models.mnist:split`
(the first 50,000, measured on the other 10,000), `--data models.mnist:test`.

File format: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", section
"The IDX file format": two zero bytes, an element type (8 = uint8), the number of axes, one
big-endian uint32 per axis, then the elements in row-major order.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import click
import numpy as np
from numpy.typing import NDArray
from onnxprune_passes.errors import DataError

Split = Literal["train", "test"]

DATA_VARIABLE: Final = "ONNXPRUNE_DATA"
FILES: Final[dict[Split, tuple[str, str]]] = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
HELD_OUT: Final = 10_000  # the last of the training images, which hyper-parameters are chosen on
TRAIN_COUNT: Final = 60_000  # OpenML keeps both splits in one table, the training images first
UINT8_TYPE: Final = 0x08
INPUT: Final = "image"


def read_idx(path: Path, rank: int) -> NDArray[np.uint8]:
    """Read one gzipped idx file of bytes.

    Args:
        path: the `.gz` file.
        rank: the number of axes it must have (images 3, labels 1).

    Returns:
        uint8 array with the shape the file states.

    Raises:
        DataError: the file cannot be read, is not an idx file of uint8 with `rank` axes, or holds more or
            fewer bytes than its shape says.
    """
    fix = "download the file again"
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as gzip ({error}); {fix}") from error
    magic, header_size = bytes([0, 0, UINT8_TYPE, rank]), 4 + 4 * rank
    if raw[:4] != magic:
        raise DataError(f"{path}: idx header is {raw[:4].hex()}, expected {magic.hex()} (uint8, {rank} axes); {fix}")
    if len(raw) < header_size:
        raise DataError(f"{path}: idx header has {len(raw)} bytes, expected {header_size}; {fix}")
    shape = tuple(int(size) for size in np.frombuffer(raw, dtype=">u4", count=rank, offset=4))
    found, expected = len(raw) - header_size, math.prod(shape)
    if found != expected:
        raise DataError(f"{path}: {found} elements, expected {expected} for shape {shape}; {fix}")
    return np.frombuffer(raw, dtype=np.uint8, offset=header_size).reshape(shape).copy()


def load_mnist(split: Split, data: Path | None = None) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images and labels of one split.

    Args:
        split: "train" (60,000 images in the canonical files) or "test" (10,000).
        data: folder with the canonical files, or its parent; None looks where the module docstring says.

    Returns:
        images uint8 [N, 28, 28], 0 = background, and labels int64 [N] in 0..9.

    Raises:
        DataError: no data was found, or a file is damaged.
    """
    folder = find_folder(data)
    images, labels = _fetch(split) if folder is None else _read_split(folder, split)
    if images.shape[1:] != (28, 28) or len(images) != len(labels):
        raise DataError(
            f"MNIST {split}: images {images.shape} and labels {labels.shape}, "
            "expected [N, 28, 28] and [N]; use the four canonical files of one download"
        )
    return images, labels


def find_folder(data: Path | None) -> Path | None:
    """The folder that holds the canonical files; None when neither `data` nor ONNXPRUNE_DATA names one.

    Raises:
        DataError: a folder was named, but neither it nor a `mnist` folder in it holds the four files.
    """
    variable = os.environ.get(DATA_VARIABLE)
    if data is None and not variable:
        return None
    source = "--data" if data is not None else DATA_VARIABLE
    root = data if data is not None else Path(str(variable))
    names = [name for pair in FILES.values() for name in pair]
    for folder in (root, root / "mnist"):
        if all((folder / name).is_file() for name in names):
            return folder
    raise DataError(
        f"{source}: {root} holds no MNIST, neither itself nor in mnist/; expected {', '.join(names)}; "
        f"name the folder that holds these files"
    )


def unit_images(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The input of both reference networks: float32 [N, 1, 28, 28] in 0..1 (x / 255) from uint8 [N, 28, 28]."""
    return (images.astype(np.float32) / np.float32(255.0))[:, np.newaxis]


@dataclass(frozen=True)
class Pictures:
    """Images uint8 [N, 28, 28] and labels int64 [N] as `onnxprune.samples.Samples`, scaled a batch at a time."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    note: str

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: NDArray[np.int64]) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64]]:
        """Some images as the reference networks take them, and their labels."""
        return {INPUT: unit_images(self.images[rows])}, self.labels[rows]


def training() -> Pictures:
    """All training images: `--data models.mnist:training`. Raises DataError as `load_mnist`."""
    return Pictures(*load_mnist("train"), note="mnist, all training images")


def test() -> Pictures:
    """All test images: `--data models.mnist:test`. Raises DataError as `load_mnist`."""
    return Pictures(*load_mnist("test"), note="mnist, all test images")


def split() -> tuple[Pictures, Pictures]:
    """The training images but for the last 10,000, and those: to choose hyper-parameters. Raises as `load_mnist`."""
    images, labels = load_mnist("train")
    first = len(images) - HELD_OUT
    return (
        Pictures(images[:first], labels[:first], note=f"mnist, the first {first:,} training images"),
        Pictures(images[first:], labels[first:], note=f"mnist, the last {HELD_OUT:,} training images"),
    )


def _read_split(folder: Path, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images_name, labels_name = FILES[split]
    return read_idx(folder / images_name, rank=3), read_idx(folder / labels_name, rank=1).astype(np.int64)


def _fetch(split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    fix = f"give the folder with the four canonical .gz files by --data or {DATA_VARIABLE}"
    try:
        from sklearn.datasets import fetch_openml
    except ImportError as error:
        raise DataError(f"MNIST: no folder named and scikit-learn is not installed; install it, or {fix}") from error
    try:
        table = fetch_openml("mnist_784", version=1, as_frame=False)
    except (OSError, ValueError) as error:  # no network (URLError is an OSError); OpenML's own errors are ValueErrors
        reason = " ".join(str(error).split())
        raise DataError(f"MNIST: download from OpenML failed ({reason}); {fix}") from error
    rows = slice(None, TRAIN_COUNT) if split == "train" else slice(TRAIN_COUNT, None)
    images = np.asarray(table.data[rows]).astype(np.uint8).reshape(-1, 28, 28)
    return images, np.asarray(table.target[rows]).astype(np.int64)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder with the MNIST files, or its parent.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .npz file to write.")
@click.option("--split", type=click.Choice(["train", "test"]), default="test", show_default=True)
@click.option("--count", type=click.IntRange(min=1), help="Write only the first COUNT images.")
def main(data: Path | None, out: Path, split: Split, count: int | None) -> None:
    """Write images and labels of one split as an .npz file for `onnxprune --data`."""
    try:
        images, labels = load_mnist(split, data)
    except DataError as error:
        raise click.ClickException(str(error)) from error
    part = out.with_name(out.name + ".part")
    with part.open("wb") as file:
        np.savez_compressed(file, image=unit_images(images[:count]), labels=labels[:count])
    part.replace(out)
    click.echo(f"{out}: image float32 {[len(labels[:count]), 1, 28, 28]}, labels int64 {[len(labels[:count])]}")


if __name__ == "__main__":
    main()
