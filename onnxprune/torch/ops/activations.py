"""Activations, and softmax in its forms."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import axis_of
from onnxprune.torch.registry import op


@op("Relu")
def relu(_: Node, x: Tensor) -> Tensor:
    """max(x, 0)."""
    return F.relu(x)


@op("LeakyRelu")
def leaky_relu(node: Node, x: Tensor) -> Tensor:
    """x, below 0 times alpha."""
    return F.leaky_relu(x, node.real("alpha", 0.01))


@op("PRelu")
def prelu(_: Node, x: Tensor, slope: Tensor) -> Tensor:
    """x, below 0 times `slope`, which broadcasts to x."""
    channels = x.ndim > 1 and slope.numel() == x.shape[1] and slope.ndim == x.ndim - 1 and slope.shape[0] == x.shape[1]
    if slope.is_floating_point() and (slope.numel() == 1 or channels):
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x >= 0, x, x * slope)


@op("Elu")
def elu(node: Node, x: Tensor) -> Tensor:
    """x, below 0 alpha · (exp(x) - 1)."""
    return F.elu(x, node.real("alpha", 1.0))


@op("Celu")
def celu(node: Node, x: Tensor) -> Tensor:
    """x, below 0 alpha · (exp(x / alpha) - 1)."""
    return F.celu(x, node.real("alpha", 1.0))


@op("Selu")
def selu(node: Node, x: Tensor) -> Tensor:
    """`gamma` · elu(x, alpha)."""
    alpha, gamma = node.real("alpha", 1.67326319217681884765625), node.real("gamma", 1.05070102214813232421875)
    return gamma * F.elu(x, alpha)


@op("Sigmoid")
def sigmoid(_: Node, x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return torch.sigmoid(x)


@op("HardSigmoid")
def hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    """`alpha` · x + beta, cut to [0, 1]."""
    return torch.clamp(x * node.real("alpha", 0.2) + node.real("beta", 0.5), 0, 1)


@op("HardSwish")
def hard_swish(_: Node, x: Tensor) -> Tensor:
    """`x` · (x / 6 + 1/2, cut to [0, 1])."""
    return F.hardswish(x)


@op("Softplus")
def softplus(_: Node, x: Tensor) -> Tensor:
    """log(1 + exp(x))."""
    return F.softplus(x)


@op("Softsign")
def softsign(_: Node, x: Tensor) -> Tensor:
    """`x` / (1 + |x|)."""
    return F.softsign(x)


@op("ThresholdedRelu")
def thresholded_relu(node: Node, x: Tensor) -> Tensor:
    """`x` above alpha, else 0."""
    return torch.where(x > node.real("alpha", 1.0), x, torch.zeros_like(x))


@op("Shrink")
def shrink(node: Node, x: Tensor) -> Tensor:
    """`x` + bias below -lambd, x - bias above lambd, else 0."""
    bias, bound = node.real("bias", 0.0), node.real("lambd", 0.5)
    shrunk = torch.where(x < -bound, x + bias, torch.where(x > bound, x - bias, torch.zeros_like(x)))
    return shrunk.to(x.dtype)


@op("Gelu", since=20)
@op("Gelu", domain="com.microsoft")
def gelu(node: Node, x: Tensor) -> Tensor:
    """`x` · Phi(x), exactly or by tanh."""
    return F.gelu(x, approximate=node.only("approximate", ("none", "tanh"), "none"))


@op("Mish", since=18)
def mish(_: Node, x: Tensor) -> Tensor:
    """`x` · tanh(softplus(x))."""
    return F.mish(x)


@op("Swish", since=24)
def swish(node: Node, x: Tensor) -> Tensor:
    """`x` · sigmoid(alpha · x)."""
    alpha = node.real("alpha", 1.0)
    return F.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)


@op("QuickGelu", domain="com.microsoft")
def quick_gelu(node: Node, x: Tensor) -> Tensor:
    """`x` · sigmoid(alpha · x)."""
    return x * torch.sigmoid(node.real("alpha", 1.702) * x)


def _softmax(node: Node, x: Tensor, function: Any) -> Tensor:
    """Along one axis; before opset 13 over all axes from `axis` on."""
    if node.opset >= 13:
        result: Tensor = function(x, axis_of(node, -1, x.ndim))
        return result
    axis = axis_of(node, 1, x.ndim) if x.ndim > 1 else 0
    rows = math.prod(x.shape[:axis])
    flat: Tensor = function(x.reshape(rows, -1), 1)
    return flat.reshape(x.shape)


@op("Softmax")
def softmax(node: Node, x: Tensor) -> Tensor:
    """exp(x) over its sum."""
    return _softmax(node, x, F.softmax)


@op("LogSoftmax")
def log_softmax(node: Node, x: Tensor) -> Tensor:
    """`x` less the logarithm of the sum of exp(x)."""
    return _softmax(node, x, F.log_softmax)


@op("Hardmax")
def hardmax(node: Node, x: Tensor) -> Tensor:
    """1 at the first largest entry, else 0."""

    def first_largest(value: Tensor, axis: int) -> Tensor:
        return torch.zeros_like(value).scatter(axis, value.argmax(axis, keepdim=True), 1)

    return _softmax(node, x, first_largest)
