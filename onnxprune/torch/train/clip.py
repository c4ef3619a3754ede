"""Gradients kept within bounds."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from onnxprune_passes.errors import SelectionError
from torch import Tensor, nn


def clip_gradients(parameters: nn.Module | Iterable[Tensor], limit: float, kind: str = "norm") -> float:
    """Clip gradients in place, before the optimizer's step.

    Args:
        parameters: a module, or parameters; those without a gradient are passed over.
        limit: above 0. `norm`: gradients are scaled down together when their joint 2-norm is larger (Pascanu, Mikolov
            and Bengio 2013, algorithm 1). `value`: each entry is clipped to ±limit.
        kind: `norm` or `value`.

    Returns:
        The joint 2-norm before clipping; infinite or NaN when a gradient is (clipping by norm then leaves NaN).

    Raises:
        SelectionError: the kind is unknown or the limit is not positive.
    """
    if kind not in ("norm", "value"):
        raise SelectionError(f"gradient clipping by {kind!r} is unknown; choose norm or value")
    if not limit > 0:
        raise SelectionError(f"gradients are to be clipped at {limit}: give a limit above 0")
    given = list(parameters.parameters() if isinstance(parameters, nn.Module) else parameters)
    if kind == "norm":
        return float(torch.nn.utils.clip_grad_norm_(given, limit))
    norm = float(torch.nn.utils.get_total_norm([one.grad for one in given if one.grad is not None]))
    torch.nn.utils.clip_grad_value_(given, limit)
    return norm
