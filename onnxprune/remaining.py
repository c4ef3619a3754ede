"""Sparsity over what remains once whole channels are pruned: each target with those entries counted in."""

from __future__ import annotations

import glob
import math
from collections.abc import Sequence
from dataclasses import replace

from onnxprune_passes.fixed import fixed_transform
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.pipeline import State
from onnxprune_passes.selection import own_values, selected
from onnxprune_passes.thresholds import Sparsity
from onnxprune_passes.weights import Weight, find_weights


def over_what_remains(one: MagnitudePrune, before: State, after: State) -> MagnitudePrune:
    """`one` with sparsities that count only what the masks of `after` keep of what those of `before` kept.

    Thresholds of other kinds do not count entries and stay as they are.
    """
    if not isinstance(one.threshold, Sparsity) or after is before:
        return one
    weights = _prunable(one, before)
    own = own_values([weight.key for weight in weights], one.layers)
    layered = one.threshold.scope == "layer"
    shared = [weight for weight in weights if weight.key not in own]
    values = {
        weight.key: own.get(weight.key, one.threshold.value) for weight in weights if layered or weight.key in own
    }
    layers = tuple(
        (glob.escape(weight.key), _counted_in([weight], values[weight.key], before, after))
        for weight in weights
        if weight.key in values
    )
    value = one.threshold.value if layered else _counted_in(shared, one.threshold.value, before, after)
    return replace(one, threshold=replace(one.threshold, value=value), layers=layers)


def _prunable(one: MagnitudePrune, state: State) -> list[Weight]:
    """The weights that `one` prunes."""
    weights = find_weights(state.model, embeddings=one.embeddings)
    chosen = set(selected([weight.key for weight in weights], one.only, one.skip))
    return [
        weight
        for weight in weights
        if weight.key in chosen and (weight.key in one.only or fixed_transform(state.model, weight) is None)
    ]


def _counted_in(weights: Sequence[Weight], sparsity: float, before: State, after: State) -> float:
    """The sparsity of `weights` as a whole that is `sparsity` of what `after` keeps of them."""
    size = sum(weight.size for weight in weights)
    gone = sum(_kept(weight, before) - _kept(weight, after) for weight in weights)
    count = gone + math.floor(sparsity * (size - gone) + 0.5)
    return min(count, size - 0.25) / size if size else sparsity  # below 1, and rounded to `count` again


def _kept(weight: Weight, state: State) -> int:
    return state.masks.kept(weight.key) if weight.key in state.masks else weight.size
