"""CIFAR-10 pictures as the `.npz` file that `onnxprune --data` takes, and as augmented samples to retrain on.

The pictures are read from `train_10k.npz` and `test.npz`, each with `x`, uint8 [N, 32, 32, 3], and `y`, integers 0..9,
in the folder that `--data` or the environment variable ONNXPRUNE_DATA names, or in its `cifar10/`.

    python models/cifar10.py --data DIR --split test --out cifar10_test.npz [--count N]
    onnxprune retrain model.onnx --data models.cifar10:augmented

Augmentation is the usual one (He et al. 2016, section 4.2): four pixels of padding on each side, a 32×32 cut at random,
mirrored every other time.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import click
import numpy as np
from numpy.typing import NDArray
from onnxprune_passes.errors import DataError

Split = Literal["train", "test"]
Array = NDArray[np.float32]

DATA_VARIABLE: Final = "ONNXPRUNE_DATA"
FILES: Final[dict[Split, str]] = {"train": "train_10k.npz", "test": "test.npz"}
INPUT: Final = "input"
MEAN: Final = np.array([0.485, 0.456, 0.406], np.float32)
STD: Final = np.array([0.229, 0.224, 0.225], np.float32)
PADDING: Final = 4
HELD_OUT: Final = 1000  # pictures of the training set that hyper-parameters are chosen on


def load_cifar10(split: Split, data: Path | None = None) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures uint8 [N, 32, 32, 3] and labels int64 [N] of one split.

    Args:
        split: "train" (10,000 pictures, 1000 a class) or "test" (10,000).
        data: folder with the files, or its parent; None takes the one that ONNXPRUNE_DATA names.

    Raises:
        DataError: no folder was named, a file is missing or damaged, or holds something else.
    """
    named = os.environ.get(DATA_VARIABLE)
    if data is None and not named:
        raise DataError(f"CIFAR-10: no folder named; give the one that holds cifar10/ by --data or {DATA_VARIABLE}")
    root = Path(str(named)) if data is None else data
    path = next(
        (folder / FILES[split] for folder in (root, root / "cifar10") if (folder / FILES[split]).is_file()), None
    )
    if path is None:
        raise DataError(f"{root} holds no {FILES[split]}, neither itself nor in cifar10/; name the folder that does")
    try:
        with np.load(path) as arrays:
            pictures, labels = arrays["x"], arrays["y"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not an .npz file with x and y ({error}); take another copy") from error
    if pictures.dtype != np.uint8 or pictures.shape[1:] != (32, 32, 3) or labels.shape != pictures.shape[:1]:
        raise DataError(
            f"{path}: x {pictures.dtype}{list(pictures.shape)}, y {list(labels.shape)}; expected uint8[N, 32, 32, 3] "
            f"and [N]"
        )
    return pictures, labels.astype(np.int64)


def scaled(pictures: NDArray[np.uint8]) -> Array:
    """What the cifar_resnet models take: float32 [N, 3, 32, 32], (x / 255 - mean) / std, from uint8 [N, 32, 32, 3]."""
    unit = pictures.astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(((unit - MEAN) / STD).transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class Pictures:
    """Pictures as samples. `moved` shifts and mirrors them at random, drawn from numpy's global generator."""

    pictures: NDArray[np.uint8]
    labels: NDArray[np.int64]
    moved: bool
    note: str

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, rows: NDArray[np.int64]) -> tuple[dict[str, Array], NDArray[np.int64]]:
        """Some pictures, scaled, and their labels."""
        taken = self.pictures[rows]
        if not self.moved:
            return {INPUT: scaled(taken)}, self.labels[rows]
        unmoved = np.pad(scaled(taken), ((0, 0), (0, 0), (PADDING, PADDING), (PADDING, PADDING)))
        corners = np.random.randint(0, 2 * PADDING + 1, (len(rows), 2)).tolist()
        mirrored = (np.random.random(len(rows)) < 0.5).tolist()
        cuts = [
            one[:, top : top + 32, left : left + 32][:, :, :: -1 if flip else 1]
            for one, (top, left), flip in zip(unmoved, corners, mirrored, strict=True)
        ]
        return {INPUT: np.stack(cuts)}, self.labels[rows]


def augmented() -> Pictures:
    """All training pictures, augmented: `--data models.cifar10:augmented`."""
    return Pictures(*load_cifar10("train"), moved=True, note="cifar10 train, cut and mirrored at random")


def split() -> tuple[Pictures, Pictures]:
    """9000 training pictures, augmented, and the 1000 others as they are: to choose hyper-parameters."""
    pictures, labels = load_cifar10("train")
    order = np.random.default_rng(0).permutation(len(pictures))
    chosen, others = order[:-HELD_OUT], order[-HELD_OUT:]
    return (
        Pictures(pictures[chosen], labels[chosen], moved=True, note=f"cifar10 train, {len(chosen)} augmented"),
        Pictures(pictures[others], labels[others], moved=False, note=f"cifar10 train, {len(others)} held out"),
    )


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Folder with train_10k.npz and test.npz, or its parent.")
@click.option("--split", "which", type=click.Choice(["train", "test"]), default="test", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .npz file to write.")
@click.option("--count", type=click.IntRange(min=1), help="Write only the first COUNT pictures.")
def main(data: Path | None, which: Split, out: Path, count: int | None) -> None:
    """Write pictures and labels, scaled as the cifar_resnet models take them, for `onnxprune --data`."""
    try:
        pictures, labels = load_cifar10(which, data)
    except DataError as error:
        raise click.ClickException(str(error)) from error
    part = out.with_name(out.name + ".part")
    with part.open("wb") as file:
        np.savez(file, input=scaled(pictures[:count]), labels=labels[:count])
    part.replace(out)
    written = len(labels[:count])
    click.echo(f"{out}: {INPUT} float32 {[written, 3, 32, 32]}, labels int64 {[written]}")


if __name__ == "__main__":
    main()
