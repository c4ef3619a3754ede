"""`MagnitudePrune`: zero the weights of smallest magnitude, by the threshold of Han et al. 2015 or by an exact
count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from .arrays import Bits, NDArray
from .errors import SelectionError
from .fixed import fixed_transform
from .masks import apply_masks
from .model import Model
from .nm import nm_keep
from .pipeline import Change, Skip, State
from .ranking import Cut, Layer, cut_at, cuts_by_lamp, cuts_by_magnitude, layers_of, standard_deviation
from .selection import own_values, selected
from .thresholds import NM, Absolute, Quality, Sparsity, Threshold, checked_sparsity, checked_threshold
from .weights import Weight, find_weights

_Packed = dict[str, tuple[Bits, tuple[int, ...]]]


@dataclass(frozen=True)
class MagnitudePrune:
    """Mask and zero the selected weights whose magnitude falls under a threshold.

    Masks only shrink, shapes stay, biases and other constants are never touched; entries that are zero already count
    as pruned. Weights that look like fixed transforms (see `fixed`) are skipped unless `only` names them in full.
    Computed lazily: the new model reads pruned weights through their masks.

    Attributes:
        threshold: `Sparsity`, `Quality`, `Absolute` or `NM`.
        only, skip: globs over the keys of the weights; `skip` wins.
        layers: (glob, value) pairs: weights with a value of their own, in the unit of `threshold`; the last match
            wins. Such weights leave the global ranking and its count.
        embeddings: prune lookup tables too.

    Raises (when called):
        SelectionError: a glob matches nothing, or a value is out of range.
        ModelError: a selected weight holds NaN or infinity.
    """

    threshold: Threshold = Sparsity(0.5)  # noqa: RUF009 - frozen, so sharing the default is safe
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    layers: tuple[tuple[str, float], ...] = ()
    embeddings: bool = False
    name: str = "magnitude-prune"

    def __post_init__(self) -> None:
        for _, value in self.layers:
            if isinstance(self.threshold, NM):
                raise SelectionError(
                    "N:M has no value that could differ by layer: leave out --layer, or choose with --only"
                )
            if isinstance(self.threshold, Sparsity):
                checked_sparsity(value)
            else:
                checked_threshold(value, "quality parameter" if isinstance(self.threshold, Quality) else "threshold")

    def __call__(self, state: State) -> State:
        """`state` with smaller masks; the same object when every selected weight is sparse enough already."""
        weights, skips = self._prunable(state.model)
        if isinstance(self.threshold, NM):
            packed, more = _nm_masks(state, weights, self.threshold, self.name)
            skips = (*skips, *more)
        else:
            packed = self._masks(state, weights)
        if not packed:
            return state.noted(*skips)
        masks = state.masks.with_bits(packed)
        fills: Mapping[str, NDArray] = {w.key: w.zero_point for w in weights if w.zero_point is not None}
        model = apply_masks(state.model, masks, fills)
        return replace(state, model=model, masks=masks).noted(self._change(model, weights, packed), *skips)

    def _prunable(self, model: Model) -> tuple[tuple[Weight, ...], tuple[Skip, ...]]:
        """The weights to prune, and a Skip for each that is left alone."""
        weights = find_weights(model, embeddings=self.embeddings)
        chosen = set(selected([weight.key for weight in weights], self.only, self.skip))
        kept, skips = [], []
        for weight in weights:
            looks = fixed_transform(model, weight) if weight.key in chosen and weight.key not in self.only else None
            if looks is not None:
                skips.append(
                    Skip(self.name, weight.key, f"looks like a fixed transform ({looks}) in {weight.uses[0].node!r}")
                )
            elif weight.key in chosen:
                kept.append(weight)
        return tuple(kept), tuple(skips)

    def _masks(self, state: State, weights: tuple[Weight, ...]) -> _Packed:
        own = own_values([weight.key for weight in weights], self.layers)
        shared = tuple(weight for weight in weights if weight.key not in own)
        packed: _Packed = {}
        for group, value in [(shared, None), *(((w,), own[w.key]) for w in weights if w.key in own)]:
            layers = layers_of(state.model, group)
            cuts = _cuts(self.threshold, layers, value)
            for weight in group:
                pairs = [(layer, cut) for layer, cut in zip(layers, cuts, strict=True) if layer.weight is weight]
                bits = _bits(pairs)
                if bits is not None:
                    packed[weight.key] = (_and(bits, state, weight.key), weight.shape)
        return {key: (bits, shape) for key, (bits, shape) in packed.items() if _shrinks(bits, state, key)}

    def _change(self, model: Model, weights: tuple[Weight, ...], packed: _Packed) -> Change:
        total = sum(weight.size for weight in weights)
        left = 0
        for weight in weights:
            if weight.key in packed:
                left += int(np.bitwise_count(packed[weight.key][0]).sum(dtype=np.int64))
            else:
                layers = layers_of(model, (weight,))
                left += sum(int(np.count_nonzero(keys)) for layer in layers for keys in layer.magnitude_bits())
        return Change(
            self.name,
            f"{self.threshold}: kept {left:,} of {total:,} entries in {len(packed)} of {len(weights)} weights",
        )


def _cuts(threshold: Threshold, layers: tuple[Layer, ...], value: float | None) -> list[Cut]:
    """A cut for each layer; `value` replaces that of `threshold` (then every layer is on its own)."""
    if isinstance(threshold, Absolute):
        for layer in layers:
            layer.histogram()  # raises where an entry is NaN or infinite
        return [cut_at(layer, threshold.threshold if value is None else value) for layer in layers]
    if isinstance(threshold, Quality):
        q = threshold.q if value is None else value
        return [cut_at(layer, q * standard_deviation(layer)) for layer in layers]
    assert isinstance(threshold, Sparsity)
    sparsity = threshold.value if value is None else value
    if threshold.scope == "layer" or value is not None:
        return [cut for layer in layers for cut in cuts_by_magnitude((layer,), _count(sparsity, layer.size))]
    rank = cuts_by_lamp if threshold.score == "lamp" else cuts_by_magnitude
    return rank(layers, _count(sparsity, sum(layer.size for layer in layers))) if layers else []


def _count(sparsity: float, size: int) -> int:
    return int(np.floor(sparsity * size + 0.5))


def _bits(pairs: list[tuple[Layer, Cut]]) -> Bits | None:
    """The packed mask of one weight, None when its cuts prune nothing that is not zero already."""
    parts, pruned = [], False
    for layer, cut in pairs:
        ties = cut.ties
        for keys in layer.magnitude_bits():
            keep = keys >= cut.key
            if ties:
                equal = np.flatnonzero(keys == cut.key)[:ties]
                keep[equal] = False
                ties -= equal.size
            pruned = pruned or bool((~keep & (keys != 0)).any())
            parts.append(np.packbits(keep, bitorder="little") if len(pairs) == 1 else keep.view(np.uint8))
    if not pruned or not parts:
        return None
    whole = np.concatenate(parts)
    return whole if len(pairs) == 1 else np.packbits(whole, bitorder="little")


def _and(bits: Bits, state: State, key: str) -> Bits:
    return bits & state.masks.bits(key) if key in state.masks else bits


def _shrinks(bits: Bits, state: State, key: str) -> bool:
    return key not in state.masks or not np.array_equal(bits, state.masks.bits(key))


def _nm_masks(state: State, weights: tuple[Weight, ...], rule: NM, name: str) -> tuple[_Packed, tuple[Skip, ...]]:
    packed: _Packed = {}
    skips: list[Skip] = []
    for weight in (weight for weight in weights if weight.size):
        in_axis = next((use.in_axis for use in weight.uses if use.in_axis is not None), None)
        if in_axis is None or weight.shape[in_axis] < rule.m:
            found = "unknown" if in_axis is None else f"{weight.shape[in_axis]} long"
            skips.append(Skip(name, weight.key, f"its input axis is {found}; {rule.n}:{rule.m} needs {rule.m} or more"))
            continue
        layers = layers_of(state.model, (weight,))
        for layer in layers:
            layer.histogram()  # raises where an entry is NaN or infinite
        magnitudes = np.concatenate([keys for layer in layers for keys in layer.magnitude_bits()]).reshape(weight.shape)
        keep = nm_keep(magnitudes, in_axis, rule.n, rule.m)
        if not (~keep & (magnitudes != 0)).any():
            continue
        packed[weight.key] = (_and(np.packbits(keep.reshape(-1), bitorder="little"), state, weight.key), weight.shape)
    return packed, tuple(skips)
