"""Reductions along axes, which are an attribute in older opsets and an input in newer ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from onnxprune.torch.host import Host
from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import axes_from, axis_of, wide
from onnxprune.torch.registry import op


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keepdim=keep)
    count = math.prod(x.shape[axis] for axis in axes)
    return torch.div(x.sum(axes, keepdim=keep), count, rounding_mode="trunc").to(x.dtype)


def _extreme(x: Tensor, axes: list[int], keep: bool, largest: bool) -> Tensor:
    if x.numel() == 0:
        shape = [1 if axis in axes else size for axis, size in enumerate(x.shape) if keep or axis not in axes]
        if x.is_floating_point():
            return x.new_full(shape, -math.inf if largest else math.inf)
        if x.dtype is torch.bool:
            return x.new_full(shape, not largest)
        return x.new_full(shape, torch.iinfo(x.dtype).min if largest else torch.iinfo(x.dtype).max)
    return x.amax(axes, keepdim=keep) if largest else x.amin(axes, keepdim=keep)


def _max(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _extreme(x, axes, keep, True)


def _min(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _extreme(x, axes, keep, False)


def _prod(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _l1(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _sum(x.abs(), axes, keep)


def _l2(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return _sum(x.square(), axes, keep).sqrt()
    return _sum(x.to(torch.float64).square(), axes, keep).sqrt().to(x.dtype)


def _sum_square(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _sum(x.square(), axes, keep)


def _log_sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _sum(x, axes, keep).log() if x.is_floating_point() else _sum(x.double(), axes, keep).log().to(x.dtype)


def _log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return torch.logsumexp(x, axes, keepdim=keep)
    return torch.logsumexp(x.double(), axes, keepdim=keep).to(x.dtype)


_REDUCTIONS: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceMax": _max,
    "ReduceMin": _min,
    "ReduceProd": _prod,
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceSumSquare": _sum_square,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
}
_AFTERWARDS: dict[str, Callable[[Tensor], Tensor]] = {
    "ReduceL1": torch.abs,
    "ReduceL2": torch.abs,
    "ReduceSumSquare": torch.square,
    "ReduceLogSum": torch.log,
}
"""What is left of a reduction over no axes (noop_with_empty_axes)."""


def _reduction(name: str, function: Callable[[Tensor, list[int], bool], Tensor]) -> Callable[..., Tensor]:
    def run(node: Node, x: Tensor, axes: Host | None = None) -> Tensor:
        named = axes_from(node, axes, x.ndim)
        if not named:
            if node.integer("noop_with_empty_axes", 0):
                return _AFTERWARDS[name](x) if name in _AFTERWARDS else x
            named = list(range(x.ndim))
        keep = bool(node.integer("keepdims", 1))
        return wide(node, lambda one: function(one, named, keep), x) if x.ndim else function(x, [], keep)

    return run


for _name, _function in _REDUCTIONS.items():
    op(_name, host=(1,))(_reduction(_name, _function))


def _place(node: Node, x: Tensor, find: Callable[..., Any]) -> Tensor:
    axis, keep = axis_of(node, 0, x.ndim), bool(node.integer("keepdims", 1))
    if not node.integer("select_last_index", 0):
        found: Tensor = find(x, axis, keepdim=keep)
        return found
    backwards: Tensor = find(x.flip(axis), axis, keepdim=keep)
    return x.shape[axis] - 1 - backwards


@op("ArgMax")
def argmax(node: Node, x: Tensor) -> Tensor:
    """Where the largest entry along `axis` stands: the first of equals, or the last on request; int64."""
    return _place(node, x, torch.argmax)


@op("ArgMin")
def argmin(node: Node, x: Tensor) -> Tensor:
    """Where the smallest entry along `axis` stands: the first of equals, or the last on request; int64."""
    return _place(node, x, torch.argmin)
