"""The scripts of models/ as modules, and the MNIST folder where there is one."""

from __future__ import annotations

import gzip
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "models"
NAMES = (
    ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
)


@pytest.fixture(scope="session")
def load_script() -> Iterator[Callable[[str], ModuleType]]:
    """Import a script of models/ as Python would when it runs: its own folder comes first on the path."""
    sys.path.insert(0, str(MODELS))
    yield importlib.import_module
    sys.path.remove(str(MODELS))


@pytest.fixture(scope="session")
def mnist(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("mnist")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of given test data; it is no part of the repository."""
    named = os.environ.get("ONNXPRUNE_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not (folder / "mnist" / NAMES[1][0]).is_file():
        pytest.skip(f"no MNIST in {folder}; set ONNXPRUNE_DATA to the folder that holds mnist/")
    return folder


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """An uncompressed idx file, written by hand from the format's description."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


@pytest.fixture
def write_tiny_mnist() -> Callable[[Path, int, int], None]:
    """Write the four files with few images: class k has a bright square at a place of its own."""

    def write(folder: Path, train_count: int, test_count: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for (images_name, labels_name), count in zip(NAMES, (train_count, test_count), strict=True):
            labels = (np.arange(count) % 10).astype(np.uint8)
            images = np.zeros((count, 28, 28), dtype=np.uint8)
            for image, label in zip(images, labels, strict=True):
                row, column = 4 + 8 * (label // 4), 2 + 6 * (label % 4)
                image[row : row + 5, column : column + 5] = 255
            (folder / images_name).write_bytes(gzip.compress(idx_bytes(images), mtime=0))
            (folder / labels_name).write_bytes(gzip.compress(idx_bytes(labels), mtime=0))

    return write
