"""Attention of com.microsoft, as onnxruntime's fusions write it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import unflattened
from onnxprune.torch.registry import MICROSOFT, op


def split_heads(x: Tensor, heads: int) -> Tensor:
    """`x` [N, L, heads · size] → [N, heads, L, size]."""
    return unflattened(x, -1, (heads, x.shape[-1] // heads)).transpose(1, 2)


def scale_of(node: Node, size: int) -> float:
    """The factor on attention scores: the attribute `scale`, or 1 / sqrt(size) without one."""
    return node.real("scale", 0.0) or 1 / math.sqrt(size)


def _mask_bias(node: Node, mask: Tensor, batch: int, rows: int, columns: int, like: Tensor) -> Tensor:
    """What a mask adds to scores [B, heads, rows, columns]: 0 where it is set, else `mask_filter_value`."""
    if mask.ndim == 1 and mask.shape[0] == batch:
        kept = torch.arange(columns, device=mask.device)[None, :] < mask[:, None]
    elif mask.ndim in (2, 3) and mask.shape[-1] == columns:
        kept = mask > 0
    else:
        raise node.refuse(f"a mask of shape {list(mask.shape)} is not supported, only [B], [B, T] or [B, S, T]")
    kept = kept[:, None, None, :] if kept.ndim == 2 else kept[:, None]
    filler = node.real("mask_filter_value", -10000.0)
    return torch.where(kept, 0.0, filler).to(like.dtype).expand(batch, 1, rows, columns)


def attend(node: Node, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
    """`q` [B, heads, S, size], k and v [B, heads, T, size] → softmax(q · k' · scale + biases) · v [B, S, H]."""
    scores = torch.matmul(q, k.transpose(-1, -2)) * scale_of(node, q.shape[-1])
    rows, columns = scores.shape[-2:]
    if mask is not None:
        scores = scores + _mask_bias(node, mask, q.shape[0], rows, columns, scores)
    if bias is not None:
        scores = scores + bias
    if node.integer("unidirectional", 0):
        future = torch.ones(rows, columns, dtype=torch.bool, device=q.device).triu(columns - rows + 1)
        scores = scores.masked_fill(future, torch.finfo(scores.dtype).min)
    return torch.matmul(scores.softmax(-1), v).transpose(1, 2).flatten(2)


@op("Attention", domain=MICROSOFT)
def attention(
    node: Node, x: Tensor, w: Tensor, b: Tensor | None = None, mask: Tensor | None = None, past: Tensor | None = None,
    bias: Tensor | None = None, past_length: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """`x` [B, S, I], w [I, 3H], b [3H], past [2, B, heads, P, size] → [B, S, H], and keys and values so far."""
    for name in ("do_rotary", "past_present_share_buffer"):
        node.only(name, (0,), 0)
    if past_length is not None:
        raise node.refuse("past_sequence_length is not supported")
    projected = x @ w if b is None else x @ w + b
    widths = node.ints("qkv_hidden_sizes") or [projected.shape[-1] // 3] * 3
    q, k, v = (split_heads(one, node.integer("num_heads", 1)) for one in torch.split(projected, widths, -1))
    if past is not None:
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
    y = attend(node, q, k, v, mask, bias)
    return y if node.n_outputs == 1 else (y, torch.stack([k, v]))


def _heads_of(node: Node, one: Tensor | None, bias: Tensor | None, name: str) -> Tensor:
    """A projection [B, L, H] with its bias, or one that is split already, as [B, heads, L, size]."""
    if one is None:
        raise node.refuse(f"the input {name} must be given on its own; packed forms are not supported")
    if one.ndim == 4:
        return one
    if one.ndim != 3:
        raise node.refuse(f"the input {name} of rank {one.ndim} is packed, which is not supported")
    return split_heads(one if bias is None else one + bias, node.integer("num_heads", 1))


@op("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(
    node: Node, query: Tensor, key: Tensor | None = None, value: Tensor | None = None, b: Tensor | None = None,
    mask: Tensor | None = None, bias: Tensor | None = None, past_key: Tensor | None = None,
    past_value: Tensor | None = None, *others: Tensor | None,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`query` [B, S, H], key and value [B, T, H] or [B, heads, T, size], b [3H] → [B, S, H]; all keys and values."""
    if any(one is not None for one in others):
        raise node.refuse("past_sequence_length and cache_indirection are not supported")
    parts: tuple[Tensor | None, ...] = (None, None, None)
    if b is not None:
        width = query.shape[-1]
        parts = tuple(torch.split(b, [width, width, b.shape[0] - 2 * width]))
    q = _heads_of(node, query, parts[0], "query")
    k, v = _heads_of(node, key, parts[1], "key"), _heads_of(node, value, parts[2], "value")
    if past_key is not None and past_value is not None:
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
    y = attend(node, q, k, v, mask, bias)
    return y if node.n_outputs == 1 else (y, k, v)


@op("RotaryEmbedding", domain=MICROSOFT)
def rotary_embedding(node: Node, x: Tensor, positions: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """`x` [B, S, H] or [B, heads, S, size] turned by the angles of its positions ([1]: the first, or [B, S])."""
    for name in ("is_packed_batching",):
        node.only(name, (0,), 0)
    part, interleaved = node.integer("rotary_embedding_dim", 0), bool(node.integer("interleaved", 0))
    if node.real("scale", 1.0) != 1.0:
        raise node.refuse("a scale is not supported")
    width = part or 2 * cosines.shape[-1]
    if x.ndim == 4:
        turned = x.transpose(1, 2)
    else:
        turned = unflattened(x, -1, (-1, x.shape[-1] // node.integer("num_heads", 0) if part else width))
    batch, length = turned.shape[:2]
    if positions.numel() == 1:
        at = positions.reshape(1, 1) + torch.arange(length, device=x.device).expand(batch, length)
    else:
        at = positions
    cos, sin = (table[at].unsqueeze(2) for table in (cosines, sines))
    turning, rest = turned[..., :width], turned[..., width:]
    a, b = (turning[..., ::2], turning[..., 1::2]) if interleaved else turning.chunk(2, -1)
    halves = (a * cos - b * sin, b * cos + a * sin)
    done = torch.stack(halves, -1).flatten(-2) if interleaved else torch.cat(halves, -1)
    whole = torch.cat([done, rest], -1)
    return whole.transpose(1, 2) if x.ndim == 4 else whole.reshape(x.shape)
