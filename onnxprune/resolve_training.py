"""The part of a run's options that says how it trains: merged, checked, defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from onnxprune_passes.errors import SelectionError

from .layer_value import split_layer
from .recipe import PruneOptions
from .rounds.schedule import RISING, epochs_from, targets_from
from .train_recipe import TrainRecipe, check_recipe

_SHARED = ("data", "data-option", "seed")
"""Options that the training of a run shares with the rest of it."""


def with_training(merged: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """`merged` with the recipe's training under that of the command line, and the data and seed that both share.

    Raises:
        SelectionError: `training` is no mapping, or names what the run as a whole says.
    """
    if not merged.get("retrain") and "training" not in merged:
        return dict(merged)
    parts = [values.get("training") or {} for values in (recipe, merged)]
    if not all(isinstance(part, Mapping) for part in parts):
        raise SelectionError(
            "the recipe's training is not a mapping of options: write lines such as 'epochs: 10' under it"
        )
    training = {**parts[0], **parts[1]}
    for name in _SHARED:
        if name in training:
            raise SelectionError(f"{name} stands beside training, not in it: the run has one")
        if merged.get(name) is not None:
            training[name] = merged[name]
    return {**merged, "training": training} if "data" in training else dict(merged, training=None)


def retraining(options: PruneOptions) -> dict[str, Any]:
    """The options of --retrain that were left open, resolved. Raises SelectionError when they contradict the others."""
    if not options.retrain:
        for name in ("rounds", "rounds-schedule", "rounds-epochs", "rounds-shrink", "max-drop", "training"):
            if getattr(options, name.replace("-", "_")) not in (None, False):
                what = "the options of a training belong" if name == "training" else f"--{name} belongs"
                raise SelectionError(f"{what} to --retrain: give --retrain too, or leave them out")
        return {}
    if options.data is None:
        raise SelectionError("--retrain needs --data, the samples to train on")
    rounds = options.rounds or 1
    if rounds > 1 and options.mode not in RISING:
        raise SelectionError(
            f"--rounds {rounds} needs a target that can rise from round to round: --sparsity, --quality or --threshold"
        )
    if rounds > 1 and options.channels is not None and not options.rounds_shrink:
        raise SelectionError(
            "--channels goes once, not in rounds: give --rounds-shrink, which takes them out in the first, or prune "
            "them in a run of its own, then this one"
        )
    if options.mode in RISING:
        final = getattr(options, options.mode)
        for value in (0.5 if final is None else final, *(split_layer(entry).value for entry in options.layer)):
            targets_from(value, rounds, options.rounds_schedule or "constant", unit=options.mode)
    _check_rounds_shrink(options)
    epochs_from(options.rounds_epochs, rounds, 1)
    training = options.training or TrainRecipe(data=options.data, data_option=options.data_option, seed=options.seed)
    if training.loss == "distill" and training.teacher is None:
        training = msgspec.structs.replace(training, teacher=options.model)
    check_recipe(training)
    return {"rounds": rounds, "rounds_schedule": options.rounds_schedule or "constant", "training": training}


def _check_rounds_shrink(options: PruneOptions) -> None:
    """Raise SelectionError for what `rounds_shrink` cannot go with."""
    if not options.rounds_shrink:
        return
    if options.mode != "sparsity" or options.layer or options.scope == "layer":
        raise SelectionError(
            "--rounds-shrink counts entries over all layers: give --sparsity, without --layer or --scope layer"
        )
    for name, given in (("no-shrink", not options.shrink), ("save-masks", options.save_masks is not None)):
        if given:
            raise SelectionError(f"--rounds-shrink changes shapes and --{name} wants those of the input: leave one out")
