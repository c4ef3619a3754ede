"""Normalisation."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from onnxprune.torch.host import Host
from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import axis_of, number
from onnxprune.torch.registry import op


@op("BatchNormalization")
def batch_normalization(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """`x` [N, C, ...] with the statistics `mean` and `var` [C] of the file, or with those of the batch.

    The batch's are taken where the file says so (training_mode = 1), and while training with batch_norm = `train`; the
    file's then move towards them, in place.
    """
    node.only("spatial", (1,), 1)
    epsilon, momentum = node.real("epsilon", 1e-5), node.real("momentum", 0.9)
    if node.integer("training_mode", 0):
        return _with_batch_statistics(x, scale, bias, mean, var, epsilon, momentum)
    if node.state.training and node.state.batch_norm == "train" and can_train_statistics(node):
        share = 1 - momentum if node.state.momentum is None else node.state.momentum
        if node.state.group is not None:
            return _over_processes(x, scale, bias, mean, var, epsilon, share, node.state.group)
        return F.batch_norm(x, mean, var, scale, bias, training=True, momentum=share, eps=epsilon)
    return F.batch_norm(x, mean, var, scale, bias, training=False, eps=epsilon)


def can_train_statistics(node: Node) -> bool:
    """Whether a BatchNormalization takes the file's statistics at inference, so that training can move them."""
    return {3, 4} <= node.fixed and not node.integer("training_mode", 0)


def _with_batch_statistics(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, epsilon: float, momentum: float
) -> tuple[Tensor, Tensor, Tensor]:
    axes = [axis for axis in range(x.ndim) if axis != 1]
    batch_var, batch_mean = torch.var_mean(x.detach(), axes, correction=0)
    y = F.batch_norm(x, None, None, scale, bias, training=True, eps=epsilon)
    moved = [old * momentum + new.to(old.dtype) * (1 - momentum) for old, new in ((mean, batch_mean), (var, batch_var))]
    return y, moved[0], moved[1]


def _over_processes(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, epsilon: float, share: float, group: Any
) -> Tensor:
    """As F.batch_norm on the batches of all processes of `group` together; the gradient goes through the sums."""
    axes = [axis for axis in range(x.ndim) if axis != 1]
    around = [1, -1] + [1] * (x.ndim - 2)
    wide = x if x.dtype == torch.float64 else x.float()
    own_count = torch.full((1,), x.numel() / x.shape[1], dtype=wide.dtype, device=x.device)
    sums = _summed(torch.cat([wide.sum(axes), own_count]), group)
    count = sums[-1].detach()
    batch_mean = sums[:-1] / count
    centred = wide - batch_mean.reshape(around)
    batch_var = _summed(centred.square().sum(axes), group) / count
    with torch.no_grad():
        mean.lerp_(batch_mean.to(mean.dtype), share)
        var.lerp_((batch_var * count / (count - 1).clamp_min(1)).to(var.dtype), share)
    factor = torch.rsqrt(batch_var + epsilon) * scale.to(wide.dtype)
    y: Tensor = centred * factor.reshape(around) + bias.to(wide.dtype).reshape(around)
    return y.to(x.dtype)


class _Summed(torch.autograd.Function):
    """The sum of a tensor over processes; its gradient is summed over them too."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Any) -> Tensor:
        """The sum, in every process."""
        ctx.group = group
        summed = tensor.clone()
        torch.distributed.all_reduce(summed, group=group)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Every process's loss depends on what this one put in."""
        summed = gradients[0].clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(summed, group=ctx.group)
        return summed, None


def _summed(tensor: Tensor, group: Any) -> Tensor:
    found: Tensor = _Summed.apply(tensor, group)  # type: ignore[no-untyped-call]  # torch's own
    return found


@op("InstanceNormalization")
def instance_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """`x` [N, C, spatial...], each plane on its own; scale and bias [C]."""
    return F.group_norm(x, x.shape[1], scale, bias, node.real("epsilon", 1e-5))


@op("GroupNormalization", since=18)
def group_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """`x` [N, C, ...] in `num_groups` groups of channels; scale and bias [C], or [groups] before opset 21."""
    groups = node.integer("num_groups", 1)
    if node.opset < 21:
        scale, bias = (one.repeat_interleave(x.shape[1] // groups) for one in (scale, bias))
    return F.group_norm(x, groups, scale, bias, node.real("epsilon", 1e-5))


@op("LayerNormalization")
def layer_normalization(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """`x` normalised over all axes from `axis` on; and the mean and 1 / deviation, where they are read."""
    axis, epsilon = axis_of(node, -1, x.ndim), node.real("epsilon", 1e-5)
    dims = list(x.shape[axis:])
    if list(scale.shape) == dims and (bias is None or list(bias.shape) == dims):
        y = F.layer_norm(x, dims, scale, bias, epsilon)
    else:
        y = F.layer_norm(x, dims, None, None, epsilon) * scale
        y = y if bias is None else y + bias
    if node.n_outputs == 1:
        return y
    axes = list(range(axis, x.ndim))
    var, mean = torch.var_mean(
        x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, axes, correction=0, keepdim=True
    )
    return y, mean, torch.rsqrt(var + epsilon)


@op("RMSNormalization", since=23)
@op("SimplifiedLayerNormalization")
def rms_normalization(node: Node, x: Tensor, scale: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """`x` over the root of its mean square along all axes from `axis` on."""
    axis, epsilon = axis_of(node, -1, x.ndim), node.real("epsilon", 1e-5)
    axes = list(range(axis, x.ndim))
    wide = x.float() if node.integer("stash_type", 1) == 1 and x.dtype in (torch.float16, torch.bfloat16) else x
    inverse = torch.rsqrt(wide.square().mean(axes, keepdim=True) + epsilon)
    y = (wide * inverse).to(x.dtype) * scale
    return y if node.n_outputs == 1 else (y, inverse)


@op("LRN")
def lrn(node: Node, x: Tensor) -> Tensor:
    """`x` [N, C, ...] over (bias + alpha / size · sum of squares in a window of channels) ** beta."""
    size = node.integer("size", 1)
    channels_last = x.square().movedim(1, -1)
    padded = F.pad(channels_last, [(size - 1) // 2, size // 2])
    total = padded.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    alpha, beta, bias = node.real("alpha", 1e-4), node.real("beta", 0.75), node.real("bias", 1.0)
    return x / (bias + alpha / size * total).pow(beta)


@op("LpNormalization")
def lp_normalization(node: Node, x: Tensor) -> Tensor:
    """`x` over its p-norm along `axis`; a vector of zeros stays one."""
    axis = axis_of(node, -1, x.ndim)
    p = node.only("p", (1, 2), 2)
    size = x.abs().sum(axis, keepdim=True) if p == 1 else x.square().sum(axis, keepdim=True)
    zero = size == 0
    size = torch.where(zero, torch.ones_like(size), size)
    return torch.where(zero, torch.zeros_like(x), x / (size if p == 1 else size.sqrt()))


@op("MeanVarianceNormalization")
def mean_variance_normalization(node: Node, x: Tensor) -> Tensor:
    """(x - mean) / (deviation + 1e-9) over `axes`."""
    axes = node.ints("axes") or [0, 2, 3]
    var, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (x - mean) / (var.sqrt() + 1e-9)


@op("Dropout", keep=(1, 2))
def dropout(
    node: Node, x: Tensor, share: Tensor | Host | None = None, training: Tensor | Host | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """`x` itself, unless the file says that this node drops entries at inference too (training_mode = true)."""
    probability = 0.5 if share is None else float(number(share))
    mask = torch.ones_like(x, dtype=torch.bool)
    if training is not None and bool(number(training)) and probability > 0:
        mask = torch.rand(x.shape, device=x.device) >= probability
        x = x * mask / (1 - probability) if probability < 1 else x * 0
    return x if node.n_outputs == 1 else (x, mask)
