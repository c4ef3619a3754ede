"""Pictures of a weight: which of its entries are kept, and how large they are (Han et al. 2015, figures 4 and 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxprune_passes.encode import densify
from onnxprune_passes.errors import DataError, SelectionError
from onnxprune_passes.masks import Masks
from onnxprune_passes.selection import matches
from onnxprune_passes.storage import load
from onnxprune_passes.weights import Weight, find_weights

from .figure import figures

Array = NDArray[Any]
_BINS = 101


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """One weight of a file: its key, and its values [neurons, what each of them reads], zero where pruned."""

    name: str
    values: Array


def read_weight(model: str | Path, glob: str, masks: str | Path | None = None) -> StoredWeight:
    """The one weight of the file `model` that `glob` names, under the masks of a file; encoded files are decoded.

    Raises:
        ModelError, EncodeError: the file cannot be read.
        DataError: the masks cannot be read, or have another shape.
        SelectionError: no weight, or more than one, has such a name.
    """
    dense = densify(load(model))
    weights = find_weights(dense)
    found = [weight for weight in weights if matches(weight.key, glob)]
    if len(found) != 1:
        names = ", ".join(weight.key for weight in (found or weights))
        raise SelectionError(
            f"--weight {glob!r} names {len(found)} weights of {model}, one is needed: choose of {names}"
        )
    (weight,) = found
    kept = np.ones(weight.shape, np.bool_) if masks is None else _mask(masks, weight)
    return StoredWeight(weight.key, _by_neuron(weight, dense.initializers[weight.key], kept))


def _mask(path: str | Path, weight: Weight) -> NDArray[np.bool_]:
    masks = Masks.load(path)
    if weight.key not in masks:
        raise DataError(f"{path}: no mask of {weight.key!r}: give the masks of the same model")
    kept = masks[weight.key]
    if kept.shape != weight.shape:
        raise DataError(
            f"{path}: the mask of {weight.key} has the shape {kept.shape}, expected {weight.shape}: give the model "
            f"that was pruned"
        )
    return kept


def _by_neuron(weight: Weight, values: Array, kept: NDArray[np.bool_]) -> Array:
    """`values` as floats, zero where not kept, with the neurons in front and all else in one axis."""
    if weight.zero_point is not None:
        values = values.astype(np.int64) - weight.zero_point
    values = np.where(kept, values, 0)
    out_axis = weight.uses[0].out_axis or 0
    return np.moveaxis(values.astype(np.float32), out_axis, 0).reshape(values.shape[out_axis], -1)


def plot_mask(
    model: str | Path, glob: str, path: str | Path, *, masks: str | Path | None = None, band: int | None = None
) -> None:
    """Draw which entries of a weight are kept: a row for each neuron, a column for each input, kept ones dark.

    Under it, how many of each input's connections are kept.

    Args:
        model: the file, encoded or not.
        glob: the weight's name.
        path: the .png or .svg file.
        masks: an `.npz` of masks (`onnxprune MODEL --save-masks`), in the shapes of the file: what they prune counts
            as zero too. For the dense file, where that of the pruned one got smaller shapes.
        band: mark every so many inputs, such as 28 for pictures of 28 columns.

    Raises:
        SelectionError: not one such weight, `path` is no .png or .svg, or matplotlib is missing.
        ModelError, DataError: a file cannot be read or written, or masks do not fit.
    """
    weight = read_weight(model, glob, masks)
    kept = weight.values != 0
    neurons, inputs = kept.shape
    share = np.count_nonzero(kept) / max(kept.size, 1)
    title = f"{Path(model).name}: {weight.name}, {np.count_nonzero(kept):,} of {kept.size:,} kept ({share:.1%})"
    with figures(path, title, heights=(3, 1), size=(8, 4.5)) as (picture, counts):
        picture.imshow(kept, cmap="Greys", aspect="auto", interpolation="nearest", extent=(0, inputs, neurons, 0))
        picture.set_ylabel("neuron")
        counts.step(np.arange(inputs), kept.mean(axis=0) * 100, where="post", linewidth=0.8)
        counts.set_ylabel("kept, %")
        counts.set_xlabel("input")
        counts.set_ylim(bottom=0)
        for axes in (picture, counts):
            axes.set_xlim(0, inputs)
            for place in range(band, inputs, band) if band else ():
                axes.axvline(place, color="tab:red", linewidth=0.3)


def plot_histogram(
    model: str | Path, glob: str, path: str | Path, *, before: str | Path | None = None, bins: int = _BINS
) -> None:
    """Draw how the kept entries of a weight are spread, under those of the same weight in the file `before`.

    Args:
        model, glob, path: as for `plot_mask`.
        before: the dense file; None draws one histogram.
        bins: how many, over the range of the largest magnitude in either file.

    Raises:
        As `plot_mask`.
    """
    files: Sequence[str | Path] = (model,) if before is None else (before, model)
    weights = [read_weight(file, glob) for file in files]
    kept = [weight.values[weight.values != 0] for weight in weights]
    limit = max((float(np.abs(values).max(initial=0)) for values in kept), default=0.0) or 1.0
    title = f"{weights[0].name}: weights that are not zero"
    with figures(path, title, heights=(1.0,) * len(files)) as parts:
        for axes, file, values in zip(parts, files, kept, strict=True):
            axes.hist(values, bins=bins, range=(-limit, limit))
            axes.set_ylabel(f"{Path(file).name}\n{values.size:,} entries", fontsize="small")
            axes.grid(visible=True, alpha=0.3)
        parts[-1].set_xlabel("value")
