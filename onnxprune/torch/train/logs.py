"""TensorBoard's logs, where its package is installed."""

from __future__ import annotations

from typing import Any

from onnxprune_passes.errors import SelectionError

from onnxprune.train_report import Epoch


class Logs:
    """Writes numbers for TensorBoard into a folder.

    Raises:
        SelectionError: the package tensorboard is not installed.
    """

    def __init__(self, folder: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise SelectionError(
                f"--tensorboard needs the package tensorboard: install it, or leave the option out ({error})"
            ) from error
        self._writer: Any = SummaryWriter(folder)

    def step(self, number: int, loss: float, rate: float) -> None:
        """One step of the optimizer."""
        self._writer.add_scalar("step/loss", loss, number)
        self._writer.add_scalar("step/learning rate", rate, number)

    def epoch(self, one: Epoch) -> None:
        """One epoch, by its number."""
        named = (("loss", one.loss), ("validation loss", one.validation_loss), ("metric", one.metric))
        for name, value in named:
            if value is not None:
                self._writer.add_scalar(f"epoch/{name}", value, one.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
