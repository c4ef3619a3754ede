"""From the module back into the graph: values by key, everything else as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxprune_passes.arrays import Array, Masked
from onnxprune_passes.errors import ModelError
from onnxprune_passes.masks import Masks
from onnxprune_passes.model import Model
from onnxprune_passes.weights import Weight, find_weights
from torch import nn

from onnxprune.torch.assign import LATENT, PARAMETER, STATISTIC, TensorRow
from onnxprune.torch.dtypes import array_from_tensor
from onnxprune.torch.escape import name_from_key
from onnxprune.torch.module import OnnxModule


def unwrapped(module: nn.Module) -> OnnxModule:
    """The OnnxModule inside a module: itself, or the one that DistributedDataParallel, torch.compile or a user wraps.

    Raises:
        ModelError: there is none in it, or more than one.
    """
    found = [one for one in module.modules() if isinstance(one, OnnxModule)]
    if len(found) != 1:
        raise ModelError(f"{type(module).__name__} holds {len(found)} modules made by module_from_model; hand over one")
    return found[0]


def write_back(module: nn.Module, model: Model) -> Model:
    """`model` with the module's trained values and BatchNormalization statistics.

    Only tensors of which a bit changed are replaced; names, dtypes, dims, nodes and metadata stay. Entries that the
    module's masks prune become +0.0 (a quantised weight's zero point). Nothing changed gives the same object.

    Args:
        module: what `module_from_model(model, …)` gave, or something that wraps it.
        model: the model that it was made from, or one with the same tensors.

    Raises:
        ModelError: the model lacks a trained tensor, or has it with another shape; or a value of an integer weight
            is not finite.
    """
    inner = unwrapped(module)
    weights = {one.key: one for one in find_weights(model)} if any(one.kind == LATENT for one in inner.rows) else {}
    changes: dict[str, NDArray[Any]] = {}
    for row in inner.rows:
        if row.kind not in (PARAMETER, LATENT, STATISTIC):
            continue
        source = _source(model, row)
        values = _values(inner, row, source.dtype, weights)
        if not _same_bits(source.array(), values):
            changes[row.key] = values
    return model.with_initializers(changes) if changes else model


def _source(model: Model, row: TensorRow) -> Array | Masked:
    if row.key not in model.initializers:
        raise ModelError(f"the model has no tensor {row.key!r}, which the module trained: it is another model")
    source = model.initializers.source(row.key)
    if source.shape != row.shape:
        raise ModelError(
            f"tensor {row.key!r} has shape {list(source.shape)} in the model and {list(row.shape)} in the module: "
            "write back into the model that the module was made from"
        )
    return source


def _values(module: OnnxModule, row: TensorRow, dtype: np.dtype[Any], weights: dict[str, Weight]) -> NDArray[Any]:
    """The tensor as the model stores it, pruned entries exactly zero."""
    name = name_from_key(row.key)
    tensor = module.get_buffer(name) if row.kind == STATISTIC else module.get_parameter(name)
    values = array_from_tensor(tensor)
    keep = _mask(module.masks, row.key)
    if row.kind != LATENT:
        stored = values.astype(dtype)
        return stored if keep is None else np.where(keep, stored, np.zeros((), dtype))
    if keep is not None:
        values = np.where(keep, values, np.float32(0))
    if not np.isfinite(values).all():
        raise ModelError(f"tensor {row.key!r} is not finite after training, so it has no {dtype} value: lower the rate")
    weight = weights[row.key]
    bounds = np.iinfo(dtype)
    steps = np.round(values / np.asarray(weight.scale, np.float32)) + np.asarray(weight.zero_point).astype(np.float32)
    return np.clip(steps, bounds.min, bounds.max).astype(dtype)


def _mask(masks: Masks, key: str) -> NDArray[np.bool_] | None:
    return masks.get(key)


def _same_bits(before: NDArray[Any], after: NDArray[Any]) -> bool:
    return before.tobytes() == after.tobytes()
