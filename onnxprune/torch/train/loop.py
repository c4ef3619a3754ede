"""The training itself: epochs of steps, measured, checkpointed, resumed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
from torch import Tensor

from onnxprune.torch.train import batch_norm
from onnxprune.torch.train.batches import epoch_order, inputs_of, runs_of, share_of, tensors_of
from onnxprune.torch.train.checkpoints import Store, moving, rng_states, set_rng_states
from onnxprune.torch.train.evaluate import measure
from onnxprune.torch.train.parts import Job
from onnxprune.torch.train.step import Stepper
from onnxprune.train_report import Epoch, Stopped

_RECALIBRATION_BATCHES = 100


@dataclass
class Standing:
    """How far a training is.

    Attributes:
        epoch: the epoch under way, from 1; 0 before the first.
        done: steps of it that are done.
        steps: steps of all epochs.
        total, seen: the sum of its samples' losses in this process, and how many they were.
        history: the epochs that are done.
        best: the epoch whose values are kept; `values` are those.
        finished: nothing is left to do.
    """

    epoch: int = 0
    done: int = 0
    steps: int = 0
    total: float = 0.0
    seen: int = 0
    history: list[Epoch] = field(default_factory=list)
    best: int | None = None
    values: dict[str, Tensor] | None = None
    finished: bool = False
    stopped_early: bool = False
    resumed_at: int | None = None


class Trainer:
    """Runs a job to its end. `run` leaves the values to be kept in the module and returns how it went."""

    def __init__(self, job: Job, store: Store | None) -> None:
        self._job, self._store = job, store
        self._standing = Standing()
        self._saved = time.monotonic()
        self._stepper = Stepper(job)

    def run(self) -> Standing:
        """Train, from a checkpoint where there is one.

        Raises:
            DataError: the loss is not finite, or the samples do not fit.
            SelectionError: the checkpoint is of another run.
            ModelError: a pruned entry is not zero.
            Stopped: the caller asked for it; there is a checkpoint.
        """
        job, standing = self._job, self._standing
        self._resume()
        with job.watch.guard():
            if not standing.history:
                self._close_epoch(time.monotonic())
            while not standing.finished:
                self._epoch()
        if job.logs is not None:
            job.logs.close()
        self._take_kept()
        job.hold.check()
        return standing

    def _epoch(self) -> None:
        job, standing, started = self._job, self._standing, time.monotonic()
        order = epoch_order(job.training.rows, job.recipe.seed, standing.epoch, job.batching.unit)
        if standing.epoch == 1 and not standing.done:
            self._recalibrate()
        self._stepper.begin_epoch(standing.epoch)
        job.module.train()
        size = job.batching.size
        while standing.done < job.steps_per_epoch:
            rows = order[standing.done * size : (standing.done + 1) * size]
            self._show()
            total, seen = self._stepper.step(rows, standing.epoch, standing.done, standing.steps)
            standing.total, standing.seen = standing.total + total, standing.seen + seen
            standing.done += 1
            standing.steps += 1
            self._between_steps()
        self._close_epoch(started)

    def _between_steps(self) -> None:
        """Write a checkpoint when one is due, and end when the caller asks for it."""
        job, standing = self._job, self._standing
        recipe = job.recipe
        due = self._store is not None and (
            (recipe.checkpoint_steps is not None and standing.steps % recipe.checkpoint_steps == 0)
            or time.monotonic() - self._saved >= recipe.checkpoint_seconds
        )
        due, stop = job.processes.any_of(due, job.watch.stop())
        if stop or due:
            self._save()
        if stop:
            where = f"{standing.done} of {job.steps_per_epoch} steps of epoch {standing.epoch}"
            kept = f"checkpoint in {self._store.folder}" if self._store else "there is no checkpoint folder"
            raise Stopped(f"stopped after {where}; {kept}")

    def _close_epoch(self, started: float) -> None:
        """Measure, note the epoch, choose what to keep, and begin the next one."""
        job, standing = self._job, self._standing
        job.hold.check()
        with job.averaged():
            if standing.epoch:
                self._recalibrate()
            measured = measure(job)
            total, seen = job.processes.sums(standing.total, float(standing.seen))
            record = Epoch(
                epoch=standing.epoch,
                steps=standing.steps,
                lr=job.rate * job.factor(standing.steps - 1) if standing.steps else None,
                loss=total / seen if seen else None,
                validation_loss=None if measured is None else measured.loss,
                metric=None if measured is None else measured.metric,
                seconds=time.monotonic() - started,
            )
            standing.history.append(record)
            self._choose(record)
        standing.total, standing.seen, standing.done = 0.0, 0, 0
        patience = job.recipe.patience
        standing.stopped_early = patience is not None and standing.epoch - (standing.best or 0) >= patience
        standing.finished = standing.stopped_early or standing.epoch == job.recipe.epochs
        if not standing.finished:
            standing.epoch += 1
        self._save()
        if job.logs is not None:
            job.logs.epoch(record)
        job.watch.epoch(record)

    def _choose(self, record: Epoch) -> None:
        """Keep the values when they are the best so far; those from before the first epoch count too."""
        standing = self._standing
        if record.validation_loss is None:
            return
        best = next((one for one in standing.history if one.epoch == standing.best), None)
        if best is None or self._is_better(record, best):
            standing.best = record.epoch
            if self._job.recipe.keep != "last":
                values = moving(self._job.module)
                standing.values = {name: one.detach().cpu().clone() for name, one in values.items()}

    def _is_better(self, record: Epoch, best: Epoch) -> bool:
        """By the metric; by the validation loss where that is equal, or there is none."""
        metric = self._job.new_metric()
        sign = 1.0 if metric is None or metric.larger_is_better else -1.0

        def key(one: Epoch) -> tuple[float, float]:
            return sign * (one.metric or 0.0), -(one.validation_loss or 0.0)

        return key(record) > key(best)

    def _take_kept(self) -> None:
        """Leave the chosen values in the module."""
        job, standing = self._job, self._standing
        if standing.values is not None:
            job.module.load_state_dict(standing.values, strict=False)
        elif job.ema is not None:
            job.ema.copy_to_module()
            self._recalibrate()
        job.hold.apply()

    def _recalibrate(self) -> None:
        """Measure the statistics of BatchNormalization anew, where that was asked for."""
        job = self._job
        if job.recipe.batch_norm != "recalibrate" or not batch_norm.count_nodes(job.module):
            return
        batch_norm.recalibrate(job.module, self._some_batches())
        statistics = [one for name, one in job.module.named_buffers() if name in job.module.state_dict()]
        job.processes.average(statistics)

    def _some_batches(self) -> Iterator[list[Tensor]]:
        """This process's part of the first batches of the epoch that comes."""
        job = self._job
        order = epoch_order(job.training.rows, job.recipe.seed, self._standing.epoch + 1, job.batching.unit)
        size, processes = job.batching.size, job.processes
        whole = range(0, len(order) - size + 1, size) or range(1)
        for start in whole[:_RECALIBRATION_BATCHES]:
            mine = share_of(order[start : start + size], processes.rank, processes.world, job.batching.unit)
            for piece in runs_of(mine, job.batching.at_once):
                feeds, _ = tensors_of(job.training.samples, piece, job.device)
                yield inputs_of(job.module, feeds)

    def _show(self) -> None:
        """Tell who looks on what is under way."""
        job, standing = self._job, self._standing
        text = f"epoch {standing.epoch}/{job.recipe.epochs}"
        if standing.seen:
            text += f" loss {standing.total / standing.seen:.4f}"
        last = standing.history[-1].metric if standing.history else None
        if last is not None:
            text += f" {job.metric} {last:.4f}"
        job.watch.step(text, standing.steps, job.steps_total)

    def _save(self) -> None:
        """Write a checkpoint; every process hands in its random numbers."""
        if self._store is None:
            return
        job, standing = self._job, self._standing
        own = {"rng": rng_states(), "total": standing.total, "seen": standing.seen}
        processes = job.processes.gathered(own)
        if job.processes.is_main:
            self._store.write(
                {
                    "processes": processes,
                    "module": moving(job.module),
                    "optimizer": job.optimizer.state_dict(),
                    "amp": job.amp.state_dict(),
                    "ema": None if job.ema is None else job.ema.state_dict(),
                    "standing": {name: getattr(standing, name) for name in _STORED},
                    "history": [msgspec.to_builtins(one) for one in standing.history],
                }
            )
        self._saved = time.monotonic()

    def _resume(self) -> None:
        job, standing = self._job, self._standing
        read = self._store.read() if self._store is not None and job.processes.is_main else None
        content = job.processes.from_main(read)
        if content is None:
            return
        job.module.load_state_dict(content["module"], strict=False)
        job.optimizer.load_state_dict(content["optimizer"])
        job.amp.load_state_dict(content["amp"])
        if job.ema is not None:
            job.ema.load_state_dict(content["ema"])
        for name in _STORED:
            setattr(standing, name, content["standing"][name])
        own = content["processes"][job.processes.rank]
        standing.total, standing.seen = own["total"], own["seen"]
        standing.history = [msgspec.convert(one, Epoch) for one in content["history"]]
        standing.resumed_at = standing.steps
        set_rng_states(own["rng"])


_STORED = ("epoch", "done", "steps", "best", "values", "finished", "stopped_early")
