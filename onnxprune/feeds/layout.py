"""Along which axis of each array the samples lie, found from the shapes that a model declares.

Three layouts are understood, tried in this order:

1. The arrays fit the inputs as they are. A dynamic first axis is the sample axis; so is every other axis of the same
   symbol and size. Where the first axes are fixed at one size n, the arrays hold n samples.
2. Every array that does not fit has one more axis in front, of one common size K: K samples, each of which is a whole
   batch for the model.
3. The model's first axis is fixed at n and the array's is longer: the first axis holds samples, for batches of n.

Arrays that fit as they are belong unchanged to every batch of layouts 2 and 3. Nothing is ever scaled or transposed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.runtime import Array, TensorSpec

Rows = slice | NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Where samples lie. `axes` holds the sample axis of each input, None where every batch gets the whole array.

    `samples` counts them, `batch` is the number that the model takes at once (None: any number), `stacked` says that
    each sample is a whole batch, whose axis in front is dropped.
    """

    axes: Mapping[str, int | None]
    samples: int
    batch: int | None = None
    stacked: bool = False

    def take(self, arrays: Mapping[str, Array], rows: Rows) -> dict[str, Array]:
        """The feeds of some samples: views for a slice, copies for row numbers. One row only where `stacked`."""
        return {name: self._taken(array, self.axes[name], rows) for name, array in arrays.items()}

    def _taken(self, array: Array, axis: int | None, rows: Rows) -> Array:
        if axis is None:
            return array
        taken = array[(slice(None),) * axis + (rows,)]
        return np.asarray(taken[0]) if self.stacked else taken


def layout_of(specs: Sequence[TensorSpec], arrays: Mapping[str, Array]) -> Layout | None:
    """The first layout that fits; None when none does, or when the arrays fit but have no sample axis in common."""
    shapes = {name: array.shape for name, array in arrays.items()}
    if fits(specs, shapes):
        return _by_dynamic_axis(specs, shapes) or _by_fixed_axis(specs, shapes, whole=True)
    return _by_leading_axis(specs, shapes) or _by_fixed_axis(specs, shapes, whole=False)


def fits(specs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether every array can be fed as it is."""
    return all(spec.accepts_shape(shapes[spec.name]) for spec in specs)


def _by_dynamic_axis(specs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> Layout | None:
    """Layout 1 with a dynamic first axis."""
    leading = [spec for spec in specs if spec.shape and not isinstance(spec.shape[0], int)]
    counts = {shapes[spec.name][0] for spec in leading}
    if len(counts) != 1:
        return None
    (count,) = counts
    symbols = {spec.shape[0] for spec in leading}
    axes = {
        spec.name: next(
            (axis for axis, dim in enumerate(spec.shape) if dim in symbols and shapes[spec.name][axis] == count), None
        )
        for spec in specs
    }
    return Layout(axes, count)


def _by_leading_axis(specs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> Layout | None:
    """Layout 2: one more axis in front."""
    stacked = [spec for spec in specs if not spec.accepts_shape(shapes[spec.name])]
    if not all(spec.accepts_shape(shapes[spec.name][1:]) for spec in stacked):
        return None
    counts = {shapes[spec.name][0] for spec in stacked}
    if len(counts) != 1:
        return None
    names = {spec.name for spec in stacked}
    return Layout({spec.name: 0 if spec.name in names else None for spec in specs}, counts.pop(), 1, stacked=True)


def _by_fixed_axis(specs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]], *, whole: bool) -> Layout | None:
    """Layout 3, or (`whole`) layout 1 without a dynamic axis: samples along a first axis that the model fixes."""
    sizes: dict[str, int] = {}
    for spec in specs:
        shape = shapes[spec.name]
        if not whole and spec.accepts_shape(shape):
            continue
        if not shape or not spec.shape or not isinstance(spec.shape[0], int):
            return None
        if not spec.accepts_shape((spec.shape[0], *shape[1:])):
            return None
        sizes[spec.name] = spec.shape[0]
    counts = {shapes[name][0] for name in sizes}
    if len(counts) != 1 or len(set(sizes.values())) != 1:
        return None
    return Layout({spec.name: 0 if spec.name in sizes else None for spec in specs}, counts.pop(), sizes.popitem()[1])
