"""Losses inside a graph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.torch.node import Node
from onnxprune.torch.registry import op

_NO_CLASS = -(2**31)


def _negative_log_likelihood(node: Node, log_shares: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    reduction = node.only("reduction", ("none", "sum", "mean"), "mean")
    return F.nll_loss(
        log_shares,
        target.to(torch.int64),
        weight,
        ignore_index=node.integer("ignore_index", _NO_CLASS),
        reduction=reduction,
    )


@op("NegativeLogLikelihoodLoss", since=12)
def negative_log_likelihood_loss(node: Node, x: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """`x` [N, C, d...] (logarithms of shares), target [N, d...], weight [C] → a scalar, or [N, d...] unreduced."""
    return _negative_log_likelihood(node, x, target, weight)


@op("SoftmaxCrossEntropyLoss", since=12)
def softmax_cross_entropy_loss(
    node: Node, scores: Tensor, target: Tensor, weight: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """`scores` [N, C, d...], target [N, d...], weight [C] → the loss, and log-softmax of the scores."""
    log_shares = F.log_softmax(scores, 1)
    loss = _negative_log_likelihood(node, log_shares, target, weight)
    return loss if node.n_outputs == 1 else (loss, log_shares)
