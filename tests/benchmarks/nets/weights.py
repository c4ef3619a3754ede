"""Seeded weights that look as after training, and the export to ONNX."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

BATCH = 4
"""Samples that BatchNorm's statistics are taken from."""


def filled(module: nn.Module, shape: tuple[int, ...], seed: int) -> nn.Module:
    """`module`, whose input has `shape`, in eval mode, with seeded weights.

    Weights are normal, with He's deviation sqrt(2 / fan-in) (He et al. 2015, equation 10) times a factor a row that is
    log-normal: the norms of trained filters differ. BatchNorm's statistics are those of a seeded batch, so that numbers
    stay of one size through the depth as they do after training; its scales are log-normal, its biases normal.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator)

    with torch.no_grad():
        for tensor in module.parameters():
            if tensor.ndim > 1:
                rows = torch.exp(0.3 * normal(tensor.shape[0]))
                deviation = math.sqrt(2 / (tensor.numel() // tensor.shape[0]))
                tensor.copy_(normal(*tensor.shape) * deviation * rows.view(-1, *[1] * (tensor.ndim - 1)))
            else:
                tensor.copy_(0.1 * normal(*tensor.shape))
        norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d | nn.LayerNorm):
                layer.weight.copy_(torch.exp(0.3 * normal(*layer.weight.shape)))
        if norms:
            for norm in norms:
                norm.momentum = None  # the mean over all batches since it was reset
            module.train()(normal(BATCH, *shape[1:]))
    return module.eval()


def export(module: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """Write `module` as torch's own exporter does by default (opset 17, BatchNorm folded into convolutions)."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is the older of two exporters; it needs onnx alone
        torch.onnx.export(
            module, (x,), str(path), input_names=["x"], output_names=["y"], opset_version=17, dynamo=False
        )
