"""Loss and metric over the validation samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onnxprune.torch.dtypes import array_from_tensor
from onnxprune.torch.train.batches import Rows, inputs_of, padded, runs_of, share_of, tensors_of

if TYPE_CHECKING:
    from onnxprune.metrics import Metric
    from onnxprune.torch.train.parts import Job


@dataclass(frozen=True)
class Measured:
    """What the validation samples say: the mean loss, and the metric's value or None."""

    loss: float
    metric: float | None


def measure(job: Job) -> Measured | None:
    """Loss and metric over the validation samples, the module in eval mode; None where there are none.

    In full precision, as the file will run, whatever the steps are computed in.
    Each process runs its share of every batch; the main one measures, and all are told.
    """
    if job.validation is None:
        return None
    metric = job.new_metric()
    module, size = job.module, job.batching.size
    total, rows = 0.0, job.validation.rows
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(rows), size):
                total += _batch(job, rows[start : start + size], metric)
    finally:
        module.train(was_training)
    (total,) = job.processes.sums(total)
    value = metric.value() if metric is not None and job.processes.is_main else None
    value = job.processes.from_main(value)
    return Measured(total / len(rows), value)


def _batch(job: Job, rows: Rows, metric: Metric | None) -> float:
    """The sum of the losses of this process's rows; the metric is updated in the main process."""
    assert job.validation is not None
    unit, processes = job.batching.unit, job.processes
    outputs: list[NDArray[Any]] = []
    labels: list[NDArray[Any]] = []
    whole = padded(rows, unit)
    share = share_of(whole, processes.rank, processes.world, unit)
    first = len(whole) // unit * processes.rank // processes.world * unit
    real = min(max(len(rows) - first, 0), len(share))  # those behind it only fill the last unit
    total, done = 0.0, 0
    for piece in runs_of(share, job.batching.at_once):
        wanted = min(max(real - done, 0), len(piece))
        done += len(piece)
        if not wanted:
            continue
        feeds, truth = tensors_of(job.validation.samples, piece, job.device)
        found = job.module(*inputs_of(job.module, feeds))
        teacher = job.taught(job.validation.samples, piece, feeds)
        truth, teacher = (None if one is None else _first(one, wanted, len(piece)) for one in (truth, teacher))
        total += float(job.loss(_first(found[0], wanted, len(piece)), truth, teacher)) * wanted
        if metric is not None and truth is not None:
            outputs.append(array_from_tensor(_first(found[-1], wanted, len(piece))))
            labels.append(array_from_tensor(truth))
    if metric is not None:
        _update(job, metric, outputs, labels)
    return total


def _first(tensor: Tensor, wanted: int, of: int) -> Tensor:
    """What belongs to the first `wanted` of `of` samples; a sample may have several rows, as a flat [N · L, C] has."""
    return tensor if wanted == of else tensor[: wanted * (tensor.shape[0] // of)]


def _update(job: Job, metric: Metric, outputs: list[NDArray[Any]], labels: list[NDArray[Any]]) -> None:
    """Hand the batch of all processes to the metric, in order, in the main process."""
    here = (np.concatenate(outputs), np.concatenate(labels)) if outputs else None
    parts = [part for part in job.processes.gathered(here) if part is not None]
    if parts:
        metric.update(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))
