"""The units whose sensitivity is measured, and the model with one of them pruned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnxprune_passes.channels import PruneChannels
from onnxprune_passes.errors import SelectionError
from onnxprune_passes.fixed import fixed_transform
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.model import Model
from onnxprune_passes.neurons.coupled import coupling
from onnxprune_passes.neurons.groups import traced
from onnxprune_passes.pipeline import State
from onnxprune_passes.ranking import Layer, layers_of, standard_deviation
from onnxprune_passes.selection import selected
from onnxprune_passes.thresholds import Sparsity
from onnxprune_passes.weights import find_weights

from .records import UnitKind


@dataclass(frozen=True)
class Unit:
    """What is pruned by itself.

    Attributes:
        name: how the report calls it.
        kind: "initializer" or "group".
        keys: the initializer's key, or those of the weights that make the group's channels.
        size: its entries, or its channels.
    """

    name: str
    kind: UnitKind
    keys: tuple[str, ...]
    size: int


def find_units(
    model: Model, only: Sequence[str] = (), skip: Sequence[str] = (), *, groups: bool = False
) -> tuple[Unit, ...]:
    """The prunable weights of `model` that are chosen, in the order of the graph, then its coupled groups.

    Weights that look like fixed transforms (see `onnxprune_passes.fixed`) count only when `only` names them in full;
    groups that something pins, or one of whose makers is not chosen, do not count.

    Raises:
        SelectionError: a glob matches nothing, or no unit is left.
        ModelError: with `groups`: the shapes of the graph cannot be inferred.
    """
    weights = {weight.key: weight for weight in find_weights(model)}
    chosen = [
        key for key in selected(weights, only, skip) if key in only or fixed_transform(model, weights[key]) is None
    ]
    units = [Unit(key, "initializer", (key,), weights[key].size) for key in chosen]
    for group in coupling(traced(model)).groups if groups else ():
        makers = tuple(dict.fromkeys(key for key, _ in group.made_by))
        if group.pinned_by is None and set(makers) <= set(chosen) and group.channels.size > 1:
            units.append(Unit(group.path, "group", makers, int(group.channels.size)))
    if not units:
        raise SelectionError(
            f"none of the {len(weights)} weights of the model can be measured: see with `onnxprune inspect` which are "
            f"prunable, and change --only and --skip"
        )
    return tuple(units)


@dataclass(frozen=True)
class Pruned:
    """A model with one unit pruned, the density the unit has, and the quality parameter that prunes it so."""

    model: Model
    density: float
    quality: float | None


def pruned_to(model: Model, unit: Unit, density: float) -> Pruned:
    """`model` with `unit` pruned to `density`, by magnitude, and everything else as it is.

    The same model comes back when the unit is sparse enough already.

    Raises:
        ModelError: the weight holds NaN or infinity.
    """
    before = State(model)
    if unit.kind == "group":
        after = PruneChannels(1 - density, scope="layer", round_to=1, only=unit.keys, reads="never")(before)
        gone = 0 if after.model is model else int(np.floor(unit.size * (1 - density) + 1e-9))
        return Pruned(after.model, 1 - gone / unit.size, None)
    (key,) = unit.keys
    after = MagnitudePrune(Sparsity(1 - density, scope="layer"), only=(key,))(before) if density < 1 else before
    weight = next(weight for weight in find_weights(after.model) if weight.key == key)
    cuts = [_cut(layer) for layer in layers_of(after.model, (weight,))]
    qualities = [cut.quality for cut in cuts if cut.quality is not None]
    pruned = after.model is not model
    return Pruned(
        after.model, sum(cut.kept for cut in cuts) / unit.size, min(qualities, default=None) if pruned else None
    )


@dataclass(frozen=True)
class _Cut:
    """Where a layer was cut: its entries that are not zero, and the quality parameter in the middle of the gap."""

    kept: int
    quality: float | None


def _cut(layer: Layer) -> _Cut:
    """The cut through `layer`, read from its entries with and without their mask."""
    kept, smallest, largest = 0, np.inf, 0.0
    for values, before in zip(layer.values(), layer.values(masked=False), strict=True):
        sizes = np.abs(values[values != 0]).astype(np.float64)
        kept += sizes.size
        smallest = min(smallest, float(sizes.min(initial=np.inf)))
        largest = max(largest, float(np.abs(before[values == 0]).max(initial=0)))
    spread = standard_deviation(layer)
    if not spread > 0 or not np.isfinite(smallest):
        return _Cut(kept, None)
    return _Cut(kept, (min(largest, smallest) + smallest) / 2 / spread)
