"""One way in for every kind of data: what `--data` names, as samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnxprune_passes.errors import DataError

from onnxprune.runtime import TensorSpec
from onnxprune.samples.arrays import samples_from_npz
from onnxprune.samples.base import Samples


def read_samples(spec: str, specs: Sequence[TensorSpec]) -> Samples:
    """The samples that `spec` (the value of `--data`) names.

    Args:
        spec: an `.npz` file with arrays named after the inputs, and `labels`.
        specs: the model's inputs (`onnxprune.runtime.input_specs`).

    Raises:
        DataError: the data cannot be read or does not fit; says what was expected and found.
    """
    if not Path(spec).exists():
        raise DataError(f"{spec}: no such file; give an .npz file with arrays named after the model's inputs")
    return samples_from_npz(spec, specs)
