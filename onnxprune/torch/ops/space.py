"""Sampling by coordinates, and patches put back into images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.torch.host import Host
from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import repeated
from onnxprune.torch.registry import op

_MODES = {
    "linear": "bilinear",
    "bilinear": "bilinear",
    "nearest": "nearest",
    "cubic": "bicubic",
    "bicubic": "bicubic",
}


@op("AffineGrid", since=20, host=(1,))
def affine_grid(node: Node, theta: Tensor, size: Host) -> Tensor:
    """`theta` [N, 2, 3] or [N, 3, 4] → sampling grids [N, H, W, 2] or [N, D, H, W, 3] for images of `size`."""
    return F.affine_grid(theta, list(size.values), align_corners=bool(node.integer("align_corners", 0)))


@op("GridSample", since=16)
def grid_sample(node: Node, x: Tensor, grid: Tensor) -> Tensor:
    """`x` [N, C, H, W] read at grid [N, H', W', 2], or the same with one more spatial axis."""
    mode = _MODES[node.only("mode", tuple(_MODES), "linear")]
    padding = node.only("padding_mode", ("zeros", "border", "reflection"), "zeros")
    if x.ndim not in (4, 5) or (x.ndim == 5 and mode == "bicubic"):
        raise node.refuse(f"mode {mode!r} on {x.ndim - 2} spatial axes is not supported")
    return F.grid_sample(x, grid.to(x.dtype), mode, padding, bool(node.integer("align_corners", 0)))


@op("Col2Im", since=18, host=(1, 2))
def col2im(node: Node, x: Tensor, image: Host, block: Host) -> Tensor:
    """`x` [N, C · block, L] → [N, C, image...], overlapping patches summed."""
    dims, kernel = list(image.values), list(block.values)
    count = len(dims)
    strides, dilations = repeated(node.ints("strides"), count), repeated(node.ints("dilations"), count)
    pads = repeated(node.ints("pads"), 2 * count, 0)
    padded = [size + pads[at] + pads[at + count] for at, size in enumerate(dims)]
    places = torch.zeros(1, 1, dtype=torch.int64, device=x.device)
    for at, size in enumerate(padded):
        steps = (size - dilations[at] * (kernel[at] - 1) - 1) // strides[at] + 1
        inside = torch.arange(kernel[at], device=x.device) * dilations[at]
        starts = torch.arange(steps, device=x.device) * strides[at]
        rows, columns = places.shape
        own = inside[:, None] + starts[None, :]
        places = (places[:, None, :, None] * size + own[None, :, None, :]).reshape(rows * kernel[at], columns * steps)
    channels = x.shape[1] // math.prod(kernel)
    flat = x.new_zeros(x.shape[0], channels, math.prod(padded))
    patches = x.reshape(x.shape[0], channels, -1)
    whole = flat.index_add(2, places.reshape(-1), patches).reshape(x.shape[0], channels, *padded)
    for at, size in enumerate(dims):
        whole = whole.narrow(2 + at, pads[at], size)
    return whole
