"""QuantizeLinear and DequantizeLinear, with a straight-through gradient: rounding counts as the identity.

(Bengio, Léonard and Courville, "Estimating or propagating gradients through stochastic neurons", 2013, section 4.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from onnxprune.torch.dtypes import FLOAT8, torch_from_onnx
from onnxprune.torch.node import Node
from onnxprune.torch.ops.layout import converted
from onnxprune.torch.registry import op


def rounded(x: Tensor) -> Tensor:
    """`x` rounded half to even; the gradient is that of x."""
    return x.round().detach() + (x - x.detach())


def laid(values: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """A scale or zero point so that it broadcasts against x: a scalar, one an index of `axis`, or one a block."""
    if values.numel() == 1 and not block:
        return values.reshape(())
    if block:
        return values.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    return values.reshape([-1 if one == axis % x.ndim else 1 for one in range(x.ndim)])


def steps_of(x: Tensor, scale: Tensor, zero: Tensor | None, dtype: torch.dtype) -> Tensor:
    """round(x / scale) + zero cut to the range of the integer `dtype`, as floating point numbers; differentiable."""
    bounds = torch.iinfo(dtype)
    if zero is None:
        return rounded(torch.clamp(x / scale, bounds.min, bounds.max))
    offset = zero.to(x.dtype)
    return rounded(torch.clamp(x / scale, bounds.min - offset, bounds.max - offset)) + offset


@op("QuantizeLinear", since=10)
def quantize_linear(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """saturate(round(x / scale) + zero) in the type of `zero`; scalars, one an index of `axis`, or one a block."""
    node.only("precision", (0, 1), 0)
    element = node.integer("output_dtype", 0)
    dtype = zero.dtype if zero is not None else torch_from_onnx(element, str(node)) if element else torch.uint8
    axis, block = node.integer("axis", 1), node.integer("block_size", 0)
    scale = laid(scale, x, axis, block)
    offset = None if zero is None else laid(zero, x, axis, block)
    wide = x if x.dtype in (torch.float32, torch.float64) else x.to(torch.float32)
    if scale.dtype in (torch.float16, torch.bfloat16) and not node.integer("precision", 0):
        wide = (x.to(scale.dtype) / scale).to(torch.float32)
        scale = torch.ones((), device=x.device)
    if dtype in FLOAT8:
        return converted(wide / scale, dtype, bool(node.integer("saturate", 1)))
    steps = steps_of(wide, scale.to(wide.dtype), offset, dtype)
    return steps if node.fake else steps.to(torch.int64).to(dtype)


@op("DequantizeLinear", since=10)
def dequantize_linear(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """(x - zero) · scale; scalars, one an index of `axis`, or one a block."""
    element = node.integer("output_dtype", 0)
    dtype = torch_from_onnx(element, str(node)) if element else scale.dtype
    axis, block = node.integer("axis", 1), node.integer("block_size", 0)
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    steps = x.to(wide) if x.is_floating_point() or x.dtype in FLOAT8 else x.to(torch.int64)
    if zero is not None:
        offset = laid(zero, x, axis, block)
        steps = steps - (offset.to(wide) if steps.is_floating_point() else offset.to(torch.int64))
    return (steps.to(wide) * laid(scale, x, axis, block).to(wide)).to(dtype)


@op("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(_: Node, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`x` → uint8 steps over its own range, which takes in 0; the scale, and the zero point."""
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = (-low / scale).round().clamp(0, 255)
    steps = ((x / scale).round() + zero).clamp(0, 255)
    return steps.to(torch.uint8), scale, zero.to(torch.uint8)
