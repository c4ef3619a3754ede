"""One way in for every kind of data: what `--data` names, as samples."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from onnxprune_passes.errors import DataError

from onnxprune.runtime import TensorSpec
from onnxprune.samples.arrays import samples_from_npz
from onnxprune.samples.base import Samples
from onnxprune.samples.functions import samples_from_function
from onnxprune.samples.huggingface import is_dataset, samples_from_dataset
from onnxprune.samples.images import samples_from_folder
from onnxprune.samples.options import DataOptions, data_options_from

_NAMED = re.compile(r"[\w.]+:[\w.]+")
"""module:function, and no path of another system."""


def read_samples(spec: str, specs: Sequence[TensorSpec], options: Sequence[str] = ()) -> Samples:
    """The samples that `spec` names; those to train on where it has others to validate on (see `read_pair`)."""
    return read_pair(spec, specs, options)[0]


def read_pair(spec: str, specs: Sequence[TensorSpec], options: Sequence[str] = ()) -> tuple[Samples, Samples | None]:
    """The samples that `spec` (the value of `--data`) names, and those to validate on where it has such.

    Args:
        spec: an `.npz` file with arrays named after the inputs, and `labels`; a folder of class folders of pictures; a
            folder that Hugging Face's `save_to_disk` wrote; or "module:function" (`samples_from_function`).
        specs: the model's inputs (`onnxprune.runtime.input_specs`).
        options: "KEY=VALUE" entries; see `DataOptions`.

    Raises:
        DataError: the data cannot be read or does not fit; says what was expected and found.
        SelectionError: options that are unknown or contradict the data.
    """
    return pair_from(spec, specs, data_options_from(options))


def read_measured(spec: str, specs: Sequence[TensorSpec], options: Sequence[str] = ()) -> Samples:
    """The samples that a model is measured on: those to validate on where there are such, else all."""
    samples, held_out = read_pair(spec, specs, options)
    return samples if held_out is None else held_out


def pair_from(spec: str, specs: Sequence[TensorSpec], options: DataOptions) -> tuple[Samples, Samples | None]:
    """The same as `read_pair` with parsed options."""
    path = Path(spec)
    if path.is_dir() and is_dataset(path):
        return samples_from_dataset(path, specs, options)
    if path.is_dir():
        return samples_from_folder(path, specs, options)
    if not path.exists() and _NAMED.fullmatch(spec):
        return samples_from_function(spec, specs, options)
    if not path.exists():
        raise DataError(
            f"{spec}: no such file or folder; give an .npz file, a folder of class folders of pictures, a data set on "
            f"disk, or module:function"
        )
    options.require_only("an .npz file", ())
    return samples_from_npz(spec, specs), None
