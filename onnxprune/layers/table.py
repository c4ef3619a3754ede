"""The table of a model's layers: counted in its file, and measured in onnxruntime where there are samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxprune_passes.encode import densify
from onnxprune_passes.errors import SelectionError
from onnxprune_passes.model import Model
from onnxprune_passes.storage import load
from onnxprune_passes.weights import Weight, find_weights

from ..macs import BATCH_NOTE, NodeShapes
from ..zeros import count_zeros
from .costs import LayerCost, LayerTable, layer_cost, total_of
from .measure import DataSource, Measured, measure
from .trace import Place, Places


@dataclass(frozen=True)
class _Size:
    """What a dense layer is: its entries, and 2 × the MACs of each of its uses; None where one is not known."""

    weights: int
    flops: tuple[int, ...] | None

    @property
    def total(self) -> int | None:
        return None if self.flops is None else sum(self.flops)


def layer_table(model: str | Path, source: DataSource | None = None, *, dense: str | Path | None = None) -> LayerTable:
    """Weights, FLOPs and what is left of them for each weight of the file `model`, encoded or not.

    Args:
        model: the file.
        source: the samples that activations are measured on; None leaves them out, and with them FLOP %.
        dense: the file that the weights and FLOPs of layers are taken from, by the weights' names, where those of
            `model` were cut to a smaller shape; None takes `model` itself.

    Raises:
        SelectionError: `dense` lacks a weight of `model`, or has a smaller one.
        ModelError, DataError, VerifyError: a file cannot be read, samples do not fit, or onnxruntime fails.
    """
    own = densify(load(model))
    weights = find_weights(own)
    sizes = _sizes(own if dense is None else densify(load(dense)))
    if dense is not None:
        _check(model, dense, weights, sizes)
    trace = Places(own)
    places = {weight.key: trace.of(weight) for weight in weights}
    measured = None if source is None else measure(own, _values(places.values()), source)
    found = {
        weight.key: _cost(weight, weight.size - count_zeros(own, weight), sizes[weight.key], places, measured)
        for weight in weights
    }
    gone = [name for name in sizes if name not in found]
    rows = tuple(found.get(name) or layer_cost(name, size.weights, 0, size.total) for name, size in sizes.items())
    return LayerTable(
        layers=rows,
        total=total_of(rows),
        samples=0 if measured is None else measured.samples,
        inputs_from=None if measured is None else measured.note,
        dense=None if dense is None else str(dense),
        notes=(BATCH_NOTE, *_notes(rows, gone, measured)),
    )


def _sizes(model: Model) -> dict[str, _Size]:
    shapes = NodeShapes(model)
    found = {}
    for weight in find_weights(model):
        flops = [2 * macs for use in weight.uses if (macs := shapes.macs_of_use(weight, use)) is not None]
        found[weight.key] = _Size(weight.size, tuple(flops) if len(flops) == len(weight.uses) else None)
    return found


def _check(model: str | Path, dense: str | Path, weights: Sequence[Weight], sizes: dict[str, _Size]) -> None:
    for weight in weights:
        if weight.key not in sizes:
            raise SelectionError(
                f"--dense {dense}: no weight named {weight.key!r}, as {model} has one: give the file it was pruned from"
            )
        if sizes[weight.key].weights < weight.size:
            raise SelectionError(
                f"--dense {dense}: {weight.key} has {sizes[weight.key].weights:,} entries there and {weight.size:,} in "
                f"{model}: give the file it was pruned from"
            )


def _values(places: Iterable[tuple[Place, ...]]) -> list[str]:
    return [name for uses in places for place in uses for name in (place.made, place.reads) if name is not None]


def _cost(
    weight: Weight, kept: int, size: _Size, places: dict[str, tuple[Place, ...]], measured: Measured | None
) -> LayerCost:
    if measured is None:
        return layer_cost(weight.key, size.weights, kept, size.total)
    uses = places[weight.key]
    made = [measured.values.get(place.made or "") for place in uses]
    known = [one for one in made if one is not None]
    neurons = sum(one.entries for one in known)
    whole = len(known) == len(uses) and neurons > 0
    return layer_cost(
        weight.key,
        size.weights,
        kept,
        size.total,
        neurons=neurons if whole else None,
        activations=sum(one.entries * one.share for one in known) / neurons if whole else None,
        reads=_reads(uses, size, measured),
    )


def _reads(uses: Sequence[Place], size: _Size, measured: Measured) -> float | None:
    """What the uses of a weight read that is not zero, weighted by their FLOPs."""
    shares = []
    for place in uses:
        counted = measured.values.get(place.reads or "")
        if not place.reads_input and counted is None:
            return None
        shares.append(1.0 if place.reads_input or counted is None else counted.share)
    flops = size.flops if size.flops is not None and len(size.flops) == len(shares) else (1,) * len(shares)
    return sum(share * count for share, count in zip(shares, flops, strict=True)) / max(sum(flops), 1)


def _notes(rows: Sequence[LayerCost], gone: Sequence[str], measured: Measured | None) -> list[str]:
    notes = [f"{name} is not in the file any more: nothing of it is kept" for name in gone]
    unknown = [row.name for row in rows if row.reads is None and row.name not in gone]
    if measured is not None and unknown:
        notes.append(f"what {', '.join(unknown)} read was not measured, and counts whole in the total")
    return notes
