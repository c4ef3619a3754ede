"""Putting entries in place by position."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onnxprune.torch.host import Host
from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import axis_of, number
from onnxprune.torch.ops.gather import flat_positions, wrapped
from onnxprune.torch.registry import op

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _reduction(node: Node) -> str:
    kind: str = node.only("reduction", ("none", *_REDUCTIONS), "none")
    return kind


@op("ScatterElements", since=11)
@op("Scatter", since=9)
def scatter_elements(node: Node, data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """`data` with each update put, or reduced, where its index says along `axis`."""
    axis = axis_of(node, 0, data.ndim)
    at, kind = wrapped(indices, data.shape[axis]), _reduction(node)
    if kind == "none":
        return data.scatter(axis, at, updates.to(data.dtype))
    return data.scatter_reduce(axis, at, updates.to(data.dtype), _REDUCTIONS[kind], include_self=True)


@op("ScatterND", since=11)
def scatter_nd(node: Node, data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """`data` with the updates put, or reduced, at the coordinates in indices [..., K]."""
    depth, kind = indices.shape[-1], _reduction(node)
    places = flat_positions(indices, data.shape).reshape(-1)
    flat = data.reshape(math.prod(data.shape[:depth]), -1)
    rows = updates.reshape(places.shape[0], -1).to(data.dtype)
    if kind == "none":
        return flat.index_put((places,), rows).reshape(data.shape)
    index = places[:, None].expand_as(rows)
    return flat.scatter_reduce(0, index, rows, _REDUCTIONS[kind], include_self=True).reshape(data.shape)


@op("TensorScatter", since=24)
def tensor_scatter(node: Node, past: Tensor, update: Tensor, places: Tensor | None = None) -> Tensor:
    """`past` [B, ..., max, ...] with update [B, ..., L, ...] written along `axis` from places [B] on."""
    axis = axis_of(node, -2, past.ndim)
    circular = node.only("mode", ("linear", "circular"), "linear") == "circular"
    length, most = update.shape[axis], past.shape[axis]
    start = torch.zeros(past.shape[0], dtype=torch.int64, device=past.device) if places is None else places
    at = start.reshape(-1, 1) + torch.arange(length, device=past.device)
    if circular:
        at = at % most
    dims = [1] * past.ndim
    dims[0], dims[axis] = past.shape[0], length
    return past.scatter(axis, at.reshape(dims).expand_as(update), update)


@op("OneHot", since=9, host=(1,))
def one_hot(node: Node, indices: Tensor, depth: Host, values: Tensor) -> Tensor:
    """`values` [off, on] → on where a new axis of size `depth` meets the index, else off."""
    count = int(number(depth))
    axis = node.integer("axis", -1)
    axis = axis + indices.ndim + 1 if axis < 0 else axis
    at = indices.to(torch.int64).unsqueeze(axis)
    at = torch.where(at < 0, at + count, at)
    ramp = torch.arange(count, device=indices.device).reshape([-1 if one == axis else 1 for one in range(at.ndim)])
    return torch.where(at == ramp, values[1], values[0])
