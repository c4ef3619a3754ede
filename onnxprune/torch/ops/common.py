"""What several families share: integers that torch has no kernels for, axes, and the padding of convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from onnxprune.torch.host import Host
from onnxprune.torch.node import Node

_WIDE = (torch.uint16, torch.uint32, torch.uint64)


def wide(node: Node, function: Callable[..., Tensor], *inputs: Tensor, bits_only: bool = False) -> Tensor:
    """`function(*inputs)`, where torch has no kernels for unsigned integers computed in int64.

    The result has the type of the first input unless it is boolean. `bits_only`: the function is right for entries of
    2^63 and more too, since it only looks at bits, or wraps.

    Raises:
        ModelError: an entry is 2^63 or more and `function` depends on its size.
    """
    if inputs[0].dtype not in _WIDE and inputs[-1].dtype not in _WIDE:
        return function(*inputs)
    signed = [one.to(torch.int64) if one.dtype in _WIDE else one for one in inputs]
    if not bits_only and any(one.dtype is torch.uint64 for one in inputs):
        for before, after in zip(inputs, signed, strict=True):
            if before.dtype is torch.uint64 and bool((after < 0).any()):
                raise node.refuse("entries of 2^63 and more are not supported")
    result = function(*signed)
    kind = next((one.dtype for one in inputs if one.dtype in _WIDE), result.dtype)
    return result if result.dtype is torch.bool else result.to(kind)


def axis_of(node: Node, default: int, rank: int) -> int:
    """The attribute `axis`, counted from the front. Raises ModelError when it lies outside."""
    axis = node.integer("axis", default)
    if not -rank <= axis < max(rank, 1):
        raise node.refuse(f"axis = {axis} lies outside of a tensor of rank {rank}")
    return axis % rank if rank else 0


def axes_from(node: Node, given: Host | None, rank: int) -> list[int] | None:
    """The axes of an input, or else of the attribute `axes`, counted from the front; None when neither is there."""
    axes = node.ints("axes") if given is None else list(given.values)
    return None if axes is None else [axis % rank if rank else 0 for axis in axes]


def repeated(values: Sequence[int] | None, count: int, default: int = 1) -> list[int]:
    """An attribute with one entry a spatial axis, or the default for each."""
    return [default] * count if values is None else list(values)


def spatial_pads(
    node: Node, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[int], list[int]]:
    """The padding in front of and behind each spatial axis, after `auto_pad` (Conv and pooling, ONNX operator docs)."""
    count = len(kernel)
    mode = node.text("auto_pad", "NOTSET") or "NOTSET"
    if mode == "NOTSET":
        pads = node.ints("pads") or [0] * (2 * count)
        return pads[:count], pads[count:]
    if mode == "VALID":
        return [0] * count, [0] * count
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise node.refuse(f"auto_pad = {mode!r} is unknown")
    front, behind = [], []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = (width - 1) * dilation + 1
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        less, more = total // 2, total - total // 2
        front.append(less if mode == "SAME_UPPER" else more)
        behind.append(more if mode == "SAME_UPPER" else less)
    return front, behind


def torch_pads(front: Sequence[int], behind: Sequence[int]) -> list[int]:
    """Padding as torch.nn.functional.pad wants it: last axis first, front and behind in turn."""
    return [size for pair in zip(reversed(front), reversed(behind), strict=True) for size in pair]


def unflattened(x: Tensor, axis: int, sizes: Sequence[int]) -> Tensor:
    """`x` with one axis (counted from the front, or the back) as several; one size may be -1."""
    axis %= x.ndim
    return x.reshape(*x.shape[:axis], *sizes, *x.shape[axis + 1 :])


def device_index(values: Sequence[int], like: Tensor) -> Tensor:
    """Positions as an int64 vector beside `like`."""
    return torch.tensor(list(values), dtype=torch.int64, device=like.device)


def number(value: Any) -> Any:
    """The entry of a Host or of a tensor with one entry, None for None."""
    if value is None:
        return None
    return value.item if isinstance(value, Host) else value.reshape(-1)[0].item()


def as_tensor(node: Node, value: Any) -> Any:
    """A Host as a tensor, other values as they are."""
    return value.as_tensor(node.state.device) if isinstance(value, Host) else value
