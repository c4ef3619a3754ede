"""Pooling. What torch's pooling cannot express (uneven padding, dilated means, integers, indices) runs on windows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import repeated, spatial_pads, torch_pads, unflattened
from onnxprune.torch.registry import op

_MAX: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEAN: dict[int, Callable[..., Any]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@dataclass(frozen=True)
class Window:
    """The geometry of a pooling node, one entry a spatial axis."""

    sizes: list[int]
    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    front: list[int]
    behind: list[int]
    ceil: bool

    def out_sizes(self) -> list[int]:
        """Windows along each axis; with `ceil` the last one may hang over, but must begin inside."""
        found = []
        for at, size in enumerate(self.sizes):
            reach = (self.kernel[at] - 1) * self.dilations[at] + 1
            room = size + self.front[at] + self.behind[at] - reach
            count = (-(-room // self.strides[at]) if self.ceil else room // self.strides[at]) + 1
            if self.ceil and (count - 1) * self.strides[at] >= size + self.front[at]:
                count -= 1
            found.append(count)
        return found

    def at(self, axis: int, count: int, device: torch.device) -> Tensor:
        """Where the windows of an axis read, in the unpadded tensor; int64 [count, kernel]."""
        starts = torch.arange(count, device=device) * self.strides[axis] - self.front[axis]
        return starts[:, None] + torch.arange(self.kernel[axis], device=device) * self.dilations[axis]


def window_of(node: Node, x: Tensor, kernel: list[int]) -> Window:
    """The geometry of `node` on x [N, C, spatial...]."""
    count = len(kernel)
    strides, dilations = repeated(node.ints("strides"), count), repeated(node.ints("dilations"), count)
    sizes = list(x.shape[2:])
    front, behind = spatial_pads(node, sizes, kernel, strides, dilations)
    return Window(sizes, kernel, strides, dilations, front, behind, bool(node.integer("ceil_mode", 0)))


def windows(x: Tensor, window: Window, fill: float | int) -> Tensor:
    """`x` [N, C, spatial...] → [N, C, windows..., kernel...], places outside of x read as `fill`."""
    outs = window.out_sizes()
    count = len(outs)
    index = [window.at(axis, outs[axis], x.device) for axis in range(count)]
    front = [max(0, -int(one.min())) for one in index]
    behind = [max(0, int(one.max()) + 1 - size) for one, size in zip(index, window.sizes, strict=True)]
    padded = F.pad(x, torch_pads(front, behind), value=fill)
    for axis in range(count):
        at = (index[axis] + front[axis]).reshape(-1)
        padded = padded.index_select(2 + 2 * axis, at)
        padded = unflattened(padded, 2 + 2 * axis, (outs[axis], window.kernel[axis]))
    order = [0, 1, *(2 + 2 * axis for axis in range(count)), *(3 + 2 * axis for axis in range(count))]
    return padded.permute(order)


@op("MaxPool")
def max_pool(node: Node, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """`x` [N, C, spatial...] → [N, C, spatial...], and where in the flat x each value came from."""
    window = window_of(node, x, node.ints("kernel_shape") or [])
    even = window.front == window.behind and all(
        2 * pad <= width for pad, width in zip(window.front, window.kernel, strict=True)
    )
    if even and not node.wants(1) and x.is_floating_point() and len(window.kernel) in _MAX:
        run = _MAX[len(window.kernel)]
        pooled: Tensor = run(x, window.kernel, window.strides, window.front, window.dilations, window.ceil)
        return pooled
    lowest: float | int = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    spread = windows(x if x.is_floating_point() else x.to(torch.int64), window, lowest)
    flat = spread.flatten(2 + len(window.kernel))
    best, which = flat.max(-1)
    if not node.wants(1):
        return best.to(x.dtype)
    return best.to(x.dtype), _flat_places(node, x, window, which)


def _flat_places(node: Node, x: Tensor, window: Window, which: Tensor) -> Tensor:
    """Positions in the flat x of the entries that `which` [N, C, windows...] names inside their windows."""
    column_major = bool(node.integer("storage_order", 0))
    outs, count = window.out_sizes(), len(window.kernel)
    inside = torch.zeros_like(which)
    for axis in range(count):
        within = which // math.prod(window.kernel[axis + 1 :]) % window.kernel[axis]
        places = window.at(axis, outs[axis], x.device)
        rows = torch.arange(outs[axis], device=x.device).reshape([-1 if at == axis else 1 for at in range(count)])
        others = window.sizes[:axis] if column_major else window.sizes[axis + 1 :]
        inside = inside + places[rows.expand_as(within), within] * math.prod(others)
    planes = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(*x.shape[:2], *([1] * count))
    return inside + planes * math.prod(window.sizes)


@op("AveragePool")
def average_pool(node: Node, x: Tensor) -> Tensor:
    """`x` [N, C, spatial...] → means over windows; padding counts with count_include_pad = 1."""
    window = window_of(node, x, node.ints("kernel_shape") or [])
    padded = bool(node.integer("count_include_pad", 0))
    even = window.front == window.behind and all(
        2 * pad <= width for pad, width in zip(window.front, window.kernel, strict=True)
    )
    if even and set(window.dilations) == {1} and len(window.kernel) in _MEAN:
        run = _MEAN[len(window.kernel)]
        pooled: Tensor = run(x, window.kernel, window.strides, window.front, window.ceil, padded)
        return pooled
    spread = windows(x, window, 0)
    total = spread.flatten(2 + len(window.kernel)).sum(-1)
    counts = torch.ones((), dtype=x.dtype, device=x.device)
    for axis, out in enumerate(window.out_sizes()):
        places = window.at(axis, out, x.device)
        low, high = (
            (-window.front[axis], window.sizes[axis] + window.behind[axis]) if padded else (0, window.sizes[axis])
        )
        inside = ((places >= low) & (places < high)).sum(1).to(x.dtype)
        counts = counts.unsqueeze(-1) * inside
    return total / counts


@op("LpPool")
def lp_pool(node: Node, x: Tensor) -> Tensor:
    """The p-norm over windows."""
    window = window_of(node, x, node.ints("kernel_shape") or [])
    p = node.attributes.get("p", 2)
    spread = windows(x, window, 0).flatten(2 + len(window.kernel))
    return spread.abs().pow(p).sum(-1).pow(1 / p)


def _spatial(x: Tensor) -> list[int]:
    return list(range(2, x.ndim))


@op("GlobalAveragePool")
def global_average_pool(_: Node, x: Tensor) -> Tensor:
    """`x` [N, C, spatial...] → [N, C, 1...], means."""
    return x.mean(_spatial(x), keepdim=True)


@op("GlobalMaxPool")
def global_max_pool(_: Node, x: Tensor) -> Tensor:
    """`x` [N, C, spatial...] → [N, C, 1...], maxima."""
    return x.amax(_spatial(x), keepdim=True)


@op("GlobalLpPool")
def global_lp_pool(node: Node, x: Tensor) -> Tensor:
    """`x` [N, C, spatial...] → [N, C, 1...], p-norms."""
    p = node.attributes.get("p", 2)
    return x.abs().pow(p).sum(_spatial(x), keepdim=True).pow(1 / p)


@op("MaxUnpool", since=9, host=(2,))
def max_unpool(node: Node, x: Tensor, places: Tensor, output_shape: Any = None) -> Tensor:
    """`x` [N, C, spatial...] back where `places` (positions in the flat result) say, zeros elsewhere."""
    kernel = node.ints("kernel_shape") or []
    strides, pads = repeated(node.ints("strides"), len(kernel)), repeated(node.ints("pads"), 2 * len(kernel), 0)
    sizes = [
        (size - 1) * strides[at] - pads[at] - pads[at + len(kernel)] + kernel[at] for at, size in enumerate(x.shape[2:])
    ]
    shape = [*x.shape[:2], *sizes]
    flat = torch.zeros(math.prod(shape), dtype=x.dtype, device=x.device)
    whole = flat.index_put((places.reshape(-1),), x.reshape(-1)).reshape(shape)
    if output_shape is None:
        return whole
    return F.pad(
        whole, torch_pads([0] * len(shape), [want - has for want, has in zip(output_shape.values, shape, strict=True)])
    )
