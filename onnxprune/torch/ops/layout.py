"""Types and shapes: the entries stay, or are repeated."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.torch.dtypes import FLOAT8, torch_from_onnx
from onnxprune.torch.host import Host
from onnxprune.torch.host_ops.grid import broadcast_shape
from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import axes_from
from onnxprune.torch.registry import ALL, op


@op("Identity", keep=ALL)
def identity(_: Node, x: Any) -> Any:
    """The value itself: a tensor, a sequence or an absent optional."""
    return x


@op("Shape")
def shape(node: Node, x: Tensor) -> Host:
    """The dims from `start` to `end`, on the host."""
    dims = x.shape[node.integer("start", 0) : node.attributes.get("end")]
    return Host(dims, (len(dims),), torch.int64)


@op("Size")
def size(_: Node, x: Tensor) -> Host:
    """The number of entries, on the host."""
    return Host((math.prod(x.shape),), (), torch.int64)


def converted(x: Tensor, dtype: torch.dtype, saturate: bool) -> Tensor:
    """`x` in another type; into 8-bit floats cut to their range on request."""
    if dtype in FLOAT8:
        x = x.float()
        if saturate:
            most = torch.finfo(dtype).max
            x = torch.clamp(x, -most, most)
        elif dtype is torch.float8_e4m3fn:  # torch cuts here, whatever is asked for; 464 still rounds to 448
            x = torch.where(x.abs() > 464, torch.full_like(x, math.nan), x)
    elif not dtype.is_floating_point and x.is_floating_point() and dtype is not torch.bool:
        x = x.to(torch.int64) if x.dtype is not torch.bool else x
    return x.to(dtype)


@op("Cast")
def cast(node: Node, x: Tensor) -> Tensor:
    """`x` in the element type `to`."""
    node.only("round_mode", ("up",), "up")
    return converted(x, torch_from_onnx(node.integer("to", 1), str(node)), bool(node.integer("saturate", 1)))


@op("CastLike", since=15)
def cast_like(node: Node, x: Tensor, like: Tensor) -> Tensor:
    """`x` in the element type of `like`."""
    node.only("round_mode", ("up",), "up")
    return converted(x, like.dtype, bool(node.integer("saturate", 1)))


@op("BitCast", since=26)
def bit_cast(node: Node, x: Tensor) -> Tensor:
    """The bits of x read as another type of the same width."""
    dtype = torch_from_onnx(node.integer("to", 1), str(node))
    if x.dtype is torch.bool or dtype is torch.bool:
        return x.view(torch.uint8).view(dtype)
    return x.contiguous().view(dtype)


@op("Reshape", host=(1,))
def reshape(node: Node, x: Tensor, target: Host) -> Tensor:
    """`x` in the shape `target`: 0 copies a dim, one -1 is what is left.

    A constant target that was written for another batch is scaled along its first axis.
    """
    dims = list(target.values)
    if not node.integer("allowzero", 0):
        dims = [x.shape[at] if dim == 0 else dim for at, dim in enumerate(dims)]
    factor = node.state.batch_factor
    if factor != 1 and node.varies and 1 in node.fixed and dims and dims[0] > 0 and target.values[0] > 0:
        dims[0] *= factor
    return x.reshape(dims)


@op("Flatten")
def flatten(node: Node, x: Tensor) -> Tensor:
    """`x` as a matrix, the axes before `axis` its rows."""
    axis = node.integer("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1 if x.numel() else math.prod(x.shape[axis:]))


@op("Transpose")
def transpose(node: Node, x: Tensor) -> Tensor:
    """`x` with its axes in the order of `perm`, or reversed."""
    return x.permute(node.ints("perm") or list(range(x.ndim))[::-1])


@op("Squeeze", host=(1,))
def squeeze(node: Node, x: Tensor, axes: Host | None = None) -> Tensor:
    """`x` without the named axes, or without all of size 1."""
    named = axes_from(node, axes, x.ndim)
    if named is None:
        return x.squeeze()
    gone = set(named)
    return x.reshape([dim for axis, dim in enumerate(x.shape) if axis not in gone])


@op("Unsqueeze", host=(1,))
def unsqueeze(node: Node, x: Tensor, axes: Host | None = None) -> Tensor:
    """`x` with axes of size 1 at the named places of the result."""
    named = node.ints("axes") if axes is None else list(axes.values)
    rank = x.ndim + len(named or [])
    for axis in sorted(axis % rank for axis in named or []):
        x = x.unsqueeze(axis)
    return x


@op("Expand", host=(1,))
def expand(node: Node, x: Tensor, target: Host) -> Tensor:
    """`x` broadcast with the dims in `target`."""
    dims = list(target.values)
    factor = node.state.batch_factor
    if factor != 1 and 1 in node.fixed and x.ndim and len(dims) == x.ndim and x.shape[0] == dims[0] * factor:
        dims[0] *= factor
    return x.expand(broadcast_shape(tuple(x.shape), dims))


@op("Tile", host=(1,))
def tile(_: Node, x: Tensor, repeats: Host) -> Tensor:
    """`x` repeated along every axis."""
    return x.repeat(list(repeats.values)) if repeats.values else x


@op("CenterCropPad", since=18, host=(1,))
def center_crop_pad(node: Node, x: Tensor, target: Host) -> Tensor:
    """`x` cut or padded with zeros, evenly at both ends, to the sizes in `target` along `axes`."""
    axes = axes_from(node, None, x.ndim) or list(range(x.ndim))
    pads = [0] * (2 * x.ndim)
    for axis, wanted in zip(axes, target.values, strict=True):
        more = wanted - x.shape[axis]
        front = more // 2 if more > 0 else -((-more) // 2)
        pads[2 * (x.ndim - 1 - axis) : 2 * (x.ndim - axis)] = [front, more - front]
    return F.pad(x, pads)


@op("DepthToSpace")
def depth_to_space(node: Node, x: Tensor) -> Tensor:
    """`x` [N, C, H, W] → [N, C / b², H·b, W·b]; mode DCR or CRD says where the block stands among the channels."""
    block, (n, c, h, w) = node.integer("blocksize", 1), x.shape
    if node.only("mode", ("DCR", "CRD"), "DCR") == "DCR":
        spread = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        spread = x.reshape(n, c // block**2, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
    return spread.reshape(n, c // block**2, h * block, w * block)


@op("SpaceToDepth")
def space_to_depth(node: Node, x: Tensor) -> Tensor:
    """`x` [N, C, H, W] → [N, C·b², H / b, W / b]."""
    block, (n, c, h, w) = node.integer("blocksize", 1), x.shape
    spread = x.reshape(n, c, h // block, block, w // block, block)
    order = (0, 3, 5, 1, 2, 4) if node.only("mode", ("DCR", "CRD"), "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return spread.permute(order).reshape(n, c * block**2, h // block, w // block)
