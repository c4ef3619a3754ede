"""The targets of each round, from the options of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.fold import RemoveUnused
from onnxprune_passes.pipeline import State, chain

from ..layer_value import split_layer
from ..products import prune_once
from ..recipe import PruneOptions
from .run import Target, entries_of, kept_of
from .schedule import RISING, targets_from

_TRIES = 12


@dataclass(frozen=True)
class _Prune:
    """What one round prunes with."""

    options: PruneOptions

    def __call__(self, state: State) -> State:
        return prune_once(state, self.options)


@dataclass(frozen=True)
class _PruneAndShrink:
    """Prune so that `kept` entries are left once dead neurons are out, and take those out.

    Weights of dead neurons go with them, so that a plain prune to `kept` would leave fewer. It is tried with more and
    more until the count is met, or the largest below it is found.
    """

    options: PruneOptions
    kept: int

    def __call__(self, state: State) -> State:
        size, wanted = entries_of(state), self.kept
        found: tuple[int, State] | None = None
        for _ in range(_TRIES):
            after = self._tried(state, max(size - wanted, 0) / max(size, 1))
            kept = kept_of(after)
            if found is None or found[0] < kept <= self.kept or kept <= self.kept < found[0]:
                found = kept, after
            if kept == self.kept or wanted >= size:
                break
            wanted = min(wanted + self.kept - kept, size)
        assert found is not None  # it was tried once at least
        return found[1]

    def _tried(self, state: State, sparsity: float) -> State:
        pruned = prune_once(state, msgspec.structs.replace(self.options, sparsity=sparsity))
        return chain(RemoveUnused(), RemoveDeadNeurons(), RemoveUnused())(pruned)


def targets_of(options: PruneOptions, entries: int = 0) -> tuple[Target, ...]:
    """One target for each round of resolved `options`; a layer's own value rises as the others do.

    Args:
        options: of the run.
        entries: of the prunable weights of the model as it came, which `rounds_shrink` counts against.
    """
    rounds, schedule = options.rounds or 1, options.rounds_schedule or "constant"
    mode = options.mode
    if mode not in RISING:
        return (Target(_Prune(options), "nm" if mode == "nm" else "channels", None),)
    final = float(getattr(options, mode))
    layers = [split_layer(entry) for entry in options.layer]
    rising = [targets_from(layer.value, rounds, schedule, unit=mode) for layer in layers]
    found = []
    for number, target in enumerate(targets_from(final, rounds, schedule, unit=mode)):
        if options.rounds_shrink:
            kept = entries - math.floor(target * entries + 0.5)
            own_options = msgspec.structs.replace(options, channels=options.channels if number == 0 else None)
            found.append(Target(_PruneAndShrink(own_options, kept), mode, target))
            continue
        own = tuple(f"{layer.glob}={values[number]!r}" for layer, values in zip(layers, rising, strict=True))
        found.append(Target(_Prune(msgspec.structs.replace(options, **{mode: target}, layer=own)), mode, target))
    return tuple(found)
