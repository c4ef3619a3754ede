"""The statistics of BatchNormalization: frozen, trained, computed anew, and shared by all processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from onnxprune_passes.errors import DataError
from torch import Tensor, nn

from onnxprune.torch.module import OnnxModule
from onnxprune.torch.ops.norm import can_train_statistics
from onnxprune.torch.write import unwrapped

Batch = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


def set_mode(module: nn.Module, mode: str) -> int:
    """Choose where BatchNormalization takes its statistics from while training; scale and bias train in both.

    Args:
        module: what `module_from_model` gave, or what wraps it.
        mode: `frozen`: the file's; `train`: those of the batch, the file's move with them and are written back.

    Returns:
        How many BatchNormalization nodes that concerns. Exporters fold most of them into convolutions: often none.

    Raises:
        SelectionError: the mode is unknown.
    """
    inner = unwrapped(module)
    inner.batch_norm = mode
    return count_nodes(inner)


def count_nodes(module: OnnxModule) -> int:
    """How many BatchNormalization nodes with statistics of the file the module has, bodies included."""
    nodes = (step.node for plan in module.plan.below() for step in plan.steps)
    return sum(node.op_type == "BatchNormalization" and can_train_statistics(node) for node in nodes)


def recalibrate(module: nn.Module, batches: Iterable[Batch]) -> int:
    """Replace the running statistics by their means over `batches`; nothing else changes.

    Batch k = 0, 1, … enters with momentum 1 / (k + 1), so that all count alike; a variance is torch's (the sum of
    squares over n - 1). Dropout is off and no gradient is kept. A pruned network needs it: its activations have other
    means and variances than those of the dense one.

    Args:
        module: what `module_from_model` gave, or what wraps it.
        batches: inputs: a tensor, tensors in the order of the inputs, or input name → tensor.

    Returns:
        How many batches there were.

    Raises:
        DataError: there are none.
    """
    inner = unwrapped(module)
    before = inner.training, inner.batch_norm, inner.batch_norm_momentum
    dropout = inner.dropout
    count = 0
    try:
        inner.train()
        inner.batch_norm = "train"
        inner.set_dropout({})
        with torch.no_grad():
            for batch in batches:
                inner.batch_norm_momentum = 1 / (count + 1)
                run_batch(inner, batch)
                count += 1
    finally:
        inner.set_dropout(dropout)
        inner.train(before[0])
        inner.batch_norm, inner.batch_norm_momentum = before[1:]
    if not count:
        raise DataError("there are no batches to compute the BatchNormalization statistics on: give at least one")
    return count


def run_batch(module: nn.Module, batch: Batch) -> Any:
    """What the module gives for a batch: a tensor, tensors in order, or tensors by name."""
    if isinstance(batch, Tensor):
        return module(batch)
    return module(**batch) if isinstance(batch, Mapping) else module(*batch)


class RankReduction:
    """Batch statistics over all processes; `reduce_across_ranks` makes it. `remove` ends it."""

    def __init__(self, module: OnnxModule, group: Any) -> None:
        self._module = module
        module.batch_norm_group = group

    def remove(self) -> None:
        """Each process takes the statistics of its own batch again."""
        self._module.batch_norm_group = None


def reduce_across_ranks(module: nn.Module, group: Any = None) -> RankReduction:
    """Compute the batch statistics of BatchNormalization over the batches of all processes, gradients included.

    As torch's SyncBatchNorm does, which neither sees these nodes nor runs on CPUs: here sums go through `all_reduce`,
    so gloo will do. With it N processes train as one with the whole batch. It counts while `batch_norm` is `train`;
    every process has to run as many forward passes as the others.

    Args:
        module: what `module_from_model` gave, or what wraps it.
        group: the process group; None takes the default one.

    Raises:
        ValueError: no process group was initialised.
    """
    import torch.distributed as dist

    chosen = dist.group.WORLD if group is None else group
    if chosen is None:
        raise ValueError("torch.distributed is not initialised: call init_process_group first")
    return RankReduction(unwrapped(module), chosen)
