"""Which samples a step sees, and how they become tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnxprune_passes.errors import DataError
from torch import Tensor

from onnxprune.torch.dtypes import tensor_from_array
from onnxprune.torch.module import OnnxModule

if TYPE_CHECKING:
    from onnxprune.samples import Samples

Rows = NDArray[np.int64]
_SPLIT = 1 << 32
"""Stands for an epoch in the seed of the validation share."""


@dataclass(frozen=True)
class Batching:
    """How many samples make a step.

    Attributes:
        size: samples a step, of all processes together.
        unit: a run of the module takes a multiple of it; the batch that the file fixes, or 1.
        at_once: the most that one run takes; None for no limit.
        note: what was asked for and cannot be; empty when nothing.
    """

    size: int
    unit: int = 1
    at_once: int | None = None
    note: str = ""


def batching_for(module: OnnxModule, asked: int, world: int) -> Batching:
    """How a training of `module` with batches of `asked` in `world` processes runs."""
    declared = (module.first_dims or (None,))[0]
    unit = declared or 1
    size = max(asked // (unit * world), 1) * unit * world
    note = "" if size == asked else f"batches of {size} instead of {asked}: the model runs multiples of {unit}"
    if unit == 1 and size != asked:
        note = f"batches of {size} instead of {asked}: {world} processes share them evenly"
    return Batching(size, unit, unit if module.batch_problem is not None else None, note)


def split_rows(count: int, share: float, seed: int) -> tuple[Rows, Rows]:
    """The rows to train on and those to measure on, both ascending.

    Raises:
        DataError: one of the two would be empty although it is wanted.
    """
    if share == 0:
        return np.arange(count, dtype=np.int64), np.zeros(0, np.int64)
    measured = max(round(count * share), 1)
    if measured >= count:
        raise DataError(
            f"{count} samples leave none to train on when {share:.0%} are kept for validation: give more samples, or "
            "--validation 0"
        )
    order = np.random.default_rng([seed, _SPLIT]).permutation(count).astype(np.int64)
    return np.sort(order[measured:]), np.sort(order[:measured])


def epoch_order(rows: Rows, seed: int, epoch: int, unit: int) -> Rows:
    """The rows in the order of an epoch, the same on every machine; what does not fill a unit is left for other
    epochs.
    """
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    return order[: len(order) - len(order) % unit]


def steps_in(rows: int, batching: Batching) -> int:
    """The steps of an epoch over so many rows."""
    return -(-(rows - rows % batching.unit) // batching.size)


def share_of(rows: Rows, rank: int, world: int, unit: int) -> Rows:
    """The part of a step's rows that a process takes, whole units; may be empty."""
    units = len(rows) // unit
    first, last = (units * at // world * unit for at in (rank, rank + 1))
    return rows[first:last]


def runs_of(rows: Rows, at_once: int | None) -> Iterator[Rows]:
    """The rows in pieces that the module takes at once."""
    size = at_once or max(len(rows), 1)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def tensors_of(samples: Samples, rows: Rows, device: torch.device) -> tuple[dict[str, Tensor], Tensor | None]:
    """The feeds of some rows by input name, and their labels.

    They lie in torch's own memory: kernels may add in another order where memory begins elsewhere, and runs are to be
    the same bit for bit.
    """
    feeds, labels = samples.batch(rows)
    tensors = {name: _own(array, f"input {name!r}", device) for name, array in feeds.items()}
    return tensors, None if labels is None else _own(labels, "labels", device)


def inputs_of(module: OnnxModule, feeds: Mapping[str, Tensor]) -> list[Tensor]:
    """The module's inputs among the feeds, in order. Raises DataError when one is missing."""
    missing = [name for name in module.input_names if name not in feeds]
    if missing:
        raise DataError(f"the samples have no {', '.join(missing)}; the model needs {', '.join(module.input_names)}")
    return [feeds[name] for name in module.input_names]


def _own(array: NDArray[Any], where: str, device: torch.device) -> Tensor:
    tensor = tensor_from_array(array, where)
    return tensor.clone() if device.type == "cpu" else tensor.to(device)


def padded(rows: Rows, unit: int) -> Rows:
    """The rows with the last one repeated until they fill whole units."""
    lacking = -len(rows) % unit
    return np.concatenate([rows, np.repeat(rows[-1:], lacking)]) if lacking else rows
