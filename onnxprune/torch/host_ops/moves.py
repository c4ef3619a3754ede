"""Operators that move, pick, join, count or reduce the entries of Hosts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from onnxprune.torch.dtypes import torch_from_onnx
from onnxprune.torch.host import DTYPES, LIMIT, Host, make
from onnxprune.torch.host_ops.grid import broadcast_shape, expanded, picked, positions, product, strides_of
from onnxprune.torch.node import Node
from onnxprune.torch.registry import on_host


@on_host("Identity")
def identity(_: Node, data: Host) -> Host:
    """The value itself."""
    return data


@on_host("Shape")
def shape(node: Node, data: Host) -> Host:
    """The dims from `start` to `end`."""
    dims = data.shape[node.integer("start", 0) : node.attributes.get("end")]
    return Host(dims, (len(dims),), torch.int64)


@on_host("Size")
def size(_: Node, data: Host) -> Host:
    """The number of entries."""
    return Host((len(data.values),), (), torch.int64)


@on_host("Cast")
def cast(node: Node, data: Host) -> Any:
    """The entries in another type; those that a Host cannot hold are left to tensors."""
    dtype = torch_from_onnx(node.integer("to", 1), str(node))
    lost = any(not math.isfinite(value) for value in data.values if type(value) is float)
    return NotImplemented if dtype not in DTYPES or lost else make(data.values, data.shape, dtype)


@on_host("CastLike")
def cast_like(_: Node, data: Host, like: Host) -> Host:
    """The entries in the type of `like`."""
    return make(data.values, data.shape, like.dtype)


@on_host("Gather")
def gather(node: Node, data: Host, indices: Host) -> Host:
    """Slices of `data` along `axis`; a scalar index takes the axis away."""
    axis = node.integer("axis", 0) % len(data.shape)
    found = picked(data, axis, indices.values)
    return Host(found.values, (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]), data.dtype)


@on_host("Slice")
def slice_(
    node: Node,
    data: Host,
    starts: Host | None = None,
    ends: Host | None = None,
    axes: Host | None = None,
    steps: Host | None = None,
) -> Host:
    """`data` cut along some axes; before opset 10 the bounds are attributes."""
    if starts is None or ends is None:
        first, last = node.ints("starts") or [], node.ints("ends") or []
        along, strides = node.ints("axes") or list(range(len(first))), [1] * len(first)
    else:
        first, last = list(starts.values), list(ends.values)
        along = list(range(len(first))) if axes is None else list(axes.values)
        strides = [1] * len(first) if steps is None else list(steps.values)
    for start, end, axis, stride in zip(first, last, along, strides, strict=True):
        axis %= len(data.shape)
        data = picked(data, axis, range(*slice(start, end, stride).indices(data.shape[axis])))
    return data


@on_host("Concat")
def concat(node: Node, *parts: Host) -> Host:
    """The parts side by side along `axis`."""
    axis = node.integer("axis", 0) % len(parts[0].shape)
    outer = product(parts[0].shape[:axis])
    runs = [len(part.values) // outer if outer else 0 for part in parts]
    values = [
        value
        for row in range(outer)
        for part, run in zip(parts, runs, strict=True)
        for value in part.values[row * run : (row + 1) * run]
    ]
    total = sum(part.shape[axis] for part in parts)
    dims = (*parts[0].shape[:axis], total, *parts[0].shape[axis + 1 :])
    return Host(values, dims, parts[0].dtype)


@on_host("Split")
def split(node: Node, data: Host, sizes: Host | None = None) -> tuple[Host, ...]:
    """`data` cut along `axis` into parts of the given sizes, or of equal ones."""
    axis = node.integer("axis", 0) % len(data.shape)
    total, count = data.shape[axis], node.n_outputs
    lengths = list(sizes.values) if sizes is not None else node.ints("split")
    if lengths is None:
        part = -(-total // count)
        lengths = [max(0, min(part, total - index * part)) for index in range(count)]
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    return tuple(
        picked(data, axis, range(start, start + length)) for start, length in zip(starts, lengths, strict=True)
    )


def _axes(node: Node, given: Host | None) -> list[Any] | None:
    return node.ints("axes") if given is None else list(given.values)


@on_host("Squeeze")
def squeeze(node: Node, data: Host, axes: Host | None = None) -> Host:
    """`data` without the named axes, or without all of size 1."""
    named = _axes(node, axes)
    rank = len(data.shape)
    gone = {axis for axis in range(rank) if data.shape[axis] == 1} if named is None else {axis % rank for axis in named}
    return Host(data.values, [dim for axis, dim in enumerate(data.shape) if axis not in gone], data.dtype)


@on_host("Unsqueeze")
def unsqueeze(node: Node, data: Host, axes: Host | None = None) -> Host:
    """`data` with axes of size 1 at the named places of the result."""
    named = _axes(node, axes) or []
    rank = len(data.shape) + len(named)
    new, rest = {axis % rank for axis in named}, iter(data.shape)
    return Host(data.values, [1 if axis in new else next(rest) for axis in range(rank)], data.dtype)


@on_host("Reshape")
def reshape(node: Node, data: Host, target: Host) -> Host:
    """`data` in another shape; 0 copies a dim, one -1 is what is left."""
    zero = bool(node.integer("allowzero", 0))
    dims = [data.shape[at] if dim == 0 and not zero else dim for at, dim in enumerate(target.values)]
    if -1 in dims:
        known = product(dim for dim in dims if dim != -1)
        dims[dims.index(-1)] = len(data.values) // known if data.values else 0
    return Host(data.values, dims, data.dtype)


@on_host("Flatten")
def flatten(node: Node, data: Host) -> Host:
    """`data` as a matrix, the axes before `axis` its rows."""
    axis = node.integer("axis", 1)
    axis = axis + len(data.shape) if axis < 0 else axis
    return Host(data.values, (product(data.shape[:axis]), product(data.shape[axis:])), data.dtype)


@on_host("Transpose")
def transpose(node: Node, data: Host) -> Host:
    """`data` with its axes in the order of `perm`, or reversed."""
    order = node.ints("perm") or list(range(len(data.shape)))[::-1]
    own = strides_of(data.shape)
    dims = [data.shape[axis] for axis in order]
    return Host([data.values[at] for at in positions(dims, [own[axis] for axis in order])], dims, data.dtype)


@on_host("Expand")
def expand(_: Node, data: Host, target: Host) -> Any:
    """`data` broadcast with the dims in `target`; large results are left to tensors."""
    dims = broadcast_shape(data.shape, target.values)
    return Host(expanded(data, dims), dims, data.dtype) if _fits(dims) else NotImplemented


@on_host("Tile")
def tile(_: Node, data: Host, repeats: Host) -> Any:
    """`data` repeated along every axis; large results are left to tensors."""
    if not _fits([dim * times for dim, times in zip(data.shape, repeats.values, strict=True)]):
        return NotImplemented
    for axis, times in enumerate(repeats.values):
        data = picked(data, axis, list(range(data.shape[axis])) * times)
    return data


@on_host("ConstantOfShape")
def constant_of_shape(node: Node, dims: Host) -> Any:
    """A vector of one value; other shapes are left to tensors."""
    value = node.attributes.get("value")
    dtype = torch.float32 if value is None else value.dtype
    if dtype not in DTYPES or len(dims.values) > 1 or not _fits(dims.values):
        return NotImplemented
    entry = 0.0 if value is None else value.item()
    return make([entry] * product(dims.values), dims.values, dtype)


@on_host("Range")
def range_(_: Node, start: Host, limit: Host, delta: Host) -> Any:
    """The integers from `start` on, `delta` apart, before `limit`; long ranges and floats are left to tensors."""
    if not all(type(one.item) is int for one in (start, limit, delta)):
        return NotImplemented
    values = range(start.item, limit.item, delta.item)
    return Host(values, (len(values),), start.dtype) if len(values) <= LIMIT else NotImplemented


def _fits(dims: Any) -> bool:
    """Whether a new Host of these dims would be small; their number is known, their sizes are not under compile."""
    return all(type(dim) is int for dim in dims) and product(dims) <= LIMIT


def _reduced(reduce: Callable[[list[Any]], Any]) -> Callable[..., Any]:
    def run(node: Node, data: Host, axes: Host | None = None) -> Any:
        named = _axes(node, axes)
        rank = len(data.shape)
        if named and {axis % rank for axis in named} != set(range(rank)):
            return NotImplemented
        if (not named and node.integer("noop_with_empty_axes", 0)) or not data.values:
            return NotImplemented
        return make([reduce(list(data.values))], (1,) * rank if node.integer("keepdims", 1) else (), data.dtype)

    return run


for _name, _reduce in (("ReduceSum", sum), ("ReduceProd", product), ("ReduceMax", max), ("ReduceMin", min)):
    on_host(_name)(_reduced(_reduce))
