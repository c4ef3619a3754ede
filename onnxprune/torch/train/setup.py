"""From a recipe to the parts of a training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from onnxprune_passes.errors import DataError, SelectionError
from onnxprune_passes.masks import Masks
from onnxprune_passes.model import Model

from onnxprune.torch.build import module_from_model
from onnxprune.torch.masks import hold_masks
from onnxprune.torch.module import OnnxModule
from onnxprune.torch.train.amp import Amp
from onnxprune.torch.train.answers import Answers
from onnxprune.torch.train.batch_norm import count_nodes, reduce_across_ranks, set_mode
from onnxprune.torch.train.batches import Batching, batching_for, epoch_order, split_rows
from onnxprune.torch.train.distributed import Processes
from onnxprune.torch.train.dropout import install
from onnxprune.torch.train.ema import Ema
from onnxprune.torch.train.logs import Logs
from onnxprune.torch.train.objective import Target, kind_of_labels, loss_note, made_loss, what_to_train
from onnxprune.torch.train.parts import Job, Source
from onnxprune.torch.train.schedules import ORIGINAL_RATES, default_rate, factor_from
from onnxprune.torch.train.teacher import Teacher, teacher_from
from onnxprune.torch.train.ties import TieHold, tie_values
from onnxprune.train_recipe import TrainRecipe, split_dropout
from onnxprune.train_report import Watch

if TYPE_CHECKING:
    from onnxprune.samples import Samples

MOMENTUM = 0.9


def device_from(asked: str, local_rank: int = 0) -> torch.device:
    """The device to train on. Raises SelectionError when cuda is asked for and there is none."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise SelectionError("--device cuda: torch sees no CUDA device; use --device cpu")
    chosen = "cuda" if asked == "auto" and torch.cuda.is_available() else asked
    return torch.device("cuda", local_rank) if chosen == "cuda" else torch.device("cpu")


def base_rate(recipe: TrainRecipe) -> float:
    """The learning rate that the schedule multiplies: as given, the original one for `rewind`, else a tenth of it."""
    if recipe.lr is not None:
        return recipe.lr
    if recipe.schedule == "rewind":
        return ORIGINAL_RATES[recipe.optimizer] if recipe.original_lr is None else recipe.original_lr
    return default_rate(recipe.optimizer, recipe.original_lr)


def made_schedule(recipe: TrainRecipe, steps_per_epoch: int) -> Callable[[int], float]:
    """The schedule, epochs turned into steps. Raises SelectionError for options it does not read."""

    def steps(epochs: float) -> int:
        return round(epochs * steps_per_epoch)

    rewinds = recipe.schedule == "rewind"
    return factor_from(
        recipe.schedule,
        steps_per_epoch * recipe.epochs,
        warmup=steps(recipe.warmup),
        milestones=[steps(one) for one in recipe.milestones],
        gamma=recipe.gamma,
        original=recipe.original_schedule,
        original_steps=steps(recipe.original_epochs) if rewinds and recipe.original_epochs is not None else None,
    )


def made_optimizer(recipe: TrainRecipe, module: OnnxModule) -> torch.optim.Optimizer:
    """The optimizer of everything that trains. Raises SelectionError when nothing does."""
    parameters = [one for one in module.parameters() if one.requires_grad]
    if not parameters:
        raise SelectionError("the model has no tensor to train at that output: --freeze leaves none, or it has none")
    rate, decay = base_rate(recipe), recipe.weight_decay
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, rate, weight_decay=decay)
    momentum = MOMENTUM if recipe.momentum is None else recipe.momentum
    return torch.optim.SGD(parameters, rate, momentum, weight_decay=decay, nesterov=recipe.nesterov)


def sources(recipe: TrainRecipe, training: Samples, validation: Samples | None) -> tuple[Source, Source | None]:
    """What is trained on and what is measured on. Raises DataError when one would be empty."""
    if validation is not None:
        if not len(validation):
            raise DataError(f"there are no samples to measure on ({validation.note})")
        return Source(training, np.arange(len(training))), Source(validation, np.arange(len(validation)))
    rows, measured = split_rows(len(training), recipe.validation, recipe.seed)
    return Source(training, rows), Source(training, measured) if len(measured) else None


def steps_per_epoch(recipe: TrainRecipe, training: Source, batching: Batching) -> int:
    """The optimizer's steps in an epoch. Raises DataError when the samples do not fill one run of the module."""
    rows = len(epoch_order(training.rows, recipe.seed, 0, batching.unit))
    if not rows:
        raise DataError(f"{len(training.rows)} training samples do not fill one batch of {batching.unit}")
    return math.ceil(rows / batching.size)


def own_memory(module: OnnxModule, *, channels_last: bool = False) -> None:
    """Move what trains into memory that torch allocated: numpy's begins at other multiples from run to run, and
    kernels may then add in another order.

    Args:
        module: what `module_from_model` gave.
        channels_last: lay the weights of 2-D convolutions out with their channels last; what they compute follows.
    """
    tensors: list[Any] = [one for one in module.parameters() if one.requires_grad]
    tensors += [one for name, one in module.named_buffers() if name in module.state_dict()]
    for tensor in tensors:
        last = channels_last and tensor.ndim == 4
        tensor.data = tensor.data.clone(memory_format=torch.channels_last if last else torch.preserve_format)


def made_job(
    recipe: TrainRecipe,
    model: Model,
    masks: Masks,
    training: Samples,
    validation: Samples | None,
    processes: Processes,
    watch: Watch,
    answers: Answers,
) -> Job:
    """Everything that a training works with. Raises what `Retrain` raises."""
    device = device_from(recipe.device, processes.local_rank)
    labels = kind_of_labels(training)
    target = what_to_train(recipe, model, labels)
    output = recipe.output_name or model.graph.output[0].name
    module = module_from_model(
        model,
        masks,
        outputs=list(dict.fromkeys((target.scores, output))),
        trainable=recipe.train,
        frozen=recipe.freeze,
        wide=True,
    )
    own_memory(module, channels_last=recipe.channels_last)
    module.to(device)
    batching = batching_for(module, recipe.batch_size, processes.world)
    source, measured = sources(recipe, training, validation)
    steps = steps_per_epoch(recipe, source, batching)
    optimizer = made_optimizer(recipe, module)
    notes = [loss_note(target, output), source.samples.note, batching.note]
    notes += _batch_norm_notes(recipe, module, processes, batching)
    hold = hold_masks(module, optimizer)
    if recipe.tie_values:
        notes.append(tie_note(tie_values(module, optimizer)))
    if recipe.dropout:
        install(module, dict(split_dropout(entry) for entry in recipe.dropout))
    return Job(
        recipe=recipe,
        module=module,
        training=source,
        validation=measured,
        batching=batching,
        steps_per_epoch=steps,
        loss=made_loss(recipe, target, labels),
        teacher=_teacher(recipe, target),
        answers=answers,
        metric=_metric(recipe, labels, measured),
        optimizer=optimizer,
        rate=base_rate(recipe),
        factor=made_schedule(recipe, steps),
        hold=hold,
        amp=Amp(recipe.amp or "off", device),
        ema=None if recipe.ema is None else Ema(module, recipe.ema),
        device=device,
        processes=processes,
        watch=watch if processes.is_main else Watch(stop=watch.stop, guard=watch.guard),
        logs=None if recipe.tensorboard is None or not processes.is_main else Logs(recipe.tensorboard),
        notes=tuple(note for note in notes if note),
    )


def _teacher(recipe: TrainRecipe, target: Target) -> Teacher | None:
    """The teacher's value that goes with what is trained: the same name, or its output 0 by the same rule."""
    if recipe.teacher is None:
        return None
    return teacher_from(recipe.teacher, recipe.teacher_in, recipe.output_name, loss=target.hard or target.loss)


def tie_note(hold: TieHold) -> str:
    """What is tied, for the report. Raises SelectionError when nothing is."""
    if not hold.tied:
        raise SelectionError("--tie-values: no tensor's entries share values; prune with --values shared first")
    return "entries share " + ", ".join(f"{count} values in {name}" for name, count in hold.tied.items())


def _metric(recipe: TrainRecipe, labels: str, measured: Source | None) -> str | None:
    """The metric's spec. Raises SelectionError when it is asked for and there are no labels."""
    if measured is None:
        return None
    if labels == "none":
        if recipe.metric is not None:
            raise SelectionError(f"--metric {recipe.metric} needs labels, and the data has none: leave it out")
        return None
    return recipe.metric or ("accuracy" if labels == "classes" else "mse")


def _batch_norm_notes(recipe: TrainRecipe, module: OnnxModule, processes: Processes, batching: Batching) -> list[str]:
    """Set where BatchNormalization takes its statistics from. Raises SelectionError when that cannot be."""
    if recipe.batch_norm == "frozen":
        return []
    if not count_nodes(module):
        return [f"--batch-norm {recipe.batch_norm} has no effect: the graph has no BatchNormalization"]
    if recipe.batch_norm == "train":
        set_mode(module, "train")
        if processes.world > 1:
            if batching.at_once is not None:
                raise SelectionError("--batch-norm train in several processes needs a model whose batch is open")
            reduce_across_ranks(module, None if next(module.parameters()).is_cuda else processes.control)
    return []
