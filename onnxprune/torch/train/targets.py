"""Labels beside the output that they belong to: which axis holds the classes, and whether the shapes fit."""

from __future__ import annotations

import torch
from onnxprune_passes.errors import DataError, SelectionError
from torch import Tensor

IGNORED = -100
"""The class id of a position that does not count (torch's own convention)."""


def required(labels: Tensor | None, loss: str) -> Tensor:
    """The labels. Raises DataError when there are none."""
    if labels is None:
        raise DataError(f"the loss {loss!r} needs labels: add an array named labels to the data")
    return labels


def classes(output: Tensor, labels: Tensor, class_axis: int | None) -> tuple[Tensor, Tensor]:
    """Logits [M, C] in float32 (or float64) and class ids [M] int64, or class probabilities [M, C].

    Raises:
        DataError: the labels do not fit the output, or a class id is out of range.
    """
    axis = axis_of_classes(output, labels, class_axis)
    logits = output.movedim(axis, -1).reshape(-1, output.shape[axis])
    logits = logits if logits.dtype == torch.float64 else logits.float()
    labels = labels.to(output.device)
    if labels.is_floating_point():
        fitting = like_output(output, labels)
        return logits, fitting.movedim(axis, -1).reshape(-1, output.shape[axis]).to(logits.dtype)
    ids = labels.reshape(-1).long()
    low, high = int(ids.min()), int(ids.max())
    if high >= output.shape[axis] or high < 0 or bool(((ids < 0) & (ids != IGNORED)).any()):
        raise DataError(
            f"class ids run from {low} to {high}, the output has {output.shape[axis]} classes (axis {axis} of "
            f"{list(output.shape)}): give ids from 0 to {output.shape[axis] - 1}, {IGNORED} for what does not count"
        )
    return logits, ids


def axis_of_classes(output: Tensor, labels: Tensor | None, class_axis: int | None) -> int:
    """The axis of `output` that counts classes: axis 1 or the last, the one that class ids lack.

    Raises:
        DataError: the shapes fit no axis, or two.
        SelectionError: `class_axis` is no axis of the output.
    """
    rank = output.ndim
    if class_axis is not None:
        if not -rank <= class_axis < rank:
            raise SelectionError(f"class_axis = {class_axis}, but the output has shape {list(output.shape)}")
        axis = class_axis % rank
        if labels is not None and not labels.is_floating_point():
            _require_count(output, labels, (axis,))
        return axis
    possible = [axis for axis in dict.fromkeys((1, rank - 1)) if 0 < axis < rank and output.shape[axis] > 1]
    if not possible:
        raise DataError(f"the output has shape {list(output.shape)}: no axis behind the first counts classes")
    if len(possible) == 1 and (labels is None or labels.is_floating_point()):
        return possible[0]
    if labels is None or labels.is_floating_point():
        raise DataError(
            f"axis 1 or the last of an output of shape {list(output.shape)} may count the classes: say which "
            "(class_axis)"
        )
    wanted = _squeezed(labels.shape)
    fitting = [axis for axis in possible if _squeezed((*output.shape[:axis], *output.shape[axis + 1 :])) == wanted]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting and rank == 2:
        _require_count(output, labels, possible)
        return 1
    raise DataError(
        f"labels of shape {list(labels.shape)} fit {'two axes' if fitting else 'no axis'} of an output of shape "
        f"{list(output.shape)}: {'say which counts the classes (class_axis)' if fitting else 'give one id a position'}"
    )


def _require_count(output: Tensor, labels: Tensor, axes: tuple[int, ...] | list[int]) -> None:
    if all(labels.numel() * output.shape[axis] != output.numel() for axis in axes):
        raise DataError(
            f"labels of shape {list(labels.shape)} do not fit an output of shape {list(output.shape)}: give one class "
            "id for each position"
        )


def like_output(output: Tensor, labels: Tensor) -> Tensor:
    """The labels in the output's shape, on its device, in float32 (float64 when the output is that).

    Raises:
        DataError: more than sizes of 1 differ. Nothing is broadcast: [N] labels against [N, C] outputs are a mistake.
    """
    if _squeezed(labels.shape) != _squeezed(output.shape):
        raise DataError(
            f"labels have shape {list(labels.shape)}, the output {list(output.shape)}: give labels of the output's "
            "shape (for class ids take the loss ce)"
        )
    dtype = torch.float64 if output.dtype == torch.float64 else torch.float32
    return labels.to(output.device, dtype).reshape(output.shape)


def _squeezed(shape: tuple[int, ...] | torch.Size) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
