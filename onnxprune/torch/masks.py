"""Pruned entries stay pruned while training.

Two hooks are needed. One on each masked parameter zeroes the gradient of pruned entries. One on the optimizer, behind
each step, zeroes the entries themselves and what the optimizer remembers of them: momentum from before the prune,
weight decay or a gradient set by hand would bring them back. Both ride on torch's own objects, so any training loop
keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from onnxprune_passes.errors import ModelError
from onnxprune_passes.masks import Masks
from torch import Tensor, nn
from torch.optim import Optimizer

from onnxprune.torch.assign import BUFFER, HOST
from onnxprune.torch.escape import name_from_key
from onnxprune.torch.write import unwrapped


class MaskHold:
    """Masks held on a module and an optimizer; `hold_masks` makes it. `release` takes the hooks away."""

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor], optimizer: Optimizer
    ) -> None:
        self._parameters = dict(parameters)
        self._masks = dict(masks)
        self._optimizer = optimizer
        self._handles: list[Any] = [
            parameter.register_hook(self._gradient_hook(key))  # type: ignore[no-untyped-call]  # torch's own
            for key, parameter in parameters.items()
            if parameter.requires_grad
        ]
        self._handles.append(optimizer.register_step_post_hook(self._after_step))
        self._handles.append(optimizer.register_load_state_dict_post_hook(self._after_load))
        self.apply()

    def apply(self) -> None:
        """Zero pruned entries of the parameters and of the optimizer's memory of them, now."""
        with torch.no_grad():
            held: list[Tensor] = []
            masks: list[Tensor] = []
            for key, parameter in self._parameters.items():
                if not parameter.requires_grad:  # it does not move, and writing to it would copy the file's pages
                    continue
                mask = self._mask(key, parameter)
                for tensor in (parameter, *self._remembered(parameter)):
                    held.append(tensor.data)
                    masks.append(mask if tensor.dtype == mask.dtype else mask.to(tensor.dtype))
            if held:
                torch._foreach_mul_(held, masks)

    def check(self) -> None:
        """Raise ModelError when a pruned entry is not zero; names the tensors and counts the entries."""
        revived = {
            key: count
            for key, parameter in self._parameters.items()
            if (count := int((parameter.detach()[self._mask(key, parameter) == 0] != 0).sum()))
        }
        if revived:
            listed = ", ".join(f"{key} ({count})" for key, count in revived.items())
            raise ModelError(f"pruned entries are not zero after training: {listed}; step the optimizer that was held")

    def release(self) -> None:
        """Take the hooks away; values stay as they are."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _gradient_hook(self, key: str) -> Callable[[Tensor], Tensor]:
        def masked(gradient: Tensor) -> Tensor:
            return gradient * self._mask(key, gradient)

        return masked

    def _mask(self, key: str, like: Tensor) -> Tensor:
        """The mask as numbers (1 keep, 0 pruned) of the dtype and on the device of `like`; kept for the next time."""
        mask = self._masks[key]
        if mask.device != like.device or mask.dtype != like.dtype:
            mask = self._masks[key] = mask.to(like.device, like.dtype)
        return mask

    def _remembered(self, parameter: nn.Parameter) -> list[Tensor]:
        state = self._optimizer.state.get(parameter, {})
        return [one for one in state.values() if isinstance(one, Tensor) and one.shape == parameter.shape]

    def _after_step(self, *_: Any) -> None:
        self.apply()

    def _after_load(self, _: Optimizer) -> None:
        self.apply()


def hold_masks(module: nn.Module, optimizer: Optimizer, masks: Masks | None = None) -> MaskHold:
    """Keep pruned entries at zero while `optimizer` trains `module`, in any training loop.

    Args:
        module: what `module_from_model` gave, or something that wraps it (DistributedDataParallel).
        optimizer: the optimizer that steps, or what wraps it (accelerate, Lightning).
        masks: True = keep; None takes those the module was made with.

    Returns:
        The hold: `check()` looks at every pruned entry, `release()` ends it.

    Raises:
        ModelError: a mask names a floating point tensor that the module does not train, or has another shape.
    """
    inner = unwrapped(module)
    masks = inner.masks if masks is None else masks
    for row in inner.rows:
        if row.key in masks and row.kind in (BUFFER, HOST) and "float" in row.dtype:
            raise ModelError(
                f"the mask of {row.key!r} has no parameter to hold: give the masks to module_from_model, or name the "
                "tensor in trainable="
            )
    parameters = {key: parameter for key in masks if (parameter := _parameter(inner, key)) is not None}
    numbers = {}
    for key, parameter in parameters.items():
        keep = torch.from_numpy(masks[key].copy())
        if keep.shape != parameter.shape:
            raise ModelError(
                f"the mask of {key!r} has shape {list(keep.shape)}, the parameter {list(parameter.shape)}: it "
                "belongs to another model"
            )
        numbers[key] = keep.to(parameter.device, parameter.dtype)
    return MaskHold(parameters, numbers, _innermost(optimizer))


def check_masks(module: nn.Module, masks: Masks | None = None) -> None:
    """Raise ModelError when an entry that `masks` (None: the module's own) prune is not zero; names and counts them."""
    inner = unwrapped(module)
    masks = inner.masks if masks is None else masks
    revived = {}
    for key in masks:
        parameter = _parameter(inner, key)
        if parameter is not None:
            pruned = torch.from_numpy(~masks[key]).to(parameter.device)
            if count := int((parameter.detach()[pruned] != 0).sum()):
                revived[key] = count
    if revived:
        listed = ", ".join(f"{key} ({count})" for key, count in revived.items())
        raise ModelError(f"pruned entries are not zero: {listed}; hold_masks keeps them so while training")


def _parameter(module: nn.Module, key: str) -> nn.Parameter | None:
    """The parameter of a tensor; None when the tensor does not train (an integer weight, or one that nobody reads)."""
    return module._parameters.get(name_from_key(key))


def _innermost(optimizer: Any) -> Optimizer:
    """The optimizer inside its wrappers."""
    while not hasattr(optimizer, "_optimizer_step_post_hooks") or (
        isinstance(getattr(optimizer, "optimizer", None), Optimizer)
    ):
        optimizer = optimizer.optimizer
    found: Optimizer = optimizer
    return found
