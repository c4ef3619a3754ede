"""Automatic mixed precision: autocast, and loss scaling where float16 needs it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from onnxprune_passes.errors import SelectionError
from torch import Tensor, nn
from torch.optim import Optimizer

from onnxprune.torch.train.clip import clip_gradients

PRECISIONS = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Amp:
    """Mixed precision for one optimizer (Micikevicius et al. 2018); parameters stay as they are.

        with amp.autocast():
            loss = …
        amp.backward(loss)
        amp.step(optimizer, module, clip=1.0)

    With float16 the loss is scaled, and a step whose gradients overflow is left out.

    Args:
        precision: `off`, `bf16` or `fp16`.
        device: where the module is: `cpu` or `cuda`.

    Raises:
        SelectionError: the precision is unknown.
    """

    def __init__(self, precision: str, device: str | torch.device = "cpu") -> None:
        if precision not in PRECISIONS:
            raise SelectionError(f"precision {precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")
        self._dtype = PRECISIONS[precision]
        self._device = torch.device(device).type
        self._scaler = torch.amp.GradScaler(self._device, enabled=precision == "fp16")

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of forward pass and loss."""
        return nullcontext() if self._dtype is None else torch.autocast(self._device, self._dtype)

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients, of the scaled loss where there is a scale."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's own

    def step(
        self, optimizer: Optimizer, module: nn.Module | None = None, clip: float | None = None, kind: str = "norm"
    ) -> bool:
        """Unscale, clip (`clip_gradients` with the limit `clip`; None does not) and step the optimizer.

        Returns:
            Whether the optimizer stepped: not when a float16 gradient overflowed, and then the scale goes down.

        Raises:
            SelectionError: `clip` is given without the module.
        """
        if clip is not None and module is None:
            raise SelectionError("clipping needs the module whose gradients are clipped: give it")
        self._scaler.unscale_(optimizer)
        if clip is not None and module is not None:
            clip_gradients(module, clip, kind)
        before = self.scale
        self._scaler.step(optimizer)
        self._scaler.update()
        return self.scale >= before

    @property
    def scale(self) -> float:
        """The factor on the loss; 1 when nothing is scaled."""
        return float(self._scaler.get_scale())

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the scale and its age."""
        found: dict[str, Any] = self._scaler.state_dict()
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._scaler.load_state_dict(dict(state))
