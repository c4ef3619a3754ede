"""Penalties on the size of weights, added to the loss."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from onnxprune_passes.errors import SelectionError
from torch import Tensor, nn

from onnxprune.torch.escape import name_from_key
from onnxprune.torch.layers import is_weight
from onnxprune.torch.write import unwrapped

PENALTIES = ("l1", "l2", "hoyer")


def penalty(module: nn.Module, kind: str, strength: float) -> Tensor:
    """The penalty of the weights that train: those of Conv, Gemm, MatMul and the like; no biases, no normalisation.

    - `l1`: strength · Σ|w|.
    - `l2`: strength / 2 · Σw², whose gradient is that of weight_decay = strength in SGD.
    - `hoyer`: strength · Σ over tensors of (Σ|w|)² / Σw², the Hoyer-square of Yang, Wen and Li 2020 (DeepHoyer,
      section 3.1); the number of weights in effect, whatever their scale. A tensor of zeros counts 0.

    Pruned entries are zeros and change none of them. Computed in float32 at least.

    Args:
        module: what `module_from_model` gave, or what wraps it.
        kind: one of `PENALTIES`.
        strength: the factor, 0 or more.

    Returns:
        A scalar on the module's device.

    Raises:
        SelectionError: the kind is unknown, the strength negative, or the module trains no weight.
    """
    if kind not in PENALTIES:
        raise SelectionError(f"penalty {kind!r} is unknown; choose one of {', '.join(PENALTIES)}")
    if not strength >= 0:
        raise SelectionError(f"the penalty has strength {strength}: give 0 or more")
    total: Tensor | None = None
    for weight in _weights(module):
        one = _of(weight, kind)
        total = one if total is None else total + one
    if total is None:
        raise SelectionError(f"no weight of the module trains, so {kind} has nothing to work on: leave it out")
    return total * strength


def _weights(module: nn.Module) -> Iterator[Tensor]:
    inner = unwrapped(module)
    for row in inner.rows:
        if row.trained and is_weight(row):
            weight = inner.get_parameter(name_from_key(row.key))
            yield weight if weight.dtype == torch.float64 else weight.float()


def _of(weight: Tensor, kind: str) -> Tensor:
    if kind == "l1":
        return weight.abs().sum()
    squares = weight.square().sum()
    if kind == "l2":
        return squares / 2
    return weight.abs().sum().square() / squares.clamp_min(torch.finfo(weight.dtype).tiny)
