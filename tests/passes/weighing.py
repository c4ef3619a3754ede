"""What the tests of finding weights share."""

from __future__ import annotations

from onnxprune_passes.model import Model
from onnxprune_passes.weights import Weight, find_weights


def only_weight(model: Model, *, embeddings: bool = False) -> Weight:
    (weight,) = find_weights(model, embeddings=embeddings)
    return weight


def axes_of(weight: Weight) -> list[tuple[int | None, int | None]]:
    return [(use.out_axis, use.in_axis) for use in weight.uses]
