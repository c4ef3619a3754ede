"""One input, entry by entry."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import wide
from onnxprune.torch.registry import op

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}


def _entrywise(function: Callable[[Tensor], Tensor]) -> Callable[[Node, Tensor], Tensor]:
    def run(node: Node, x: Tensor) -> Tensor:
        return wide(node, function, x)

    return run


for _name, _function in _FUNCTIONS.items():
    op(_name)(_entrywise(_function))


@op("IsInf")
def is_inf(node: Node, x: Tensor) -> Tensor:
    """Whether entries are infinite, of the signs asked for; bool of the shape of x."""
    found = torch.zeros_like(x, dtype=torch.bool)
    if node.integer("detect_positive", 1):
        found = found | torch.isposinf(x)
    if node.integer("detect_negative", 1):
        found = found | torch.isneginf(x)
    return found


@op("BitwiseNot")
def bitwise_not(node: Node, x: Tensor) -> Tensor:
    """Every bit the other way; integers."""
    return wide(node, torch.bitwise_not, x, bits_only=True)


@op("Det")
def det(_: Node, x: Tensor) -> Tensor:
    """`x` [..., M, M] → determinants [...]."""
    found: Tensor = torch.linalg.det(x)
    return found
