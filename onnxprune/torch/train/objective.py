"""What a training minimises: the loss by its name, by the labels, and by what the model computes last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnxprune_passes.errors import DataError, SelectionError
from onnxprune_passes.model import Model

from onnxprune.shapes import inferred_model
from onnxprune.torch.train.losses import Loss, loss_from
from onnxprune.torch.train.pretail import loss_output
from onnxprune.train_recipe import TrainRecipe

if TYPE_CHECKING:
    from onnxprune.samples import Samples


@dataclass(frozen=True)
class Target:
    """What is trained.

    Attributes:
        loss: the loss's name.
        hard: the loss of the labels when `loss` is `distill`, which also says how teacher and module are compared.
        scores: the value that it is taken at.
        activation: the operator that was left off behind it; None when nothing was.
    """

    loss: str
    hard: str | None
    scores: str
    activation: str | None


def kind_of_labels(samples: Samples) -> str:
    """`classes` (integers), `values` (floats) or `none`, by the first sample. Raises DataError when there is none."""
    if not len(samples):
        raise DataError(f"there are no samples to train on ({samples.note})")
    _, labels = samples.batch(np.zeros(1, np.int64))
    return "none" if labels is None else "classes" if labels.dtype.kind in "iu" else "values"


def loss_name(recipe: TrainRecipe, labels: str, activation: str | None) -> str:
    """The loss that the recipe asks for, or the one that fits.

    Raises:
        DataError: there are neither labels nor a teacher.
    """
    if recipe.loss is not None:
        return recipe.loss
    if recipe.teacher is not None:
        return "distill"
    if labels == "none":
        raise DataError("the data has no labels: add them, or give a --teacher to learn from")
    return hard_loss_name(labels, activation)


def hard_loss_name(labels: str, activation: str | None) -> str:
    """The loss for labels of a kind (`none` as classes) at an output that ends in an activation."""
    if activation == "Sigmoid":
        return "bce"
    return "mse" if labels == "values" and activation is None else "ce"


def made_loss(recipe: TrainRecipe, target: Target, labels: str) -> Loss:
    """The loss with the options of the recipe. Raises SelectionError for options it does not read."""
    weight = 1.0 if labels == "none" else recipe.distill_weight
    return loss_from(
        target.loss,
        label_smoothing=recipe.label_smoothing,
        class_axis=recipe.class_axis,
        temperature=recipe.temperature,
        weight=weight if target.hard is not None else None,
        hard=target.hard,
    )


def what_to_train(recipe: TrainRecipe, model: Model, labels: str) -> Target:
    """The loss, and where it is taken.

    Raises:
        SelectionError: without labels nothing says whether the output holds classes or numbers.
        DataError: there are neither labels nor a teacher.
    """
    asked = recipe.output_name
    _, ends_in = loss_output(model, asked)
    name = loss_name(recipe, labels, ends_in)
    hard = None
    if name == "distill":
        if recipe.hard_loss is None and labels == "none" and ends_in is None and _rank(model, asked) != 2:
            raise SelectionError(
                "without labels, and with no Softmax or Sigmoid at its end, the output may hold classes or numbers: "
                "say --hard-loss ce or --hard-loss mse"
            )
        hard = recipe.hard_loss or hard_loss_name(labels, ends_in)
    scores, activation = loss_output(model, asked, loss=hard or name)
    return Target(name, hard, scores, activation)


def _rank(model: Model, output: str | None) -> int | None:
    """How many axes a value has; None when that is not known."""
    graph = inferred_model(model.skeleton).graph
    name = output or model.graph.output[0].name
    for value in (*graph.output, *graph.value_info):
        if value.name == name and value.type.tensor_type.HasField("shape"):
            return len(value.type.tensor_type.shape.dim)
    return None


def loss_note(target: Target, output: str) -> str:
    """Where the loss is taken, for the report."""
    where = "" if target.activation is None else f", before the {target.activation} of {output!r}"
    hard = "" if target.hard is None else f" ({target.hard})"
    return f"loss {target.loss}{hard} at {target.scores!r}{where}"
