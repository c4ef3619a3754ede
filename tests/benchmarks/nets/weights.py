"""Seeded weights that look as after training, and the export to ONNX."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn


def filled(module: nn.Module, seed: int) -> nn.Module:
    """`module` in eval mode, with seeded weights.

    Weights are normal, with He's deviation sqrt(2 / fan-in) (He et al. 2015, equation 10) times a factor a row that is
    log-normal: the norms of trained filters differ. BatchNorm's vectors and statistics are those of no identity.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator)

    with torch.no_grad():
        for tensor in module.parameters():
            if tensor.ndim > 1:
                rows = torch.exp(0.3 * torch.randn(tensor.shape[0], generator=generator))
                deviation = math.sqrt(2 / (tensor.numel() // tensor.shape[0]))
                tensor.copy_(normal(tensor) * deviation * rows.view(-1, *[1] * (tensor.ndim - 1)))
            else:
                tensor.copy_(0.1 * normal(tensor))
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d | nn.LayerNorm):
                layer.weight.copy_(torch.exp(0.3 * normal(layer.weight)))
            if isinstance(layer, nn.BatchNorm2d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.copy_(0.1 * normal(layer.running_mean))
                layer.running_var.copy_(torch.exp(0.3 * normal(layer.running_var)))
    return module.eval()


def export(module: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """Write `module` as torch's own exporter does by default (opset 17, BatchNorm folded into convolutions)."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is the older of two exporters; it needs onnx alone
        torch.onnx.export(
            module, (x,), str(path), input_names=["x"], output_names=["y"], opset_version=17, dynamo=False
        )
