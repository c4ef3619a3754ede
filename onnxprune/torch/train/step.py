"""One step of the optimizer: its rows in pieces, the loss of each, penalties, and the gradients of all processes."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from onnxprune_passes.errors import DataError
from torch import Tensor, nn

from onnxprune.torch.train import local, regularise
from onnxprune.torch.train.batches import Rows, inputs_of, runs_of, share_of, tensors_of
from onnxprune.torch.train.parts import Job


class Stepper:
    """Takes the steps of a job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._runner: nn.Module = job.module
        self._trained: tuple[str, ...] = ()

    def begin_epoch(self, epoch: int) -> None:
        """Let the layers of this epoch, from 1, train; a reducer of gradients is made for each choice."""
        job = self._job
        trained = local.trainable(job.module, job.recipe.train_only or "all", epoch - 1)
        if trained != self._trained:
            self._trained, self._runner = trained, job.module
            gc.collect()  # the reducer before it takes its hooks away when it goes
            self._runner = job.processes.wrapped(job.module)

    def step(self, rows: Rows, epoch: int, done: int, steps: int) -> tuple[float, int]:
        """One step on the rows of all processes, `done` steps into the epoch and `steps` into the training.

        Returns:
            The sum of the losses of this process's samples, and how many they are.

        Raises:
            DataError: the loss is not finite.
        """
        job = self._job
        for group in job.optimizer.param_groups:
            group["lr"] = job.rate * job.factor(steps)
        job.optimizer.zero_grad(set_to_none=True)
        total, seen = 0.0, 0
        for piece, share, is_last in self._pieces(rows):
            with self._unsynced(is_last):
                loss = self._loss(piece)
                whole = loss * share
                if is_last:
                    whole = whole + self._penalties()
                job.amp.backward(whole)
            if share:
                total += loss.item() * len(piece)
                seen += len(piece)
        if not math.isfinite(total):
            raise DataError(
                f"the loss is {total} in epoch {epoch}, step {done + 1} of {job.steps_per_epoch}: lower --lr, or cut "
                "gradients with --clip-norm"
            )
        job.amp.step(job.optimizer, job.module, job.recipe.clip_norm)
        if job.ema is not None:
            job.ema.update()
        if job.logs is not None and seen:
            job.logs.step(steps + 1, total / seen, job.optimizer.param_groups[0]["lr"])
        return total, seen

    def _pieces(self, rows: Rows) -> Iterator[tuple[Rows, float, bool]]:
        """What this process runs, one piece after the other: its rows, its weight in the step's gradient, and
        whether it is the last. A process without rows runs some with weight 0, for the others wait for its gradient.
        """
        processes, batching = self._job.processes, self._job.batching
        mine = share_of(rows, processes.rank, processes.world, batching.unit)
        pieces = list(runs_of(mine, batching.at_once))
        if not pieces:
            yield rows[: batching.unit], 0.0, True
            return
        for index, piece in enumerate(pieces):
            yield piece, len(piece) * processes.world / len(rows), index == len(pieces) - 1

    def _unsynced(self, is_last: bool) -> AbstractContextManager[Any]:
        """Gradients are averaged over the processes once a step, behind its last piece."""
        if isinstance(self._runner, nn.parallel.DistributedDataParallel) and not is_last:
            return self._runner.no_sync()
        return nullcontext()

    def _loss(self, rows: Rows) -> Tensor:
        job = self._job
        feeds, labels = tensors_of(job.training.samples, rows, job.device)
        teacher = job.taught(job.training.samples, rows, feeds)
        with job.amp.autocast():
            return job.loss(self._runner(*inputs_of(job.module, feeds))[0], labels, teacher)

    def _penalties(self) -> Tensor | float:
        recipe = self._job.recipe
        strengths = {"l1": recipe.l1, "l2": recipe.l2, "hoyer": recipe.hoyer}
        found = [regularise.penalty(self._job.module, kind, one) for kind, one in strengths.items() if one]
        return sum(found[1:], found[0]) if found else 0.0
