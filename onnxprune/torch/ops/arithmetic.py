"""Arithmetic on two or more inputs, with numpy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from onnxprune.torch.host import Host
from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import number, wide
from onnxprune.torch.registry import op


@op("Add")
def add(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """`a` + b."""
    return wide(node, torch.add, a, b, bits_only=True)


@op("Sub")
def sub(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """`a` - b."""
    return wide(node, torch.sub, a, b, bits_only=True)


@op("Mul")
def mul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """`a` · b."""
    return wide(node, torch.mul, a, b, bits_only=True)


@op("Div")
def div(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """`a` / b; integers are cut toward zero."""
    if a.is_floating_point() or a.is_complex():
        return torch.div(a, b)
    return wide(node, lambda x, y: torch.div(x, y, rounding_mode="trunc"), a, b)


@op("Mod")
def mod(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """The remainder of a / b with the sign of b, or of a with fmod = 1."""
    return wide(node, torch.fmod if node.integer("fmod", 0) else torch.remainder, a, b)


@op("Pow", keep=(1,))
def power(node: Node, a: Tensor, b: Tensor | Host) -> Tensor:
    """`a` ** b in the type of a."""
    if isinstance(b, Host):
        exponent = b.as_tensor(a.device)
        if a.is_floating_point() and b.shape == ():
            return torch.pow(a, float(b.item))
    else:
        exponent = b
    if a.is_floating_point():
        return torch.pow(a, exponent if exponent.is_floating_point() else exponent.to(a.dtype)).to(a.dtype)
    if exponent.is_floating_point():
        return torch.pow(a.to(torch.float64), exponent.to(torch.float64)).to(a.dtype)
    return wide(node, lambda x, y: torch.pow(x.to(torch.int64), y.to(torch.int64)).to(x.dtype), a, exponent)


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def run(node: Node, *inputs: Tensor) -> Tensor:
        if len(inputs) == 1:
            return inputs[0]
        return reduce(lambda a, b: wide(node, function, a, b), inputs)

    return run


for _name, _function in (("Min", torch.minimum), ("Max", torch.maximum), ("Sum", torch.add)):
    op(_name)(_folded(_function))


@op("Mean")
def mean(_: Node, *inputs: Tensor) -> Tensor:
    """The mean of the inputs, entry by entry."""
    return reduce(torch.add, inputs) / len(inputs)


@op("Clip", keep=(1, 2))
def clip(node: Node, x: Tensor, low: Tensor | Host | None = None, high: Tensor | Host | None = None) -> Tensor:
    """`x` cut to [low, high]; where low is above high, high. Before opset 11 the bounds are attributes."""
    if node.opset < 11:
        return torch.clamp(x, node.attributes.get("min"), node.attributes.get("max")) if node.attributes else x
    if low is None and high is None:
        return x
    if any(isinstance(one, Tensor) and one.requires_grad for one in (low, high)):
        bounds = [one.as_tensor(x.device) if isinstance(one, Host) else one for one in (low, high)]
        lowered = x if bounds[0] is None else torch.maximum(x, bounds[0])
        return lowered if bounds[1] is None else torch.minimum(lowered, bounds[1])
    least, most = number(low), number(high)
    return wide(node, lambda one: torch.clamp(one, least, most), x)


@op("BitShift")
def bit_shift(node: Node, x: Tensor, count: Tensor) -> Tensor:
    """`x` shifted by `count` bits; unsigned integers."""
    direction = node.only("direction", ("LEFT", "RIGHT"), "")
    function = torch.bitwise_left_shift if direction == "LEFT" else torch.bitwise_right_shift
    if x.dtype is torch.uint8:
        return function(x.to(torch.int64), count.to(torch.int64)).to(torch.uint8)
    return wide(node, function, x, count, bits_only=direction == "LEFT")
