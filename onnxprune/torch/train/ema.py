"""A moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from onnxprune_passes.errors import ModelError, SelectionError
from onnxprune_passes.masks import Masks
from torch import Tensor, nn

from onnxprune.torch.escape import name_from_key
from onnxprune.torch.train.checkpoints import moving
from onnxprune.torch.write import unwrapped


class Ema:
    """An exponential moving average of parameters and BatchNormalization statistics (Polyak and Juditsky 1992).

    average ← decay · average + (1 - decay) · value, in float32 at least; it begins at the values of now. Pruned entries
    are +0.0 in it.

    Args:
        module: what `module_from_model` gave, or what wraps it.
        decay: from 0 (the last value) to below 1.
        masks: which entries are kept; None takes those the module was made with.

    Raises:
        SelectionError: the decay is out of range.
    """

    def __init__(self, module: nn.Module, decay: float, masks: Masks | None = None) -> None:
        if not 0 <= decay < 1:
            raise SelectionError(f"the moving average has decay {decay}: give one from 0 to below 1")
        self._module, self._decay = unwrapped(module), decay
        chosen = self._module.masks if masks is None else masks
        self._masks = {name_from_key(key): torch.from_numpy(~chosen[key]) for key in chosen}
        self._average = {name: _wide(value).clone() for name, value in self._values().items()}
        self._zero_pruned()

    def update(self) -> None:
        """Move the average towards the values of now; call it behind each optimizer step."""
        with torch.no_grad():
            for name, value in self._values().items():
                average = self._average[name] = self._average[name].to(value.device)
                average.lerp_(value.to(average.dtype), 1 - self._decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While it is open the module has the averaged values; then it has its own again, bit for bit."""
        values = self._values()
        own = {name: value.clone() for name, value in values.items()}
        self.copy_to_module()
        try:
            yield
        finally:
            for name, value in values.items():
                value.copy_(own[name])

    def copy_to_module(self) -> None:
        """Give the module the averaged values for good."""
        for name, value in self._values().items():
            value.copy_(self._average[name])

    def state_dict(self) -> dict[str, Tensor]:
        """Registered name → a copy of the average."""
        return {name: average.clone() for name, average in self._average.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            ModelError: names or shapes are those of another model.
        """
        for name in {*state, *self._average}:
            found = list(state[name].shape) if name in state else None
            wanted = list(self._average[name].shape) if name in self._average else None
            if found != wanted:
                raise ModelError(
                    f"the moving average of {name!r} has shape {found}, the model {wanted}: it belongs to another model"
                )
        for name, average in self._average.items():
            average.copy_(state[name])
        self._zero_pruned()

    def _values(self) -> dict[str, Tensor]:
        """Trained parameters and statistics by registered name, outside of autograd; what is frozen has no average."""
        return {name: value for name, value in moving(self._module).items() if value.is_floating_point()}

    def _zero_pruned(self) -> None:
        for name, pruned in self._masks.items():
            if name in self._average:
                self._average[name].masked_fill_(pruned.to(self._average[name].device), 0.0)


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
