"""What a training is put together from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from onnxprune.metrics import Metric, metric_from
from onnxprune.torch.masks import MaskHold
from onnxprune.torch.module import OnnxModule
from onnxprune.torch.train.amp import Amp
from onnxprune.torch.train.answers import Answers
from onnxprune.torch.train.batches import Batching, Rows
from onnxprune.torch.train.distributed import Processes
from onnxprune.torch.train.ema import Ema
from onnxprune.torch.train.logs import Logs
from onnxprune.torch.train.losses import Loss
from onnxprune.torch.train.teacher import Feeds, Teacher
from onnxprune.train_recipe import TrainRecipe
from onnxprune.train_report import Watch

if TYPE_CHECKING:
    from onnxprune.samples import Samples


@dataclass(frozen=True, eq=False)
class Source:
    """Samples and which of their rows count."""

    samples: Samples
    rows: Rows


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that a training works with; `setup` makes it, `loop` runs it.

    Attributes:
        rate: the learning rate that `factor` of the steps done multiplies.
        answers: what the teacher was asked already.
        metric: the metric's spec; None when none is measured.
        notes: what the caller should know of the choices that were made.
    """

    recipe: TrainRecipe
    module: OnnxModule
    training: Source
    validation: Source | None
    batching: Batching
    steps_per_epoch: int
    loss: Loss
    teacher: Teacher | None
    answers: Answers
    metric: str | None
    optimizer: torch.optim.Optimizer
    rate: float
    factor: Callable[[int], float]
    hold: MaskHold
    amp: Amp
    ema: Ema | None
    device: torch.device
    processes: Processes
    watch: Watch
    logs: Logs | None
    notes: tuple[str, ...]

    @property
    def steps_total(self) -> int:
        """The optimizer's steps when no patience ends them."""
        return self.steps_per_epoch * self.recipe.epochs

    def new_metric(self) -> Metric | None:
        """A metric that has seen nothing; None where nothing is measured."""
        return None if self.metric is None else metric_from(self.metric)

    def taught(self, samples: Samples, rows: Rows, feeds: Feeds) -> Tensor | None:
        """What the teacher says of rows of samples; None without one."""
        return None if self.teacher is None else self.answers.of(self.teacher, samples, rows, feeds)

    def averaged(self) -> AbstractContextManager[Any]:
        """Within it the module has the moving averages, where there are any."""
        return nullcontext() if self.ema is None else self.ema.applied()
