"""Local pruning: some layers train while the others rest."""

from __future__ import annotations

from onnxprune_passes.errors import SelectionError
from torch import nn

from onnxprune.torch.assign import TensorRow
from onnxprune.torch.escape import name_from_key
from onnxprune.torch.layers import Layers, is_convolution, is_weight
from onnxprune.torch.module import OnnxModule
from onnxprune.torch.write import unwrapped

MODES = ("all", "fc", "conv", "alternate")


def trainable(module: nn.Module, mode: str, epoch: int) -> tuple[str, ...]:
    """Choose which parameters train in an epoch (Han et al. 2015, section 3.3, against vanishing gradients).

    - `all`: every one.
    - `fc`, `conv`: those of fully connected layers, or of convolutions; the others rest.
    - `alternate`: fully connected layers in epochs 0, 2, …, convolutions in epochs 1, 3, ….

    A bias, a scale or a slope belongs to the layer whose values it is applied to. Everything but convolutions counts as
    fully connected: recurrent layers and tables too. A resting parameter requires no gradient and has none, so that no
    optimizer moves it, with momentum or weight decay either. Under DistributedDataParallel call it before wrapping, or
    wrap again: the reducer waits for the gradients of the parameters that required one then.

    Args:
        module: what `module_from_model` gave, or what wraps it.
        mode: one of `MODES`.
        epoch: from 0.

    Returns:
        The keys of the tensors that train now, in the order of the graph.

    Raises:
        SelectionError: the mode is unknown, or the model has no layers of the kind.
    """
    if mode not in MODES:
        raise SelectionError(f"local training {mode!r} is unknown; choose one of {', '.join(MODES)}")
    inner = unwrapped(module)
    rows = [row for row in inner.rows if row.trained]
    if mode == "all":
        chosen = {row.key for row in rows}
    else:
        chosen = _of_kind(inner, rows, ("fc", "conv")[epoch % 2] if mode == "alternate" else mode, mode)
    for row in rows:
        parameter = inner.get_parameter(name_from_key(row.key))
        parameter.requires_grad_(row.key in chosen)
        if row.key not in chosen:
            parameter.grad = None
    return tuple(row.key for row in rows if row.key in chosen)


def _of_kind(module: OnnxModule, rows: list[TensorRow], kind: str, mode: str) -> set[str]:
    kinds = kinds_of(module)
    weights = {kinds[row.key] for row in rows if is_weight(row)}
    for needed in ("fc", "conv") if mode == "alternate" else (kind,):
        if needed not in weights:
            layers = "convolutions" if needed == "conv" else "fully connected layers"
            raise SelectionError(f"local training {mode!r}: the model trains no {layers}; take all")
    return {row.key for row in rows if kinds[row.key] == kind}


def kinds_of(module: OnnxModule) -> dict[str, str]:
    """Key of a trained tensor → `conv` or `fc`: the kind of the layer that it belongs to."""
    rows = {row.key: row for row in module.rows if row.trained}
    graph = Layers(module)
    found: dict[str, str] = {}
    for key, row in rows.items():
        if is_weight(row) or is_convolution(row):
            found[key] = "conv" if is_convolution(row) else "fc"
            continue
        behind = [rows[one] for step in graph.readers(key) for one in graph.behind(step) if one in rows]
        found[key] = "conv" if behind and all(is_convolution(one) for one in behind) else "fc"
    return found
