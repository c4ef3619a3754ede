"""Shares of values that are not zero, counted over samples in onnxruntime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnxprune_passes.errors import DataError
from onnxprune_passes.model import Model
from onnxprune_passes.storage import save

from ..batch_norms import part_before
from ..runtime import NoKernelError, Session, is_float, open_session, run
from ..samples import batch_size_of, read_measured, spread
from ..verification import cast_to_float32

_BATCH = 32


@dataclass(frozen=True)
class Counted:
    """What was counted of one value: its entries for one sample, and the share of them that are not zero."""

    entries: int
    share: float


@dataclass(frozen=True)
class Measured:
    """Value → what was counted of it, over `samples` samples; values that hold no floats are left out."""

    values: Mapping[str, Counted]
    samples: int
    note: str


@dataclass(frozen=True)
class DataSource:
    """What is run: `data` and `options` as for `read_measured`, and how many samples, spread evenly; None takes all."""

    data: str
    options: tuple[str, ...] = ()
    samples: int | None = None


def measure(model: Model, values: Sequence[str], source: DataSource) -> Measured:
    """Run `model` (dense) and count what is not zero in `values` of its main graph; without values nothing is run.

    Raises:
        DataError: the samples do not fit the model, or there are fewer than one batch of a fixed size.
        ModelError, VerifyError: onnxruntime does not load or run the model.
    """
    if not values:
        return Measured({}, 0, "no layer lies in the main graph")
    names = {f"onnxprune_value_{index}": value for index, value in enumerate(dict.fromkeys(values))}
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as temporary:
        folder = Path(temporary)
        file = save(part_before(model, names), folder / "part.onnx")
        try:
            with open_session(file, optimize=True) as session:
                return _counted(session, names, source)
        except NoKernelError:
            with open_session(cast_to_float32(file, folder), optimize=True) as session:
                return _counted(session, names, source)


def _counted(session: Session, names: Mapping[str, str], source: DataSource) -> Measured:
    """Run all samples; `names`: output of the session → value."""
    samples = read_measured(source.data, session.inputs, source.options)
    fixed = batch_size_of(session.inputs)
    rows = spread(len(samples), source.samples or len(samples))
    if fixed is not None:
        rows = rows[: len(rows) - len(rows) % fixed]
    if not len(rows):
        raise DataError(f"{source.data}: {len(samples)} samples, fewer than one batch of {fixed}: give more")
    entries = dict.fromkeys(names, 0)
    nonzero = dict.fromkeys(names, 0)
    for start in range(0, len(rows), fixed or _BATCH):
        feeds, _ = samples.batch(rows[start : start + (fixed or _BATCH)])
        outputs = run(session, feeds)
        for name in names:
            array = outputs.get(name)
            if array is not None and is_float(array.dtype):
                entries[name] += array.size
                nonzero[name] += int(np.count_nonzero(array))
    counted = {
        value: Counted(round(entries[name] / len(rows)), nonzero[name] / entries[name])
        for name, value in names.items()
        if entries[name]
    }
    return Measured(counted, len(rows), samples.note)
