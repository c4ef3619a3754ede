"""Padding."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from onnxprune.torch.host import Host
from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import device_index, number
from onnxprune.torch.registry import op

_PLAIN = {"reflect": "reflect", "edge": "replicate"}


@op("Pad", host=(1, 2, 3))
def pad(node: Node, x: Tensor, pads: Host | None = None, value: Host | None = None, axes: Host | None = None) -> Tensor:
    """`x` with entries put before and behind its axes (negative: taken away); `mode` says which."""
    mode = node.only("mode", ("constant", "reflect", "edge", "wrap"), "constant")
    given: list[Any] = (node.ints("pads") or []) if pads is None else list(pads.values)
    named = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in axes.values]
    front, behind = [0] * x.ndim, [0] * x.ndim
    for at, axis in enumerate(named):
        front[axis], behind[axis] = given[at], given[at + len(named)]
    if mode == "constant":
        fill = node.real("value", 0.0) if value is None else number(value)
        flat = [size for axis in reversed(range(x.ndim)) for size in (front[axis], behind[axis])]
        while len(flat) > 2 and flat[-1] == 0 and flat[-2] == 0:
            del flat[-2:]
        return F.pad(x, flat, value=fill)
    if _fits_torch(x, mode, front, behind):
        flat = [size for axis in reversed(range(2, x.ndim)) for size in (front[axis], behind[axis])]
        return F.pad(x, flat, mode=_PLAIN[mode])
    for axis in range(x.ndim):
        if front[axis] or behind[axis]:
            x = _spread(x, axis, front[axis], behind[axis], mode)
    return x


def _fits_torch(x: Tensor, mode: str, front: list[Any], behind: list[Any]) -> bool:
    """Whether torch has a kernel: at most three axes behind the first two, padded by less than their size."""
    if mode not in _PLAIN or not 3 <= x.ndim <= 5 or any((*front[:2], *behind[:2])) or not x.is_floating_point():
        return False
    return all(0 <= size < x.shape[axis] for axis in range(2, x.ndim) for size in (front[axis], behind[axis]))


def _spread(x: Tensor, axis: int, front: int, behind: int, mode: str) -> Tensor:
    """`x` along one axis read at the places that the padding shows."""
    size = x.shape[axis]
    low, high = max(0, -front), size - max(0, -behind)
    kept = high - low
    places = range(-max(front, 0), kept + max(behind, 0))
    if mode == "edge":
        shown = [min(max(at, 0), kept - 1) for at in places]
    elif mode == "wrap":
        shown = [at % kept for at in places]
    else:
        period = max(2 * (kept - 1), 1)
        shown = [min(at % period, period - at % period) if kept > 1 else 0 for at in places]
    return x.index_select(axis, device_index([low + at for at in shown], x))
