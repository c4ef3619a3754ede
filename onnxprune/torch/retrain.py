"""`Retrain`: train the values that masks keep, and write them back into the same graph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from onnxprune_passes.errors import ModelError
from onnxprune_passes.fixed import fixed_transform
from onnxprune_passes.masks import Masks
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Change, State
from onnxprune_passes.selection import matches
from onnxprune_passes.weights import find_weights

from onnxprune.rounds.records import Measure
from onnxprune.runtime import input_specs
from onnxprune.samples import read_measured, read_pair
from onnxprune.torch.module import OnnxModule
from onnxprune.torch.train import setup
from onnxprune.torch.train.answers import Answers
from onnxprune.torch.train.checkpoints import Store, digest
from onnxprune.torch.train.distributed import processes
from onnxprune.torch.train.evaluate import measure
from onnxprune.torch.train.loop import Standing, Trainer
from onnxprune.torch.train.parts import Job
from onnxprune.torch.train.settled import settled
from onnxprune.torch.write import write_back
from onnxprune.train_recipe import FREE_IN_A_RESUME, TrainRecipe, check_recipe
from onnxprune.train_report import Training, Watch

if TYPE_CHECKING:
    from onnxprune.samples import Samples

_RANKS = 1 << 20
"""Distance between the seeds of processes."""


@dataclass(frozen=True, eq=False)
class Retrained:
    """What a training gave: the state after it, the module with its values, and how it went."""

    state: State
    module: OnnxModule
    training: Training


@dataclass(frozen=True, eq=False)
class Retrain:
    """Train the kept values of a model on samples; masks, names and shapes stay.

    Entries that the masks prune, and zeros of the file's weights, are held at zero through every step and checked
    after it. Under torchrun all processes train together; each gets the same state. Values of an epoch that
    measured no better than the model as it came are not taken: then the same State comes back.

    Attributes:
        recipe: the options; `data` and `validation_data` are only names here.
        training: the samples to train on.
        validation: the samples to measure on; None takes a share of `training`, as the recipe says.
        watch: who looks on.
        answers: what the teacher was asked already; give trainings with the same teacher the same one.

    Raises (when called):
        SelectionError: options contradict each other, name nothing, or do not fit the checkpoint that is there.
        DataError: the samples do not fit, the loss is not finite, or a checkpoint cannot be written or read.
        ModelError: an operator has no implementation, or weights are stored encoded.
        VerifyError: the torch module differs from onnxruntime.
        Stopped: `watch.stop` said so; there is a checkpoint.
    """

    recipe: TrainRecipe
    training: Samples
    validation: Samples | None = None
    watch: Watch = Watch()  # noqa: RUF009 - frozen, so sharing the default is safe
    answers: Answers = field(default_factory=Answers)
    name: str = "retrain"

    def __call__(self, state: State) -> State:
        """`state` with trained values; the same object when no value changed."""
        return self.run(state).state

    def run(self, state: State) -> Retrained:
        """The same with the module and an account of the training."""
        check_recipe(self.recipe)
        device = setup.device_from(self.recipe.device)
        with processes(device.type) as joined, settled(self.recipe.seed + _RANKS * joined.rank, self.recipe.threads):
            job = setup.made_job(
                self.recipe,
                state.model,
                held_masks(state, self.recipe),
                self.training,
                self.validation,
                joined,
                self.watch,
                self.answers,
            )
            _require_same_everywhere(job)
            standing = Trainer(job, self._store(job, state)).run()
            job.module.to("cpu")
        return self._result(state, job, standing)

    def measured(self, state: State) -> Measure | None:
        """What `state` as it is measures on the validation samples; None when nothing is measured."""
        check_recipe(self.recipe)
        device = setup.device_from(self.recipe.device)
        with processes(device.type) as joined, settled(self.recipe.seed + _RANKS * joined.rank, self.recipe.threads):
            masks = held_masks(state, self.recipe)
            job = setup.made_job(
                self.recipe, state.model, masks, self.training, self.validation, joined, Watch(), self.answers
            )
            found = measure(job)
            metric = job.new_metric()
        if found is None or found.metric is None or metric is None:
            return None
        return Measure(metric.name, found.metric, metric.larger_is_better)

    def _store(self, job: Job, state: State) -> Store | None:
        if self.recipe.checkpoint is None:
            return None
        options = {
            name: value for name, value in msgspec.to_builtins(self.recipe).items() if name not in FREE_IN_A_RESUME
        }
        identity = _identity(options, job, state.model) if job.processes.is_main else {}
        store = Store(Path(self.recipe.checkpoint), identity)
        if self.recipe.restart and job.processes.is_main:
            store.remove()
        return store

    def _result(self, state: State, job: Job, standing: Standing) -> Retrained:
        model = write_back(job.module, state.model)
        training = _account(job, standing)
        if model is state.model:
            return Retrained(state, job.module, training)
        after = replace(state, model=model).noted(Change(self.name, summary(training, job)))
        return Retrained(after, job.module, training)


def samples_for(recipe: TrainRecipe, model: str) -> tuple[Samples, Samples | None]:
    """What the recipe trains the file `model` on, and what it measures on where that is other data.

    Raises:
        DataError, ModelError: the data cannot be read or does not fit; the model cannot be read.
    """
    specs = input_specs(model)
    samples, held = read_pair(recipe.data, specs, recipe.data_option)
    if recipe.validation_data is not None:
        return samples, read_measured(recipe.validation_data, specs, recipe.data_option)
    return samples, held if recipe.validation > 0 else None


def held_masks(state: State, recipe: TrainRecipe) -> Masks:
    """The masks to hold while training: those of the state, and zeros of weights, which count as pruned.

    Weights that look like fixed transforms are left out unless they are masked or `recipe.train` names them.
    """
    found = {}
    for weight in find_weights(state.model, embeddings=True):
        named = weight.key in state.masks or any(matches(weight.key, glob) for glob in recipe.train)
        if not named and fixed_transform(state.model, weight) is not None:
            continue
        values = state.model.initializers[weight.key]
        keep = np.asarray(values != (0 if weight.zero_point is None else weight.zero_point))
        if not keep.all():
            found[weight.key] = keep
    return state.masks.shrunk(found)


def _require_same_everywhere(job: Job) -> None:
    """Raise ModelError when processes hold other masks than the main one."""
    masks = job.module.masks
    own = digest(part for key in masks for part in (key.encode(), masks.bits(key).tobytes()))
    if job.processes.any_of(own != job.processes.from_main(own)) == (True,):
        raise ModelError("the processes have different masks: give all of them the same model and --masks")


def _identity(options: Mapping[str, Any], job: Job, model: Model) -> dict[str, dict[str, Any]]:
    """What a checkpoint must agree with to be taken up again."""
    masks = job.module.masks
    content = {
        "the model": digest(_bytes_of(model)),
        "the masks": digest(part for key in masks for part in (key.encode(), masks.bits(key).tobytes())),
        "the training data": _samples_digest(job.training.samples),
        "the validation data": None if job.validation is None else _samples_digest(job.validation.samples),
    }
    return {"content": content, "option": dict(options), "run": {"the number of processes": job.processes.world}}


def _bytes_of(model: Model) -> Iterator[bytes]:
    yield model.skeleton.SerializeToString(deterministic=True)
    for key in model.initializers:
        yield key.encode()
        for chunk in model.initializers.source(key).chunks():
            yield chunk.view(np.uint8).tobytes()


def _samples_digest(samples: Samples) -> str:
    """Their number, and the content of three of them."""
    parts = [str(len(samples)).encode()]
    for row in dict.fromkeys((0, len(samples) // 2, len(samples) - 1)):
        feeds, labels = samples.batch(np.array([row]))
        parts += [np.ascontiguousarray(feeds[name]).tobytes() for name in sorted(feeds)]
        parts += [] if labels is None else [np.ascontiguousarray(labels).tobytes()]
    return digest(parts)


def _account(job: Job, standing: Standing) -> Training:
    rows = [row for row in job.module.rows if row.trained]
    metric = job.new_metric()
    kept = standing.best if standing.values is not None and standing.best is not None else standing.history[-1].epoch
    notes = list(job.notes)
    if kept == 0:
        notes.append("no epoch measured better than the model as it came, so its values stay: try another --lr")
    masks = job.module.masks
    return Training(
        epochs=tuple(standing.history),
        metric=None if metric is None else metric.name,
        larger_is_better=metric is None or metric.larger_is_better,
        kept=kept,
        stopped_early=standing.stopped_early,
        resumed_at=standing.resumed_at,
        parameters=sum(math.prod(row.shape) for row in rows),
        pruned=sum(math.prod(row.shape) - masks.kept(row.key) for row in rows if row.key in masks),
        notes=tuple(notes),
    )


def summary(training: Training, job: Job) -> str:
    """One line on what a training did."""
    before, after = training.epochs[0], training.at(training.kept)
    recipe = job.recipe
    measured = ""
    if training.metric is not None and before.metric is not None and after.metric is not None:
        measured = f", {training.metric} {before.metric:.4f} -> {after.metric:.4f}"
    elif before.validation_loss is not None and after.validation_loss is not None:
        measured = f", validation loss {before.validation_loss:.4g} -> {after.validation_loss:.4g}"
    how = f"{recipe.optimizer}, rate {job.rate:g}, {recipe.schedule}"
    return (
        f"epoch {training.kept} of {recipe.epochs} ({how}){measured}; "
        f"{training.parameters:,} values trained, {training.pruned:,} of them held at 0"
    )
