"""Neurons that sums need even where all their weights are zero.

A sum over neurons (ReduceSum, ReduceMean) needs each one that is not a known constant. Whether a neuron becomes one
once its weights are masked is found by walking the graph again, with every weight taken for zero.
"""

from __future__ import annotations

import numpy as np

from ..arrays import Array, Masked, NDArray
from .records import Pin
from .rules import REGISTRY
from .slices import BoolArray, ZeroSlices
from .trace import Trace


def varying(trace: Trace) -> list[Pin]:
    """The neurons of `trace` that sums need, whatever their weights are."""
    if not trace.sums:
        return []
    masked = Trace(trace.graph, _AllZero(trace))
    masked.run(REGISTRY)
    known = {one.node.index: one for one in masked.sums}
    pins = []
    for one in trace.sums:
        other = known.get(one.node.index)
        folds = np.zeros(one.ids.shape, np.bool_)
        if other is not None and other.ids.shape == one.ids.shape:
            folds = (
                other.known & np.isfinite(other.values.astype(np.float64)) & ((other.values == 0) | (not one.border))
            )
        stays = (one.ids >= 0) & ~folds
        if stays.any():
            why = "it sums over neurons, which are no known constants there even when their weights are zero"
            pins.append(Pin(one.ids[stays], f"blocked by {one.node}: {why}"))
    return pins


class _AllZero(ZeroSlices):
    """Says of every tensor that makes or reads neurons in `trace` that it is all zero."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        initializers = trace.graph.model.initializers
        keys = {one.key for one in trace.producers}
        keys |= {trace.graph.constants[one.node.input(one.index)].key for one in trace.sites}
        self._weights = {id(initializers.source(key)) for key in keys}

    def of(self, source: Array | Masked, zero_point: NDArray | None = None) -> tuple[BoolArray, ...]:
        """As `ZeroSlices.of`."""
        if id(source) in self._weights:
            return tuple(np.ones(size, np.bool_) for size in source.shape)
        return super().of(source, zero_point)
