"""The models a run makes, each from the one before: load, prune, fold, shrink, round, encode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxprune_passes.channels import PruneChannels
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.encode import EncodedModel, densify, encode_model
from onnxprune_passes.fold import FoldBatchNorm, GatherLiveInputs, RemoveNoOps, RemoveUnused
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.masks import Masks, apply_masks
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Change, Pass, State
from onnxprune_passes.storage import load
from onnxprune_passes.thresholds import NM, Absolute, Quality, Sparsity, Threshold
from onnxprune_passes.values import QuantizeValues, RoundValues, ShareValues
from onnxprune_passes.weights import find_weights

from .layer_value import split_layer
from .recalibration import Recalibrate, inputs_to_recalibrate
from .recipe import PruneOptions, rounding_of
from .records import SharedValues
from .remaining import over_what_remains
from .shared_values import Wanted, share_values
from .steps import Steps
from .verification import Source


@dataclass(frozen=True, eq=False)
class Products:
    """The models of a run.

    Attributes:
        original: the input, made dense where it was encoded.
        was_encoded: whether it was.
        pruned: after masks, channel and magnitude pruning, and new BatchNormalization statistics; the same shapes.
        folded: after BatchNormalization went into the weights; the same State when that was not asked for.
        shrunk: after the removal of dead neurons and of what else is not needed; the same State when not asked for.
        rounded: after weights took the values asked for; the same State when they were left as they are.
        encoded: how the rounded model is stored.
        shared_values: what was measured to choose values; None where nothing was.
    """

    original: Model
    was_encoded: bool
    pruned: State
    folded: State
    shrunk: State
    rounded: State
    encoded: EncodedModel
    shared_values: SharedValues | None = None


_NOTHING = {
    "fold-batch-norm": "no BatchNormalization that may go",
    "remove-dead-neurons": "no dead neurons that may go",
}
"""What is said of a pass that the user asked for, when it did nothing."""


def fold_passes(options: PruneOptions) -> tuple[Pass, ...]:
    """What runs between pruning and shrinking with `--fold`, in this order; outputs move by rounding."""
    return (RemoveUnused(), RemoveNoOps(), FoldBatchNorm(keep_inputs=options.keep_inputs))


def shrink_passes(options: PruneOptions) -> tuple[Pass, ...]:
    """What runs before encoding, in this order, unless `--no-shrink` says otherwise; all of it exact.

    What no output depends on goes first, since it would keep neurons alive, and last, for what the others leave over.
    """
    gather = GatherLiveInputs(options.encode, keep_inputs=options.keep_inputs, inline=options.inline)
    return (RemoveUnused(), RemoveNoOps(), RemoveDeadNeurons(), gather, RemoveUnused())


_SHARED_ERROR = 0.05
"""What `shared:auto` allows without data: root mean square error of a weight's kept entries, as a share of theirs."""


def value_passes(options: PruneOptions) -> tuple[Pass, ...]:
    """What runs last before encoding with `--values`; it changes answers on purpose."""
    kind, _, bits = options.values.partition(":")
    if kind == "f16":
        return (RoundValues("f16"),)
    if kind == "bf16":
        return (RoundValues("bf16"),)
    if kind == "int8":
        return (QuantizeValues(),)
    if kind == "shared":
        return (ShareValues(8, error=_SHARED_ERROR) if bits == "auto" else ShareValues(int(bits or 4)),)
    return ()


def make(options: PruneOptions, steps: Steps, prune: Callable[[State], State] | None = None) -> Products:
    """Run the passes; `prune` stands for those before shrinking.

    Raises ModelError, DataError, SelectionError, PassError or EncodeError, and what `prune` raises.
    """
    with steps.step("load"):
        stored = load(options.model)
        original = densify(stored)
    with steps.step("prune"):
        state = masked_state(original, options.masks)
        pruned = prune_once(state, options) if prune is None else prune(state)
    if options.recalibrate and pruned.model is not original:
        pruned = _recalibrated(pruned, options, steps)
    folded = pruned
    if options.fold:
        with steps.step("fold"):
            folded = _after(fold_passes(options), pruned)
    shrunk = folded
    if options.shrink:
        with steps.step("shrink"):
            shrunk = _after(shrink_passes(options), folded)
    rounded, measured = shrunk, None
    if options.values == "shared:auto" and options.data is not None:
        rounded, measured = share_values(shrunk, _wanted(options), steps)
    elif options.values != "f32":
        with steps.step("round"):
            rounded = _after(value_passes(options), shrunk)
    with steps.step("encode"):
        encoded = encode_model(rounded.model, options.encode, keep_inputs=options.keep_inputs, inline=options.inline)
    return Products(original, original is not stored, pruned, folded, shrunk, rounded, encoded, measured)


def _wanted(options: PruneOptions) -> Wanted:
    """What `--values shared:auto` is to search within; of a training's two data, the one that it was measured on."""
    training = options.training
    held_out = None if training is None else training.validation_data
    return Wanted(
        model=options.model,
        source=Source(held_out or options.data, options.data_option),
        metric=None if training is None else training.metric,
        max_drop=options.values_max_drop,
        max_error=options.values_max_error,
        encoding=options.encode,
        keep_inputs=options.keep_inputs,
        inline=options.inline,
        folder=Path(str(options.output)).parent,
    )


def _recalibrated(pruned: State, options: PruneOptions, steps: Steps) -> State:
    """`pruned` with statistics of BatchNormalization estimated from `--data`."""
    with steps.step("choose inputs", "to recalibrate on"):
        inputs = inputs_to_recalibrate(options.model, Source(options.data, options.data_option))
    folder = Path(str(options.output)).parent
    return _noted(Recalibrate(inputs, folder, steps), pruned, "no BatchNormalization whose statistics may be replaced")


def smaller_model(original: Model, options: PruneOptions) -> Model:
    """`original`, pruned, folded and shrunk as `options` say."""
    passes = (*(fold_passes(options) if options.fold else ()), *shrink_passes(options))
    return _after(passes, prune_once(masked_state(original, options.masks), options)).model


def prune_once(state: State, options: PruneOptions) -> State:
    """`state` after the channels, and then the weights."""
    model = state.model
    one = _prune_pass(options)
    if options.channels is not None:
        after = _noted(_channels_pass(options), state, "no channels that may go")
        if options.mode == "channels":
            return after
        state, one = after, over_what_remains(one, state, after)
    return _noted(one, state, _nothing_to_prune(model, options))


def threshold_from(options: PruneOptions) -> Threshold:
    """The threshold that resolved options ask for."""
    if options.quality is not None:
        return Quality(options.quality)
    if options.threshold is not None:
        return Absolute(options.threshold)
    if options.nm is not None:
        kept, of = options.nm.split(":")
        return NM(int(kept), int(of))
    return Sparsity(options.sparsity or 0.0, options.scope or "global", options.score or "lamp")


def _channels_pass(options: PruneOptions) -> PruneChannels:
    entries = [split_layer(entry) for entry in options.channel_layer]
    return PruneChannels(
        options.channels or 0.0,
        scope=options.scope or "global",
        score=options.channel_score or "norm",
        norm=options.channel_norm or "l2",
        reduce=options.channel_reduce or "sum",
        round_to=rounding_of(options),
        floor=options.channel_floor or 1,
        kinds=options.channel_kind,
        layers=tuple((entry.glob, entry.value) for entry in entries),
        only=options.only,
        skip=options.skip,
        reads=options.channel_reads or "auto",
    )


def _prune_pass(options: PruneOptions) -> MagnitudePrune:
    entries = [split_layer(entry) for entry in options.layer]
    return MagnitudePrune(
        threshold_from(options),
        only=options.only,
        skip=options.skip,
        layers=tuple((entry.glob, entry.value) for entry in entries),
        embeddings=options.embeddings,
    )


def masked_state(model: Model, path: str | None) -> State:
    """The state to begin with; the masks in the file `path` are applied where there is one."""
    if path is None:
        return State(model)
    masks = Masks.load(path)
    weights = find_weights(model, embeddings=True)
    fills = {weight.key: weight.zero_point for weight in weights if weight.zero_point is not None}
    change = Change("masks", f"{len(masks)} masks taken from {path}")
    return State(apply_masks(model, masks, fills), masks).noted(change)


def _nothing_to_prune(model: Model, options: PruneOptions) -> str:
    found = bool(find_weights(model, embeddings=options.embeddings))
    return f"nothing to prune: {'the selected weights are sparse enough already' if found else 'there are no weights'}"


def _after(passes: Sequence[Pass], state: State) -> State:
    """The state after `passes`."""
    for one in passes:
        state = _noted(one, state, _NOTHING[one.name]) if one.name in _NOTHING else one(state)
    return state


def _noted(one: Pass, state: State, nothing: str) -> State:
    """The state after a pass; what it did not do is said too."""
    after = one(state)
    return after if after.model is not state.model else after.noted(Change(one.name, nothing))
