"""Indexing flat tuples of entries as tensors: strides, broadcasting, picking."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from onnxprune.torch.host import Host


def product(sizes: Iterable[Any]) -> Any:
    """The product of the sizes; in a loop, which torch.compile follows where the sizes are open."""
    total: Any = 1
    for size in sizes:
        total = total * size
    return total


def strides_of(shape: Sequence[int]) -> tuple[int, ...]:
    """Entries between neighbours along each axis of a C-order tensor."""
    return tuple(product(shape[axis + 1 :]) for axis in range(len(shape)))


def positions(shape: Sequence[int], strides: Sequence[int], start: int = 0) -> Iterator[int]:
    """The flat position behind every index of `shape`, in C order, with these strides."""
    for index in itertools.product(*(range(size) for size in shape)):
        yield start + sum(at * stride for at, stride in zip(index, strides, strict=True))


def broadcast_shape(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape that the shapes broadcast to. Raises ValueError when they do not."""
    sizes: list[int] = []
    for shape in shapes:
        sizes = [1] * (len(shape) - len(sizes)) + sizes
        for axis in range(-len(shape), 0):
            if sizes[axis] == 1:
                sizes[axis] = shape[axis]
            elif shape[axis] != 1 and shape[axis] != sizes[axis]:
                raise ValueError(f"shapes {', '.join(str(list(one)) for one in shapes)} do not broadcast")
    return tuple(sizes)


def expanded(host: Host, shape: Sequence[int]) -> tuple[Any, ...]:
    """The entries of `host` broadcast to `shape`."""
    if host.shape == tuple(shape):
        return host.values
    own = (1,) * (len(shape) - len(host.shape)) + host.shape
    strides = [0 if size == 1 else stride for size, stride in zip(own, strides_of(own), strict=True)]
    return tuple(host.values[at] for at in positions(shape, strides))


def picked(host: Host, axis: int, indices: Sequence[int]) -> Host:
    """The slices of `host` along `axis` at `indices`, in that order."""
    size = host.shape[axis]
    inner, outer = product(host.shape[axis + 1 :]), product(host.shape[:axis])
    values = [
        host.values[(row * size + index % size) * inner + at]
        for row in range(outer)
        for index in indices
        for at in range(inner)
    ]
    return Host(values, (*host.shape[:axis], len(indices), *host.shape[axis + 1 :]), host.dtype)
