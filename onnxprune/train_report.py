"""What a training found: epochs, and the report of `onnxprune retrain`. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import msgspec

from .records import File, Left, Note, Tools
from .report import SCHEMA_VERSION
from .steps import Progress, silent
from .train_recipe import RetrainOptions


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """One epoch, or how things stood before the first.

    Attributes:
        epoch: its number, from 1; 0 is before the first.
        steps: steps of the optimizer until its end.
        lr: the learning rate of its last step; None before the first.
        loss: the mean over its samples, penalties left out; None before the first.
        validation_loss: the mean over the validation samples; None without them.
        metric: over the validation samples; None without them, or without labels.
        seconds: wall time; of an epoch that was resumed, since then.
    """

    epoch: int
    steps: int
    lr: float | None
    loss: float | None
    validation_loss: float | None
    metric: float | None
    seconds: float


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """What a training did.

    Attributes:
        epochs: one entry for each, in order, the first being how things stood before; those before a resume included.
        metric: the metric's name; None when none was measured.
        larger_is_better: which way the metric points.
        kept: the epoch whose values were taken.
        stopped_early: whether patience ended it.
        resumed_at: the step of the optimizer that a checkpoint took up; None when it began anew.
        parameters: how many numbers were trained.
        pruned: how many of them are held at zero.
        notes: where the loss was taken, what was read, and what differs from what was asked.
    """

    epochs: tuple[Epoch, ...]
    metric: str | None
    larger_is_better: bool
    kept: int
    stopped_early: bool
    resumed_at: int | None
    parameters: int
    pruned: int
    notes: tuple[str, ...]

    def at(self, epoch: int) -> Epoch:
        """The entry of an epoch."""
        return next(one for one in self.epochs if one.epoch == epoch)


class RetrainReport(msgspec.Struct, frozen=True, kw_only=True):
    """One run of `onnxprune retrain`.

    Attributes:
        schema_version: of this format.
        status: done; failed: a check found a difference and nothing was written; error: it could not be done.
        error: why not, else null.
        tools: versions.
        torch: torch's version; null when it did not come to that.
        options: the options, resolved.
        input, output: the files; no output unless done.
        training: what the training did.
        changes, skips: the log of the pass.
        verified: whether the written file was compared with torch.
        max_error: the largest difference between torch and onnxruntime over the output's largest entry.
        warnings: what the caller should know.
        seconds: wall time by step.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    status: Literal["done", "failed", "error"]
    error: str | None = None
    tools: Tools
    torch: str | None = None
    options: RetrainOptions
    input: File | None = None
    output: File | None = None
    training: Training | None = None
    changes: tuple[Note, ...] = ()
    skips: tuple[Left, ...] = ()
    verified: bool = False
    max_error: float | None = None
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float] = {}


def _nothing(_: Epoch) -> None:
    """An epoch that nobody looks at."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Watch:
    """Who looks on while a training runs.

    Attributes:
        step: told before each step of the optimizer: a line of text, how many are done, how many there are.
        epoch: told of each epoch that is done.
        stop: asked after each step; True ends the training with a checkpoint.
        guard: entered while the training runs: who turns signals into `stop` does so there.
    """

    step: Progress = silent
    epoch: Callable[[Epoch], None] = _nothing
    stop: Callable[[], bool] = _never
    guard: Callable[[], AbstractContextManager[None]] = nullcontext


class Stopped(KeyboardInterrupt):
    """The training was asked to stop; the message says where its checkpoint is."""
