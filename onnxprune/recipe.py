"""What one run of the main job is asked to do: from the command line, from a recipe file, or from Python.

A recipe is a YAML file (JSON is YAML too) whose keys are the long names of the command's options, without the dashes:

    sparsity: 0.9
    layer: ["fc1.*=0.95"]
    encode: gaps

The command line wins over the recipe, and paths are relative to the current folder in both. `resolve.resolved` fills in
what was left open; the JSON report embeds that recipe, so that it replays.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Literal

import msgspec
from onnxprune_passes.errors import SelectionError

from .train_recipe import TrainRecipe

Scope = Literal["global", "layer"]
Score = Literal["lamp", "magnitude"]
VALUES = r"^(f32|f16|bf16|int8|shared(:([1-8]|auto))?)$"
"""What `values` may be."""
Scheme = Literal["auto", "dense", "coo", "gaps", "bitmask", "rice", "2of4", "blocks"]
RoundTo = Literal[1, 4, 8, 16, "auto"]
Kind = Literal["conv", "fc", "rnn", "embedding", "head"]

ROUNDINGS = (1, 4, 8, 16)
"""What `round_to` can be, and what "auto" chooses from."""

MODES = ("sparsity", "quality", "threshold", "nm")


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


def rounding_of(options: PruneOptions) -> int:
    """The rounding of `options`, 8 when none is given. Raises SelectionError when it is still to be measured."""
    if options.round_to == "auto":
        raise SelectionError("--round-to auto was not measured here: give 1, 4, 8 or 16")
    return options.round_to or 8


def unknown_key(key: str) -> str:
    """The message for a recipe key that does not exist, naming the nearest one that does."""
    near = get_close_matches(key.replace("_", "-").removeprefix("--"), KEYS, n=1, cutoff=0.0)
    return f"a recipe has no key {key!r}: did you mean {near[0]!r}? (all keys: {', '.join(KEYS)})"
