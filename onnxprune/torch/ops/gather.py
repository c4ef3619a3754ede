"""Picking entries by position."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.torch.host import Host
from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import axis_of, device_index
from onnxprune.torch.registry import op


def wrapped(indices: Tensor, size: Any) -> Tensor:
    """Positions counted from the front, as int64."""
    whole = indices.to(torch.int64)
    return torch.where(whole < 0, whole + size, whole)


@op("Gather", keep=(1,))
def gather(node: Node, data: Tensor, indices: Tensor | Host) -> Tensor:
    """`data` [..., K, ...] and indices [q...] → the slices along `axis`: [..., q..., ...]."""
    axis = axis_of(node, 0, data.ndim)
    if isinstance(indices, Host):
        if indices.shape == ():
            return data.select(axis, indices.item)
        at = device_index([index % data.shape[axis] for index in indices.values], data).reshape(indices.shape)
    else:
        at = wrapped(indices, data.shape[axis])
    if axis == 0 and data.ndim == 2 and data.is_floating_point():
        return F.embedding(at, data)
    found = data.index_select(axis, at.reshape(-1))
    return found.reshape(*data.shape[:axis], *at.shape, *data.shape[axis + 1 :])


@op("GatherElements", since=11)
def gather_elements(node: Node, data: Tensor, indices: Tensor) -> Tensor:
    """The entry of `data` that each index names along `axis`; the shape of `indices`."""
    axis = axis_of(node, 0, data.ndim)
    return torch.gather(data, axis, wrapped(indices, data.shape[axis]))


def flat_positions(indices: Tensor, dims: tuple[int, ...] | torch.Size) -> Tensor:
    """Coordinates [..., K] in the first K of `dims` as positions in C order [...]."""
    places = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=indices.device)
    for at in range(indices.shape[-1]):
        places = places * dims[at] + wrapped(indices[..., at], dims[at])
    return places


@op("GatherND", since=11)
def gather_nd(node: Node, data: Tensor, indices: Tensor) -> Tensor:
    """`data` and indices [..., K] → the slices that the coordinates name; the first `batch_dims` axes go together."""
    batch = node.integer("batch_dims", 0)
    depth = indices.shape[-1]
    rows = math.prod(data.shape[:batch])
    dims = data.shape[batch : batch + depth]
    places = flat_positions(indices.reshape(rows, -1, depth), dims)
    places = places + torch.arange(rows, device=data.device)[:, None] * math.prod(dims)
    flat = data.reshape(rows * math.prod(dims), *data.shape[batch + depth :])
    found = flat.index_select(0, places.reshape(-1))
    return found.reshape(*indices.shape[:-1], *data.shape[batch + depth :])


@op("Slice", host=(1, 2, 3, 4))
def slice_(
    node: Node,
    data: Tensor,
    starts: Host | None = None,
    ends: Host | None = None,
    axes: Host | None = None,
    steps: Host | None = None,
) -> Tensor:
    """`data` cut along some axes; before opset 10 the bounds are attributes."""
    if starts is None or ends is None:
        first, last = node.ints("starts") or [], node.ints("ends") or []
        along, strides = node.ints("axes"), None
    else:
        first, last = list(starts.values), list(ends.values)
        along = None if axes is None else list(axes.values)
        strides = None if steps is None else list(steps.values)
    along = list(range(len(first))) if along is None else along
    strides = [1] * len(first) if strides is None else strides
    for start, end, axis, stride in zip(first, last, along, strides, strict=True):
        data = _cut(data, axis % data.ndim, start, end, stride)
    return data


def _cut(data: Tensor, axis: int, start: Any, end: Any, stride: int) -> Tensor:
    if stride > 0:
        return data[(slice(None),) * axis + (slice(start, end, stride),)]
    places = range(*slice(start, end, stride).indices(data.shape[axis]))
    if not len(places):
        return data.narrow(axis, 0, 0)
    if len(places) == data.shape[axis] and stride == -1:
        return data.flip(axis)
    at = torch.arange(places.start, places.stop, places.step, device=data.device)
    return data.index_select(axis, at)


@op("Concat")
def concat(node: Node, *parts: Tensor) -> Tensor:
    """The parts side by side along `axis`."""
    return torch.cat(parts, axis_of(node, 1, parts[0].ndim))


@op("Split", host=(1,))
def split(node: Node, data: Tensor, sizes: Host | None = None) -> tuple[Tensor, ...]:
    """`data` cut along `axis` into parts of the given sizes, or into equal ones, the last of which may be smaller."""
    axis = axis_of(node, 0, data.ndim)
    lengths = list(sizes.values) if sizes is not None else node.ints("split")
    if lengths is None:
        total, count = data.shape[axis], node.integer("num_outputs", node.n_outputs)
        part = -(-total // count)
        lengths = [max(0, min(part, total - index * part)) for index in range(count)]
    return tuple(torch.split(data, lengths, axis))


@op("Compress", since=9)
def compress(node: Node, data: Tensor, condition: Tensor) -> Tensor:
    """The slices along `axis`, or the entries of the flat `data`, where the condition (which may be shorter) holds."""
    at = condition.nonzero().reshape(-1)
    if "axis" not in node.attributes:
        return data.reshape(-1).index_select(0, at)
    return data.index_select(axis_of(node, 0, data.ndim), at)


@op("ReverseSequence", since=10)
def reverse_sequence(node: Node, x: Tensor, lengths: Tensor) -> Tensor:
    """`x` with the first lengths[b] entries of each sequence b in reverse order."""
    batch, time = node.integer("batch_axis", 1), node.integer("time_axis", 0)
    count, steps = x.shape[batch], x.shape[time]
    at = torch.arange(steps, device=x.device).expand(count, steps)
    turned = torch.where(at < lengths[:, None], lengths[:, None] - 1 - at, at)
    rest = x.movedim((batch, time), (0, 1))
    index = turned.reshape(count, steps, *([1] * (x.ndim - 2))).expand_as(rest)
    return rest.gather(1, index).movedim((0, 1), (batch, time))
