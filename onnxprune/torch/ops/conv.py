"""Convolution and its transpose, in one to three dimensions."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import repeated, spatial_pads, torch_pads
from onnxprune.torch.ops.linear import gemm
from onnxprune.torch.registry import MICROSOFT, op

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@op("Conv")
def conv(node: Node, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """`x` [N, C, spatial...], w [M, C / group, kernel...], b [M] → [N, M, spatial...]."""
    count = x.ndim - 2
    if count not in _CONV:
        raise node.refuse(f"{count} spatial axes are not supported, only 1 to 3")
    strides, dilations = repeated(node.ints("strides"), count), repeated(node.ints("dilations"), count)
    front, behind = spatial_pads(node, x.shape[2:], w.shape[2:], strides, dilations)
    if front != behind:
        x = F.pad(x, torch_pads(front, behind))
        front = [0] * count
    return _CONV[count](x, w, b, strides, front, dilations, node.integer("group", 1))


@op("ConvTranspose")
def conv_transpose(node: Node, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """`x` [N, C, spatial...], w [C, M / group, kernel...], b [M] → [N, M, spatial...]."""
    count = x.ndim - 2
    if count not in _TRANSPOSED:
        raise node.refuse(f"{count} spatial axes are not supported, only 1 to 3")
    strides, dilations = repeated(node.ints("strides"), count), repeated(node.ints("dilations"), count)
    extra = repeated(node.ints("output_padding"), count, 0)
    group = node.integer("group", 1)
    front, behind = _transposed_pads(node, x, w, strides, dilations, extra)
    run = _TRANSPOSED[count]
    fits = all(one < max(stride, dilation) for one, stride, dilation in zip(extra, strides, dilations, strict=True))
    if front == behind and fits and min(front, default=0) >= 0:
        return run(x, w, b, strides, front, extra, group, dilations)
    whole = run(x, w, None, strides, 0, 0, group, dilations)
    cut = F.pad(
        whole, torch_pads([-one for one in front], [more - one for more, one in zip(extra, behind, strict=True)])
    )
    return cut if b is None else cut + b.reshape(-1, *([1] * count))


def _transposed_pads(
    node: Node, x: Tensor, w: Tensor, strides: list[int], dilations: list[int], extra: list[int]
) -> tuple[list[int], list[int]]:
    """How much is cut off in front and behind, after `auto_pad` and `output_shape` (ONNX ConvTranspose)."""
    count = len(strides)
    mode = node.text("auto_pad", "NOTSET") or "NOTSET"
    wanted = node.ints("output_shape")
    if wanted is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    if wanted is None:
        pads = (node.ints("pads") if mode == "NOTSET" else None) or [0] * (2 * count)
        return pads[:count], pads[count:]
    front, behind = [], []
    for at in range(count):
        full = strides[at] * (x.shape[2 + at] - 1) + extra[at] + (w.shape[2 + at] - 1) * dilations[at] + 1
        total = full - wanted[len(wanted) - count + at]
        less = total // 2
        front.append(less if mode == "SAME_UPPER" else total - less)
        behind.append(total - less if mode == "SAME_UPPER" else less)
    return front, behind


def activated(node: Node, x: Tensor) -> Tensor:
    """The activation that a fused operator of com.microsoft names in `activation`."""
    kind = node.text("activation", "")
    given = node.attributes.get("activation_params", [])
    functions: dict[str, Callable[[Tensor], Tensor]] = {"Relu": F.relu, "Tanh": torch.tanh, "Sigmoid": torch.sigmoid}
    if not kind:
        return x
    if kind in functions:
        return functions[kind](x)
    if kind == "LeakyRelu":
        return F.leaky_relu(x, given[0] if given else node.real("leaky_relu_alpha", 0.01))
    if kind == "Clip" and len(given) == 2:
        return torch.clamp(x, given[0], given[1])
    if kind == "HardSigmoid" and len(given) == 2:
        return torch.clamp(x * given[0] + given[1], 0, 1)
    raise node.refuse(f"activation = {kind!r} with {given} is not supported")


@op("FusedConv", domain=MICROSOFT)
def fused_conv(node: Node, x: Tensor, w: Tensor, b: Tensor | None = None, z: Tensor | None = None) -> Tensor:
    """Conv, plus z, through an activation."""
    result = conv(node, x, w, b)
    return activated(node, result if z is None else result + z)


@op("FusedGemm", domain=MICROSOFT)
def fused_gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """Gemm through an activation."""
    kind = node.text("activation", "")
    result = gemm(node, a, b, c)
    if kind == "LeakyRelu":
        return F.leaky_relu(result, node.real("activation_alpha", 0.01))
    return activated(node, result)
