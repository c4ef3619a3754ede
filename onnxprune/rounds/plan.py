"""The targets of each round, from the options of a run."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from onnxprune_passes.pipeline import State

from ..products import prune_once
from ..recipe import PruneOptions, split_layer
from .run import Target
from .schedule import RISING, targets_from


@dataclass(frozen=True)
class _Prune:
    """What one round prunes with."""

    options: PruneOptions

    def __call__(self, state: State) -> State:
        return prune_once(state, self.options)


def targets_of(options: PruneOptions) -> tuple[Target, ...]:
    """One target for each round of resolved `options`; a layer's own value rises as the others do."""
    rounds, schedule = options.rounds or 1, options.rounds_schedule or "constant"
    mode = options.mode
    if mode not in RISING:
        return (Target(_Prune(options), "nm" if mode == "nm" else "channels", None),)
    final = float(getattr(options, mode))
    layers = [split_layer(entry) for entry in options.layer]
    rising = [targets_from(layer.value, rounds, schedule, unit=mode) for layer in layers]
    found = []
    for number, target in enumerate(targets_from(final, rounds, schedule, unit=mode)):
        own = tuple(f"{layer.glob}={values[number]!r}" for layer, values in zip(layers, rising, strict=True))
        found.append(Target(_Prune(msgspec.structs.replace(options, **{mode: target}, layer=own)), mode, target))
    return tuple(found)
