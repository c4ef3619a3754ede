"""Comparison, logic, and choice between two inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import wide
from onnxprune.torch.registry import op

_COMPARISONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
}
_BITS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
}


def _pairwise(function: Callable[[Tensor, Tensor], Tensor], *, bits_only: bool) -> Callable[..., Tensor]:
    def run(node: Node, a: Tensor, b: Tensor) -> Tensor:
        return wide(node, function, a, b, bits_only=bits_only)

    return run


for _name, _function in _COMPARISONS.items():
    op(_name)(_pairwise(_function, bits_only=_name == "Equal"))
for _name, _function in _BITS.items():
    op(_name)(_pairwise(_function, bits_only=True))


@op("Where")
def where(node: Node, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`a` where the condition holds, b elsewhere."""
    return wide(node, lambda x, y: torch.where(condition, x, y), a, b, bits_only=True)
