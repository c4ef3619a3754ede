"""Matrix products."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import wide
from onnxprune.torch.registry import MICROSOFT, op


@op("MatMul")
def matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """`a` [..., M, K] · b [..., K, N] → [..., M, N], with numpy's rules for vectors."""
    return wide(node, torch.matmul, a, b, bits_only=True)


@op("Gemm")
def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """`alpha` · a' · b' + beta · c → [M, N]; a' is a [M, K] or its transpose, b' is b [K, N] or its transpose."""
    alpha, beta = node.real("alpha", 1.0), node.real("beta", 1.0)
    left = a.t() if node.integer("transA", 0) else a
    if node.integer("transB", 0):
        if alpha == 1.0 and beta == 1.0 and a.is_floating_point() and (c is None or c.ndim == 1):
            return F.linear(left, b, c)
        b = b.t()
    if not a.is_floating_point():
        if alpha != int(alpha) or beta != int(beta):
            raise node.refuse(f"alpha = {alpha:g} and beta = {beta:g} of an integer product must be whole")
        product = wide(node, torch.matmul, left, b, bits_only=True) * int(alpha)
        return product if c is None else product + c * int(beta)
    if c is None:
        product = left @ b
        return product if alpha == 1.0 else product * alpha
    return torch.addmm(c, left, b, beta=beta, alpha=alpha)


@op("Einsum", since=12)
def einsum(node: Node, *inputs: Tensor) -> Tensor:
    """The sum of products that `equation` describes."""
    return torch.einsum(node.text("equation", "").replace(" ", ""), *inputs)


def _maybe_transposed(x: Tensor, transposed: int, batch: int) -> Tensor:
    """`x` with its last two axes exchanged, after the first axis went to the place before the last (transBatch)."""
    if batch and x.ndim > 2:
        x = x.movedim(0, -2)
    return x.transpose(-1, -2) if transposed and x.ndim > 1 else x


@op("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def fused_matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """`alpha` · a' · b', each transposed on request."""
    left = _maybe_transposed(a, node.integer("transA", 0), node.integer("transBatchA", 0))
    right = _maybe_transposed(b, node.integer("transB", 0), node.integer("transBatchB", 0))
    product = torch.matmul(left, right)
    alpha = node.real("alpha", 1.0)
    return product if alpha == 1.0 else product * alpha
