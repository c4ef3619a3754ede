"""What one run of the main job is asked to do: from the command line, from a recipe file, or from Python.

A recipe is a YAML file (JSON is YAML too) whose keys are the long names of the command's options, without the dashes:

    sparsity: 0.9
    layer: ["fc1.*=0.95"]
    encode: gaps

The command line wins over the recipe, and paths are relative to the current folder in both. `resolved` fills in what
was left open; the JSON report embeds that recipe, so that it replays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from onnxprune_passes.errors import SelectionError

from .rounds.schedule import RISING, epochs_from, targets_from
from .train_recipe import TrainRecipe, check_recipe

Scope = Literal["global", "layer"]
Score = Literal["lamp", "magnitude"]
VALUES = r"^(f32|f16|bf16|int8|shared(:([1-8]|auto))?)$"
"""What `values` may be."""
Scheme = Literal["auto", "dense", "coo", "gaps", "bitmask", "rice"]
RoundTo = Literal[1, 4, 8, 16, "auto"]
Kind = Literal["conv", "fc", "rnn", "embedding", "head"]

ROUNDINGS = (1, 4, 8, 16)
"""What `round_to` can be, and what "auto" chooses from."""

MODES = ("sparsity", "quality", "threshold", "nm")
_OF_SPARSITY = ("scope", "score")
_SHARED = ("data", "data-option", "seed")
"""Options that the training of a run shares with the rest of it."""
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


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """The options of the main job; None means "not given".

    Attributes:
        sparsity: target share of zeros over the selected prunable weights, 0 ≤ S < 1.
        quality: threshold of a layer = quality × standard deviation of all its entries.
        threshold: entries with |w| below it go.
        nm: "N:M", N kept of every M in a row.
        channels: share of the channels to prune whole, 0 ≤ C < 1, before anything else; given alone, nothing else is.
        round_to: with `channels`: what stays of a coupled group of more than this is a multiple of it; 8 by default.
            "auto" measures all of them in onnxruntime and takes the fastest.
        round_threads: with `round_to: auto`: threads of onnxruntime while it measures; 1 by default.
        channel_score: with `channels`: the strength of a channel is the "norm" of its weights (the default), or, with
            "batchnorm", the scale of its BatchNormalization where it has one.
        channel_norm: with `channels`: "l2" (the default) or "l1".
        channel_reduce: with `channels`: over the weights of a channel norms are a "sum" (the default) or a "mean".
        channel_floor: with `channels`: so many channels of a coupled group stay in any case; 1 by default.
        channel_kind: with `channels`: only channels that weights of these kinds make, or whole heads; all when empty.
        channel_layer: "GLOB=C" each, with `channels`: groups made by a weight that matches lose C of their channels
            instead; the last match wins.
        channel_reads: with `channels`: when weights may lose columns that read channels which stay where they are made:
            "auto" where no channels may go whole (the default), "always", or "never".
        recalibrate: estimate the statistics of BatchNormalization anew from `data` once weights are pruned; with
            `channels` and `data` unless false, else when true.
        scope: with `sparsity` or `channels`: one ranking over all layers ("global", the default) or one for each
            ("layer").
        score: with `sparsity`: what is ranked, "lamp" (the default) or "magnitude".
        layer: "GLOB=V" each; layers that match get V, in the unit of the mode, instead; the last match wins.
        only: globs of the initializers to prune; all prunable ones when empty.
        skip: globs of initializers to leave alone; wins over `only`.
        embeddings: embedding tables are prunable too.
        fold: BatchNormalization goes into the weights before it; moves answers by rounding.
        shrink: remove dead neurons, and nodes and tensors that are not needed; without it shapes and nodes stay.
        values: what values the weights take before they are stored: "f32" (as they are), "f16" or "bf16" (rounded),
            "int8" (a scale for each output channel, symmetric),
            "shared:BITS" (one of 2^BITS - 1 values for each weight, 4 bits when only "shared" is given) or
            "shared:auto": the fewest bits for each tensor, biases too, within a budget measured with `data`; without
            `data`, the fewest that are within 5 % of a weight.
        values_max_drop: with `values: shared:auto` and labels in `data`: the metric may be so much worse than without
            shared values, in its own unit; 0.001 when neither this nor the next is given.
        values_max_error: with `values: shared:auto` and `data`: outputs may move so far, root mean square of the
            difference / root mean square of the output; 0.05 when there are no labels and nothing else is given.
        encode: how pruned tensors are stored.
        inline: decoders are written out as plain nodes, for tools that do not know functions.
        keep_inputs: initializers that are graph inputs stay so, hence dense.
        retrain: train after pruning, under the masks, as `training` says; needs torch.
        rounds: with `retrain`: prune and train so many times, the targets rising to the one given; 1 by default.
        rounds_schedule: with `retrain`: "constant" (the default), "cubic", or the targets, "0.5,0.8,0.9"; see
            `onnxprune.rounds.targets_from`.
        rounds_epochs: with `retrain`: the epochs of each round, such as "5,5,20"; those of `training` when None.
        rounds_shrink: with `retrain` and `sparsity`: dead neurons go before each round trains, so that later rounds
            train a smaller model; targets count what is left once they are gone, of what the model had as it came.
            `channels` go in the first round.
        max_drop: with `retrain`: take the last round whose metric is at most so much worse than the input's.
        training: with `retrain`: the options of the training; its `data`, `data_option` and `seed` are those below.
        data: what to verify on, and with labels to measure accuracy on: an `.npz` file, a folder of class folders of
            pictures, a Hugging Face data set on disk, or `module:function`; see `onnxprune.samples`.
        data_option: "KEY=VALUE" each: how `data` is read.
        check: how many seeded batches to verify on without `data`; 0 does not verify at all.
        seed: of the seeded batches.
        masks: an `.npz` file of masks to begin with.
        save_masks: where to write the masks, in the shapes of the input model.
        output: the file to write; `MODEL.pruned.onnx` when None.
        json: where to write the report.
        quiet: show errors and warnings only.
        overwrite: the output may be the input itself.
    """

    sparsity: Annotated[float, msgspec.Meta(ge=0, lt=1)] | None = None
    quality: Annotated[float, msgspec.Meta(ge=0)] | None = None
    threshold: Annotated[float, msgspec.Meta(ge=0)] | None = None
    nm: Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]*:[1-9][0-9]*$")] | None = None
    channels: Annotated[float, msgspec.Meta(ge=0, lt=1)] | None = None
    round_to: RoundTo | None = None
    round_threads: Annotated[int, msgspec.Meta(ge=1)] | None = None
    channel_score: Literal["norm", "batchnorm"] | None = None
    channel_norm: Literal["l1", "l2"] | None = None
    channel_reduce: Literal["sum", "mean"] | None = None
    channel_floor: Annotated[int, msgspec.Meta(ge=1)] | None = None
    channel_kind: tuple[Kind, ...] = ()
    channel_layer: tuple[str, ...] = ()
    channel_reads: Literal["auto", "always", "never"] | None = None
    recalibrate: bool | None = None
    scope: Scope | None = None
    score: Score | None = None
    layer: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    embeddings: bool = False
    fold: bool = False
    shrink: bool = True
    values: Annotated[str, msgspec.Meta(pattern=VALUES)] = "f32"
    values_max_drop: Annotated[float, msgspec.Meta(ge=0)] | None = None
    values_max_error: Annotated[float, msgspec.Meta(ge=0)] | None = None
    encode: Scheme = "auto"
    inline: bool = False
    keep_inputs: bool = False
    retrain: bool = False
    rounds: Annotated[int, msgspec.Meta(ge=1)] | None = None
    rounds_schedule: str | None = None
    rounds_epochs: str | None = None
    rounds_shrink: bool = False
    max_drop: Annotated[float, msgspec.Meta(ge=0)] | None = None
    training: TrainRecipe | None = None
    data: str | None = None
    data_option: tuple[str, ...] = ()
    check: Annotated[int, msgspec.Meta(ge=0)] = 2
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    masks: str | None = None
    save_masks: str | None = None
    output: str | None = None
    json: str | None = None
    quiet: bool = False
    overwrite: bool = False


class PruneOptions(Recipe, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """A recipe and the model it is for."""

    model: str

    @property
    def recipe(self) -> Recipe:
        """The options without the model."""
        return Recipe(**{name: getattr(self, name) for name in Recipe.__struct_fields__})

    @property
    def mode(self) -> str:
        """Which of `MODES` is in force; "channels" when nothing but channels is pruned."""
        alone = "sparsity" if self.channels is None else "channels"
        return next((mode for mode in MODES if getattr(self, mode) is not None), alone)


KEYS = Recipe.__struct_encode_fields__
"""The keys a recipe may have: long option names."""

LIST_KEYS = ("layer", "only", "skip", "channel-kind", "channel-layer", "data-option")
"""The keys whose value is a list."""


@dataclass(frozen=True)
class LayerValue:
    """A `--layer` or `--channel-layer` option: the glob and the value, in the unit of the mode in force."""

    glob: str
    value: float


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


def rounding_of(options: PruneOptions) -> int:
    """The rounding of `options`, 8 when none is given. Raises SelectionError when it is still to be measured."""
    if options.round_to == "auto":
        raise SelectionError("--round-to auto was not measured here: give 1, 4, 8 or 16")
    return options.round_to or 8


def split_layer(entry: str, option: str = "--layer") -> LayerValue:
    """The glob and value of "GLOB=V" given to `option`, split at the last "=". Raises SelectionError."""
    glob, equals, text = entry.rpartition("=")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not equals or not glob or not math.isfinite(value):
        raise SelectionError(f"{option} {entry!r} is not GLOB=V with a number V, such as 'fc1.*=0.9'")
    return LayerValue(glob, value)


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


def unknown_key(key: str) -> str:
    """The message for a recipe key that does not exist, naming the nearest one that does."""
    near = get_close_matches(key.replace("_", "-").removeprefix("--"), KEYS, n=1, cutoff=0.0)
    return f"a recipe has no key {key!r}: did you mean {near[0]!r}? (all keys: {', '.join(KEYS)})"
