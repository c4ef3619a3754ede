"""How strong each channel is: the norm of the weights that make or read it, or the scale of its BatchNormalization."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..arrays import CHUNK, Array, Masked
from ..weights import Weight
from .coupled import CoupledGroup, Coupling

Floats = npt.NDArray[np.float64]
Norm = Literal["l1", "l2"]
Reduce = Literal["sum", "mean"]


def scores(
    found: Coupling, groups: Sequence[CoupledGroup], weights: Mapping[str, Weight], norm: Norm, reduce: Reduce
) -> list[Floats]:
    """For each group one number a channel, float64 [n]: the norm of all weights that make or read it.

    `sum`: of all their entries together. `mean`: the mean of |w| (l1) or its root mean square (l2) of each slice,
    averaged over the slices, so that large weights do not outvote small ones. Quantised weights count as the numbers
    that they stand for; other integers are left out.
    """
    total = np.zeros(found.label.size)
    slices = np.zeros(found.label.size)
    for axis in dict.fromkeys(one for group in groups for one in (*group.made_by, *group.read_by)):
        source = found.trace.graph.model.initializers.source(axis[0])
        weight = weights.get(axis[0])
        if source.dtype.kind in "iub" and (weight is None or not weight.quantised):
            continue
        ids = found.trace.bases[axis]
        powers = slice_powers(source, axis[1], norm, weight)
        if reduce == "mean":
            powers = powers / max(1, source.size // source.shape[axis[1]])
            powers = np.sqrt(powers) if norm == "l2" else powers
        here = ids >= 0
        np.add.at(total, found.label[ids[here]], powers[here])
        np.add.at(slices, found.label[ids[here]], 1)
    if reduce == "mean":
        total = total / np.maximum(slices, 1)
    elif norm == "l2":
        total = np.sqrt(total)
    return [total[group.channels] for group in groups]


def strengths_along(sources: Sequence[tuple[Array | Masked, int]], norm: Norm, reduce: Reduce) -> Floats:
    """One number for each slice that tensors of floats share, each along an axis of its own; `scores` says how."""
    powers = [slice_powers(source, axis, norm) for source, axis in sources]
    if reduce == "mean":
        powers = [one / max(1, source.size // one.size) for one, (source, _) in zip(powers, sources, strict=True)]
        powers = [np.sqrt(one) for one in powers] if norm == "l2" else powers
    total = np.zeros(powers[0].size)
    for one in powers:
        total += one
    if reduce == "mean":
        return total / len(powers)
    return np.sqrt(total) if norm == "l2" else total


def slice_powers(source: Array | Masked, axis: int, norm: Norm, weight: Weight | None = None) -> Floats:
    """Along `axis` of a tensor the sum of |w| (l1) or w² (l2) of each slice: float64 [size of the axis].

    `weight`: what is known of the tensor; a quantised one stands for (q - zero point) x scale.
    """
    values = source.array()
    if weight is not None and weight.zero_point is not None:
        scale = np.ones(()) if weight.scale is None else weight.scale.astype(np.float64)
        values = (values.astype(np.float64) - weight.zero_point) * scale
    found = np.zeros(values.shape[axis])
    others = tuple(one for one in range(values.ndim) if one != axis)
    step = max(1, CHUNK // max(1, math.prod(values.shape[1:])))
    for start in range(0, values.shape[0], step):
        block = values[start : start + step].astype(np.float64)
        powers = (np.abs(block) if norm == "l1" else np.square(block)).sum(axis=others)
        if axis == 0:
            found[start : start + step] = powers
        else:
            found += powers
    return found


def scale_scores(found: Coupling, groups: Sequence[CoupledGroup]) -> list[Floats | None]:
    """For each group the mean |scale| of the BatchNormalizations that its channels pass, float64 [n]; None without one.

    The factor that Liu et al. 2017 ("Learning efficient convolutional networks through network slimming", section 3)
    rank channels by.
    """
    total, count = np.zeros(found.label.size), np.zeros(found.label.size)
    graph = found.trace.graph
    for name in dict.fromkeys(node.input(1) for node in graph.nodes if node.op_type == "BatchNormalization"):
        const = graph.constants.get(name)
        ids = None if const is None else found.trace.bases.get((const.key, const.axes[0]))
        if const is not None and ids is not None:
            here = ids >= 0
            np.add.at(total, found.label[ids[here]], np.abs(graph.array(const).astype(np.float64))[here])
            np.add.at(count, found.label[ids[here]], 1)
    strengths = total / np.maximum(count, 1)
    return [strengths[group.channels] if count[group.channels].all() else None for group in groups]
