"""What can be tried where a graph leaves sizes or switches open, and the random arrays of one trial."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune.runtime import Array, TensorSpec, is_float

SIZES = (2, 16, 64, 224, 512, 4096, 16000)
SCALARS = (0, 1, 8000, 16000)


@dataclass(frozen=True)
class Trial:
    """One way to settle what the graph leaves open.

    `batch` is the size of batch axes, `size` that of all other dynamic axes. The batch axis of an input is its first
    axis where that is dynamic, or, with `by_first_dynamic`, its first dynamic axis. `scalar` is the value of every
    scalar integer; None draws them like other integers.
    """

    batch: int
    by_first_dynamic: bool
    size: int
    scalar: int | None

    def shapes(self, specs: Sequence[TensorSpec]) -> dict[str, tuple[int, ...]]:
        """Input name -> shape; axes that carry the symbol of a batch axis have its size."""
        batch_axes = {spec.name: self._batch_axis(spec) for spec in specs}
        symbols = {spec.shape[axis] for spec in specs if (axis := batch_axes[spec.name]) is not None} - {None}

        def size(spec: TensorSpec, axis: int) -> int:
            dim = spec.shape[axis]
            if isinstance(dim, int):
                return dim
            return self.batch if axis == batch_axes[spec.name] or dim in symbols else self.size

        return {spec.name: tuple(size(spec, axis) for axis in range(len(spec.shape))) for spec in specs}

    def draw(self, specs: Sequence[TensorSpec], rows: Mapping[str, int], seed: Sequence[int]) -> dict[str, Array]:
        """One batch: N(0, 1) for floats, integers uniform in [0, rows) or, without `rows`, in {0, 1}."""
        generator = np.random.default_rng(seed)
        feeds: dict[str, Array] = {}
        for name, shape, spec in zip(self.shapes(specs), self.shapes(specs).values(), specs, strict=True):
            dtype: np.dtype[Any] = np.dtype(spec.dtype)
            if is_float(dtype):
                feeds[name] = np.asarray(generator.standard_normal(shape, dtype=np.float32)).astype(dtype)
            elif self.scalar is not None and _is_scalar_integer(spec):
                feeds[name] = np.full(shape, min(self.scalar, np.iinfo(dtype).max), dtype)
            else:
                feeds[name] = np.asarray(generator.integers(0, rows.get(name, 2), shape, dtype=np.int64)).astype(dtype)
        return feeds

    def _batch_axis(self, spec: TensorSpec) -> int | None:
        dynamic = [axis for axis, dim in enumerate(spec.shape) if not isinstance(dim, int)]
        return dynamic[0] if dynamic and (self.by_first_dynamic or dynamic[0] == 0) else None


def trials(specs: Sequence[TensorSpec]) -> Iterator[Trial]:
    """Every trial in the order in which it is made; a single one when the graph leaves nothing open."""
    scalars: tuple[int | None, ...] = (None, *SCALARS) if any(_is_scalar_integer(spec) for spec in specs) else (None,)
    stages = ((2, False), (2, True), (1, False), (1, True))
    seen: set[tuple[object, ...]] = set()
    for (batch, by_first_dynamic), scalar, size in itertools.product(stages, scalars, SIZES):
        trial = Trial(batch, by_first_dynamic, size, scalar)
        outcome = (scalar, *trial.shapes(specs).values())
        if outcome not in seen:
            seen.add(outcome)
            yield trial


def _is_scalar_integer(spec: TensorSpec) -> bool:
    """Whether an input is one integer, of rank 0 or with all axes 1."""
    return spec.dtype is not None and spec.dtype.kind in "iu" and all(dim == 1 for dim in spec.shape)
