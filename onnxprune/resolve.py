"""From what was given to the options of a run: recipe under command line, defaults filled in, contradictions said."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from onnxprune_passes.errors import SelectionError

from .layer_value import split_layer
from .recipe import MODES, PruneOptions, unknown_key
from .resolve_training import retraining, with_training

_OF_SPARSITY = ("scope", "score")
_OF_CHANNELS = (
    "round-to",
    "round-threads",
    "channel-score",
    "channel-norm",
    "channel-reduce",
    "channel-floor",
    "channel-kind",
    "channel-layer",
    "channel-reads",
)


def options_from(model: str, given: Mapping[str, Any], recipe: Mapping[str, Any] | None = None) -> PruneOptions:
    """The resolved options of a run.

    Args:
        model: the model's path.
        given: what the command line gave, by recipe key (see `KEYS`); options that were not given are absent.
        recipe: what `read_recipe` read; `given` wins over it.

    Raises:
        SelectionError: an unknown key, a value out of range, or options that exclude each other; a usage error.
    """
    for values in (recipe or {}, given):
        contradiction(values)
    merged = with_training({**_without_overruled_mode(recipe or {}, given), **given}, recipe or {})
    try:
        options = msgspec.convert({**merged, "model": model}, PruneOptions)
    except msgspec.ValidationError as error:
        raise SelectionError(_plain(str(error))) from error
    return resolved(options)


def resolved(options: PruneOptions) -> PruneOptions:
    """`options` with every default filled in. Raises SelectionError when they contradict each other."""
    given = {key: value for key, value in msgspec.to_builtins(options).items() if value is not None}
    contradiction(given)
    for name in ("quality", "threshold"):
        if not math.isfinite(getattr(options, name) or 0):
            raise SelectionError(f"--{name} must be a finite number")
    for entry in options.layer:
        split_layer(entry)
    for entry in options.channel_layer:
        split_layer(entry, "--channel-layer")
    if options.data_option and options.data is None:
        raise SelectionError("--data-option has no meaning without --data: give that too, or leave it out")
    _check_channels(options)
    _check_values(options)
    if options.fold and not options.shrink:
        raise SelectionError("--fold takes nodes away and --no-shrink keeps them all: give one of them")
    if options.recalibrate and options.data is None:
        raise SelectionError("--recalibrate needs --data: statistics are estimated from samples")
    if options.recalibrate and options.retrain:
        raise SelectionError("--recalibrate has no meaning with --retrain: say --batch-norm recalibrate")
    changes: dict[str, Any] = {"output": options.output or default_output(options.model)}
    if options.recalibrate is None:
        changes["recalibrate"] = options.channels is not None and options.data is not None and not options.retrain
    changes |= retraining(options)
    if options.mode == "sparsity":
        changes["sparsity"] = 0.5 if options.sparsity is None else options.sparsity
        changes["scope"] = options.scope or "global"
        changes["score"] = options.score or "lamp"
    if options.channels is not None:
        changes["round_to"] = options.round_to or 8
        changes["channel_score"] = options.channel_score or "norm"
        changes["channel_norm"] = options.channel_norm or "l2"
        changes["channel_reduce"] = options.channel_reduce or "sum"
        changes["channel_floor"] = options.channel_floor or 1
        changes["channel_reads"] = options.channel_reads or "auto"
        changes["scope"] = options.scope or "global"
    return msgspec.structs.replace(options, **changes)


def default_output(model: str) -> str:
    """`MODEL.pruned.onnx` for `MODEL.onnx`, beside it."""
    path = Path(model)
    stem = path.name.removesuffix(".onnx")
    return str(path.with_name(f"{stem}.pruned.onnx"))


def contradiction(given: Mapping[str, Any]) -> None:
    """Raise SelectionError when `given` (by recipe key) holds options that exclude each other."""
    modes = [mode for mode in MODES if given.get(mode) is not None]
    if len(modes) > 1:
        raise SelectionError(f"--{modes[0]} and --{modes[1]} exclude each other: give one of them")
    if not modes or modes == ["sparsity"]:
        return
    for name in _OF_SPARSITY:
        of_channels = name == "scope" and given.get("channels") is not None
        if given.get(name) is not None and not of_channels:
            raise SelectionError(f"--{name} belongs to --sparsity and has no meaning with --{modes[0]}: leave it out")
    if modes == ["nm"] and given.get("layer"):
        raise SelectionError("--layer has no meaning with --nm: leave it out; --skip leaves layers alone")


def _check_channels(options: PruneOptions) -> None:
    """Raise SelectionError for what has no meaning without --channels, or with nothing else."""
    for name in _OF_CHANNELS:
        if options.channels is None and getattr(options, name.replace("-", "_")):
            raise SelectionError(f"--{name} belongs to --channels: give --channels too, or leave it out")
    if options.round_threads and options.round_to != "auto":
        raise SelectionError("--round-threads belongs to --round-to auto, which measures: leave it out")
    if options.round_to == "auto" and not options.shrink:
        raise SelectionError("--round-to auto measures smaller shapes, and --no-shrink keeps them: leave one out")
    if options.mode == "channels":
        for name, instead in (("score", "--channel-score"), ("layer", "--channel-layer")):
            if getattr(options, name):
                raise SelectionError(
                    f"--{name} has no meaning with --channels alone: give --sparsity too, or {instead} for the channels"
                )


def _check_values(options: PruneOptions) -> None:
    """Raise SelectionError for a budget that nothing is measured against."""
    for name in ("values-max-drop", "values-max-error"):
        value = getattr(options, name.replace("-", "_"))
        if value is None:
            continue
        if options.values != "shared:auto":
            raise SelectionError(f"--{name} belongs to --values shared:auto: give that too, or leave it out")
        if options.data is None:
            raise SelectionError(f"--{name} needs --data: what sharing does is measured on samples")
        if not math.isfinite(value):
            raise SelectionError(f"--{name} must be a finite number")


def _without_overruled_mode(recipe: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe without the mode that another mode on the command line replaces, and without what belongs to it."""
    kept = {key: value for key, value in recipe.items() if value is not None}
    new = next((mode for mode in MODES if given.get(mode) is not None), None)
    old = next((mode for mode in MODES if mode in kept), "sparsity")
    if new is None or new == old:
        if old != "sparsity":
            contradiction({old: kept[old], **given})
        return kept
    if kept.get("layer") and not given.get("layer"):
        raise SelectionError(f"the recipe's layer values are meant for --{old}: with --{new}, give --layer anew")
    gone = {*MODES, "layer", *_OF_SPARSITY} - ({"scope"} if kept.get("channels") is not None else set())
    return {key: value for key, value in kept.items() if key not in gone}


def _plain(message: str) -> str:
    """Msgspec's message, naming the option first: "--sparsity: expected `float` < 1.0"."""
    if message.startswith("Object contains unknown field"):
        return unknown_key(message.split("`")[1])
    what, _, where = message.partition(" - at `$.")
    name = where.rstrip("`").split("[")[0].removeprefix("training.")
    return f"--{name}: {what[0].lower()}{what[1:].replace(' | null', '')}".replace("`", "")
