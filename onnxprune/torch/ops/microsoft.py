"""Fused operators of com.microsoft that onnxruntime's optimiser and common exports write."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.torch.host import Host
from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import number
from onnxprune.torch.ops.quantize import dequantize_linear, quantize_linear
from onnxprune.torch.registry import MICROSOFT, op

op("QuantizeLinear", domain=MICROSOFT)(quantize_linear)
op("DequantizeLinear", domain=MICROSOFT)(dequantize_linear)


@op("FastGelu", domain=MICROSOFT)
def fast_gelu(_: Node, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Gelu by tanh of x + bias."""
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


@op("BiasGelu", domain=MICROSOFT)
def bias_gelu(_: Node, x: Tensor, bias: Tensor) -> Tensor:
    """Gelu of x + bias."""
    return F.gelu(x + bias)


@op("BiasSplitGelu", domain=MICROSOFT)
def bias_split_gelu(_: Node, x: Tensor, bias: Tensor) -> Tensor:
    """`x` + bias [..., 2D] → its first half times Gelu of its second."""
    left, right = (x + bias).chunk(2, -1)
    return left * F.gelu(right)


@op("BiasAdd", domain=MICROSOFT)
def bias_add(_: Node, x: Tensor, bias: Tensor, skip: Tensor) -> Tensor:
    """`x` + bias + skip."""
    return x + bias + skip


@op("BiasSoftmax", domain=MICROSOFT)
def bias_softmax(node: Node, x: Tensor, bias: Tensor) -> Tensor:
    """Softmax of x + bias over all axes from `axis` on; the bias lacks axes in the middle or in front of x."""
    axis = node.integer("axis", 1) % x.ndim
    if bias.ndim < x.ndim and not node.integer("is_inner_broadcast", 0):
        return (x + bias).flatten(axis).softmax(-1).reshape(x.shape)
    while bias.ndim < x.ndim:
        bias = bias.unsqueeze(bias.ndim - (x.ndim - axis))
    return (x + bias).flatten(axis).softmax(-1).reshape(x.shape)


def _outputs(node: Node, y: Tensor, total: Tensor, rms: bool) -> Tensor | tuple[Tensor, ...]:
    """y, and mean, 1 / deviation and the sum itself where the node lists them."""
    if node.n_outputs == 1:
        return y
    mean = total.mean(-1, keepdim=True)
    square = total.square().mean(-1, keepdim=True) if rms else total.var(-1, correction=0, keepdim=True)
    return y, mean, torch.rsqrt(square + node.real("epsilon", 1e-12 if not rms else 1e-6)), total


@op("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(
    node: Node, x: Tensor, skip: Tensor, gamma: Tensor, beta: Tensor | None = None, bias: Tensor | None = None
) -> Tensor | tuple[Tensor, ...]:
    """LayerNormalization of x + skip + bias over the last axis."""
    total = x + skip if bias is None else x + bias + skip
    y = F.layer_norm(total, total.shape[-1:], gamma, beta, node.real("epsilon", 1e-12))
    return _outputs(node, y, total, rms=False)


@op("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_simplified_layer_normalization(
    node: Node, x: Tensor, skip: Tensor, gamma: Tensor, bias: Tensor | None = None
) -> Tensor | tuple[Tensor, ...]:
    """`x` + skip + bias over the root of its mean square along the last axis, times gamma."""
    total = x + skip if bias is None else x + bias + skip
    inverse = torch.rsqrt(total.square().mean(-1, keepdim=True) + node.real("epsilon", 1e-12))
    return _outputs(node, total * inverse * gamma, total, rms=True)


@op("EmbedLayerNormalization", domain=MICROSOFT)
def embed_layer_normalization(
    node: Node, ids: Tensor, segments: Tensor | None, words: Tensor, places: Tensor, kinds: Tensor | None,
    gamma: Tensor, beta: Tensor, mask: Tensor | None = None, positions: Tensor | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The normalised sum of word, place and segment embeddings [B, S, H]; lengths of the mask's rows; the sum."""
    at = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape) if positions is None else positions
    total = F.embedding(ids, words) + F.embedding(at, places)
    if segments is not None and kinds is not None:
        total = total + F.embedding(segments, kinds)
    y = F.layer_norm(total, total.shape[-1:], gamma, beta, node.real("epsilon", 1e-12))
    lengths = ids.new_zeros(ids.shape[0]) if mask is None else mask.sum(1)
    return y, lengths.to(torch.int32), total


@op("ExpandDims", domain=MICROSOFT, host=(1,))
def expand_dims(_: Node, x: Tensor, axis: Host) -> Tensor:
    """`x` with a new axis of size 1."""
    return x.unsqueeze(int(number(axis)))


@op("Inverse", domain=MICROSOFT)
def inverse(_: Node, x: Tensor) -> Tensor:
    """`x` [..., M, M] → its inverse."""
    found: Tensor = torch.linalg.inv(x)
    return found


@op("GroupNorm", domain=MICROSOFT)
def group_norm(node: Node, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """`x` [N, H, W, C] (or [N, C, H, W] with channels_last = 0) in groups, through SiLU with activation = 1."""
    last = bool(node.integer("channels_last", 1))
    planes = x.movedim(-1, 1) if last else x
    y = F.group_norm(
        planes, node.integer("groups", 32), gamma.to(x.dtype), beta.to(x.dtype), node.real("epsilon", 1e-5)
    )
    y = F.silu(y) if node.only("activation", (0, 1), 0) else y
    return y.movedim(1, -1) if last else y
