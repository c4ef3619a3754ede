"""Products of integers, computed in float64, which holds every integer up to 2^53; no gradient passes."""

from __future__ import annotations

import torch
from torch import Tensor

from onnxprune.torch.node import Node
from onnxprune.torch.ops.conv import conv
from onnxprune.torch.ops.quantize import laid, steps_of
from onnxprune.torch.registry import op


def _centred(x: Tensor, zero: Tensor | None, axis: int) -> Tensor:
    """`x` - zero as float64; zero is a scalar, one an index of `axis`, or broadcasts."""
    if zero is None:
        return x.to(torch.float64)
    if zero.ndim <= 1:
        zero = laid(zero, x, axis, 0)
    return x.to(torch.float64) - zero.to(torch.float64)


@op("MatMulInteger", since=10)
def matmul_integer(_: Node, a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None) -> Tensor:
    """(a - a_zero) · (b - b_zero); int32 [..., M, N]."""
    return torch.matmul(_centred(a, a_zero, -2), _centred(b, b_zero, -1)).to(torch.int32)


@op("ConvInteger", since=10)
def conv_integer(
    node: Node, x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None
) -> Tensor:
    """Conv of x - x_zero with w - w_zero; int32."""
    return conv(node, _centred(x, x_zero, 1), _centred(w, w_zero, 0)).round().to(torch.int32)


def _requantised(exact: Tensor, factor: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """`exact` · factor as steps of `scale`, in the type of `zero`."""
    real = exact * factor.to(torch.float64) / scale.to(torch.float64)
    return steps_of(real, real.new_ones(()), zero, zero.dtype).to(torch.int64).to(zero.dtype)


@op("QLinearMatMul", since=10)
def qlinear_matmul(
    _: Node, a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor,
    y_scale: Tensor, y_zero: Tensor,
) -> Tensor:  # fmt: skip
    """The product of two quantised matrices, quantised."""
    exact = torch.matmul(_centred(a, a_zero, -2), _centred(b, b_zero, -1))
    left = laid(a_scale, exact, -2, 0) if a_scale.ndim <= 1 else a_scale
    right = laid(b_scale, exact, -1, 0) if b_scale.ndim <= 1 else b_scale
    return _requantised(exact, left.to(torch.float64) * right.to(torch.float64), y_scale, y_zero)


@op("QLinearConv", since=10)
def qlinear_conv(
    node: Node, x: Tensor, x_scale: Tensor, x_zero: Tensor, w: Tensor, w_scale: Tensor, w_zero: Tensor,
    y_scale: Tensor, y_zero: Tensor, b: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Conv of quantised tensors, quantised; the bias b [M] is in steps of x_scale · w_scale."""
    exact = conv(node, _centred(x, x_zero, 1), _centred(w, w_zero, 0))
    if b is not None:
        exact = exact + b.to(torch.float64).reshape(-1, *([1] * (x.ndim - 2)))
    factor = x_scale.to(torch.float64).reshape(()) * laid(w_scale.to(torch.float64), exact, 1, 0)
    return _requantised(exact.round(), factor, y_scale, y_zero)
