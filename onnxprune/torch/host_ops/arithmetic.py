"""Arithmetic, comparison and logic on Hosts, with broadcasting."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch

from onnxprune.torch.host import Host, make
from onnxprune.torch.host_ops.grid import broadcast_shape, expanded
from onnxprune.torch.node import Node
from onnxprune.torch.registry import on_host


def _spread(function: Callable[..., Any], dtype: torch.dtype, *hosts: Host) -> Host:
    shape = broadcast_shape(*(host.shape for host in hosts))
    return make(
        [function(*entries) for entries in zip(*(expanded(host, shape) for host in hosts), strict=True)], shape, dtype
    )


def _is_float(host: Host) -> bool:
    return host.dtype in (torch.float32, torch.float64)


@on_host("Add")
def add(_: Node, a: Host, b: Host) -> Host:
    """Entries of a + b."""
    return _spread(lambda x, y: x + y, a.dtype, a, b)


@on_host("Sub")
def sub(_: Node, a: Host, b: Host) -> Host:
    """Entries of a - b."""
    return _spread(lambda x, y: x - y, a.dtype, a, b)


@on_host("Mul")
def mul(_: Node, a: Host, b: Host) -> Host:
    """Entries of a · b."""
    return _spread(lambda x, y: x * y, a.dtype, a, b)


@on_host("Div")
def div(_: Node, a: Host, b: Host) -> Any:
    """Entries of a / b; integers are cut toward zero. Division by zero is left to tensors."""
    if any(value == 0 for value in b.values):
        return NotImplemented
    if _is_float(a):
        return _spread(lambda x, y: x / y, a.dtype, a, b)
    return _spread(_cut_division, a.dtype, a, b)


def _cut_division(x: Any, y: Any) -> Any:
    return x // y if (x >= 0) == (y > 0) else -(-x // y)


@on_host("Mod")
def mod(node: Node, a: Host, b: Host) -> Any:
    """The remainder with the sign of b (of a with fmod = 1)."""
    if any(value == 0 for value in b.values):
        return NotImplemented
    if node.integer("fmod", 0):
        return _spread(math.fmod, a.dtype, a, b)
    return _spread(lambda x, y: x % y, a.dtype, a, b)


@on_host("Pow")
def power(_: Node, a: Host, b: Host) -> Any:
    """Entries of a ** b for integers with exponents from 0 on, and for positive floats."""
    if any(value < 0 for value in (*a.values, *b.values)):
        return NotImplemented
    return _spread(lambda x, y: x**y, a.dtype, a, b)


@on_host("Neg")
def neg(_: Node, a: Host) -> Host:
    """-a."""
    return _spread(lambda x: -x, a.dtype, a)


@on_host("Abs")
def absolute(_: Node, a: Host) -> Host:
    """|a|."""
    return _spread(abs, a.dtype, a)


@on_host("Floor")
def floor(_: Node, a: Host) -> Host:
    """The largest integers not above a."""
    return _spread(math.floor, a.dtype, a)


@on_host("Ceil")
def ceil(_: Node, a: Host) -> Host:
    """The smallest integers not below a."""
    return _spread(math.ceil, a.dtype, a)


@on_host("Round")
def round_half_even(_: Node, a: Host) -> Host:
    """The nearest integers, halves to the even one."""
    return _spread(round, a.dtype, a)


@on_host("Sqrt")
def sqrt(_: Node, a: Host) -> Any:
    """Square roots of entries from 0 on."""
    return NotImplemented if any(value < 0 for value in a.values) else _spread(math.sqrt, a.dtype, a)


@on_host("Reciprocal")
def reciprocal(_: Node, a: Host) -> Any:
    """1 / a."""
    return NotImplemented if any(value == 0 for value in a.values) else _spread(lambda x: 1 / x, a.dtype, a)


@on_host("Min")
def minimum(_: Node, *hosts: Host) -> Host:
    """The smallest of the entries."""
    return reduce(lambda a, b: _spread(min, a.dtype, a, b), hosts)


@on_host("Max")
def maximum(_: Node, *hosts: Host) -> Host:
    """The largest of the entries."""
    return reduce(lambda a, b: _spread(max, a.dtype, a, b), hosts)


@on_host("Equal")
def equal(_: Node, a: Host, b: Host) -> Host:
    """Whether entries are equal."""
    return _spread(lambda x, y: x == y, torch.bool, a, b)


@on_host("Greater")
def greater(_: Node, a: Host, b: Host) -> Host:
    """`a` > b."""
    return _spread(lambda x, y: x > y, torch.bool, a, b)


@on_host("GreaterOrEqual")
def greater_or_equal(_: Node, a: Host, b: Host) -> Host:
    """`a` >= b."""
    return _spread(lambda x, y: x >= y, torch.bool, a, b)


@on_host("Less")
def less(_: Node, a: Host, b: Host) -> Host:
    """`a` < b."""
    return _spread(lambda x, y: x < y, torch.bool, a, b)


@on_host("LessOrEqual")
def less_or_equal(_: Node, a: Host, b: Host) -> Host:
    """`a` <= b."""
    return _spread(lambda x, y: x <= y, torch.bool, a, b)


@on_host("And")
def logical_and(_: Node, a: Host, b: Host) -> Host:
    """`a` and b."""
    return _spread(lambda x, y: x and y, torch.bool, a, b)


@on_host("Or")
def logical_or(_: Node, a: Host, b: Host) -> Host:
    """`a` or b."""
    return _spread(lambda x, y: x or y, torch.bool, a, b)


@on_host("Xor")
def logical_xor(_: Node, a: Host, b: Host) -> Host:
    """Either, but not both."""
    return _spread(lambda x, y: x != y, torch.bool, a, b)


@on_host("Not")
def logical_not(_: Node, a: Host) -> Host:
    """Not a."""
    return _spread(lambda x: not x, torch.bool, a)


@on_host("Where")
def where(_: Node, condition: Host, a: Host, b: Host) -> Host:
    """Entries of a where the condition holds, of b elsewhere."""
    return _spread(lambda c, x, y: x if c else y, a.dtype, condition, a, b)
