"""The columns of a table of layers, and its last line.

| column | what it is |
|---|---|
| FLOP | 2 × the MACs of the dense layer |
| Act % | share of a layer's activations that are not zero, behind what follows it: bias, ReLU, pooling |
| Weights % | weights that are kept ÷ those of the dense layer |
| FLOP % | Weights % × the share of what the layer reads that is not zero: the Act % before it; 100 % for an input |

In the last line Act % is weighted by neurons, Weights % by weights and FLOP % by FLOPs. Han et al. 2015 do not spell
the columns out; these give all their tables (2 to 5).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..macs import total


class LayerCost(msgspec.Struct, frozen=True, kw_only=True):
    """One weight tensor; shares lie in 0..1, and null is what was not measured or is not known.

    Attributes:
        name: the key of the weight.
        weights: entries of the dense layer.
        flops: 2 × its MACs, of one run with every batch axis 1.
        neurons: its activations for one sample.
        activations: the share of them that are not zero.
        reads: the share of the entries it reads that are not zero; 1 where it reads an input of the model.
        kept: entries that are not zero.
        density: kept ÷ weights.
        flop_share: FLOPs with two factors that are not zero ÷ FLOPs.
    """

    name: str
    weights: int
    flops: int | None
    neurons: int | None
    activations: float | None
    reads: float | None
    kept: int
    density: float
    flop_share: float | None


class LayerTotal(msgspec.Struct, frozen=True, kw_only=True):
    """The last line; see the module for what weights each mean.

    Attributes:
        weights, kept: sums.
        flops: the sum; null when one is not known.
        activations: over the layers where it was measured; null when there are none.
        density: kept ÷ weights.
        flop_share: what a layer reads counts whole where that was not measured; null without FLOPs.
    """

    weights: int
    kept: int
    flops: int | None
    activations: float | None
    density: float
    flop_share: float | None


class LayerTable(msgspec.Struct, frozen=True, kw_only=True):
    """What `layer_table` finds.

    Attributes:
        layers: in file order of their first use.
        total: the last line.
        samples: how many samples activations were measured on; 0 when they were not.
        inputs_from: where those came from.
        dense: the file whose layers count as dense; null: the file's own shapes.
        notes: what the numbers rest on.
    """

    layers: tuple[LayerCost, ...]
    total: LayerTotal
    samples: int
    inputs_from: str | None
    dense: str | None
    notes: tuple[str, ...]


def layer_cost(
    name: str,
    weights: int,
    kept: int,
    flops: int | None,
    *,
    neurons: int | None = None,
    activations: float | None = None,
    reads: float | None = None,
) -> LayerCost:
    """One line; see `LayerCost`."""
    density = kept / weights if weights else 1.0
    return LayerCost(
        name=name,
        weights=weights,
        flops=flops,
        neurons=neurons,
        activations=activations,
        reads=reads,
        kept=kept,
        density=density,
        flop_share=None if reads is None else density * reads,
    )


def total_of(layers: Sequence[LayerCost]) -> LayerTotal:
    """The last line of a table."""
    weights, kept = sum(layer.weights for layer in layers), sum(layer.kept for layer in layers)
    measured = [(layer.neurons or 0, layer.activations) for layer in layers if layer.activations is not None]
    neurons = sum(count for count, _ in measured)
    flops = total(layer.flops for layer in layers)
    needed = sum(
        (layer.flops or 0) * (layer.density if layer.flop_share is None else layer.flop_share) for layer in layers
    )
    return LayerTotal(
        weights=weights,
        kept=kept,
        flops=flops,
        activations=sum(count * share for count, share in measured) / neurons if neurons else None,
        density=kept / weights if weights else 1.0,
        flop_share=needed / flops if flops else None,
    )
