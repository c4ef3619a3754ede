"""Losses: (output, labels, the teacher's output) → one number to minimise.

Every loss is computed in float32 at least, whatever autocast makes of the output.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from onnxprune_passes.errors import DataError, SelectionError
from torch import Tensor

from onnxprune.named import named_function
from onnxprune.torch.train import targets

Loss = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]

LOSSES = ("ce", "bce", "mse", "distill")
TAKE_LOGITS = ("ce", "bce", "distill")
"""The losses whose output stands before a Softmax or Sigmoid (`pretail.loss_output`)."""
_TEMPERATURE, _WEIGHT = 4.0, 0.9


def loss_from(
    name: str,
    *,
    label_smoothing: float | None = None,
    class_axis: int | None = None,
    temperature: float | None = None,
    weight: float | None = None,
    hard: str | None = None,
) -> Loss:
    """The loss `name`, a mean over samples and positions.

    - `ce`: cross entropy of logits and class ids. The classes are on the axis that the labels lack: labels [N] or
      [N, 1] for [N, C], [N, C, 1, 1] or [N, 1, C] logits; [N, ...] for [N, C, ...] or [N, ..., C]. Labels of the
      output's shape are probabilities. Positions labelled -100 do not count.
    - `bce`: binary cross entropy of logits and labels of the output's shape, from 0 to 1.
    - `mse`: mean squared difference to labels of the output's shape.
    - `distill`: w · T² · KL(teacher at T, output at T) + (1 - w) · hard loss (Hinton, Vinyals and Dean 2015, section
      2; "at T": the softmax of logits / T). With the hard loss `bce` each entry is a distribution of its own
      (sigmoid of logits / T); with `mse` the first term is w · the mean squared difference to the teacher's output.
    - `module:function`: a function of these three that gives a tensor with one entry.

    Sizes of 1 do not matter where labels and output are matched.

    Args:
        name: one of `LOSSES`, or `module:function`.
        label_smoothing: for `ce` (and the hard loss `ce`): this share of each label is spread over all classes, from 0
            to below 1 (Szegedy et al. 2016, section 7); 0 when not given.
        class_axis: the axis of the classes, where the shapes leave two possible.
        temperature: T of `distill`; 4 when not given.
        weight: w of `distill`, from 0 to 1; 0.9 when not given. With 1 no labels are needed.
        hard: the hard loss of `distill`: ce (when not given), bce or mse.

    Returns:
        The loss. It raises DataError when labels or the teacher's output are missing or do not fit the output.

    Raises:
        SelectionError: a name is unknown, a number is out of range, or an option is given that the loss does not read.
    """
    distils = name == "distill"
    inner = ("ce" if hard is None else hard) if distils else name
    unread: dict[str, object] = {"class_axis": class_axis, "label_smoothing": label_smoothing} if inner != "ce" else {}
    unread |= {} if distils else {"weight": weight, "hard": hard}
    unread |= {} if distils and inner != "mse" else {"temperature": temperature}
    given = [option for option, value in unread.items() if value is not None]
    if given:
        raise SelectionError(f"the loss {name!r}{_with(hard)} does not read {', '.join(given)}: leave it out")
    if ":" in name:
        return _checked(name)
    if inner not in ("ce", "bce", "mse"):
        known = "ce, bce and mse" if distils else f"{', '.join(LOSSES)} and module:function"
        raise SelectionError(f"{'hard ' if distils else ''}loss {inner!r} is unknown; the losses are {known}")
    plain = _plain(inner, label_smoothing, class_axis)
    if not distils:
        return lambda output, labels, _: plain(output, labels)
    return _distilling(inner, plain, class_axis, temperature, weight)


def _with(hard: str | None) -> str:
    return "" if hard is None else f" with the hard loss {hard!r}"


def _plain(
    name: str, label_smoothing: float | None, class_axis: int | None
) -> Callable[[Tensor, Tensor | None], Tensor]:
    if name == "bce":
        return _bce
    if name == "mse":
        return _mse
    smoothing = 0.0 if label_smoothing is None else label_smoothing
    if not 0 <= smoothing < 1:
        raise SelectionError(f"label_smoothing = {smoothing}: give a share from 0 to below 1")
    return partial(_cross_entropy, smoothing=smoothing, class_axis=class_axis)


def _cross_entropy(output: Tensor, labels: Tensor | None, *, smoothing: float, class_axis: int | None) -> Tensor:
    logits, wanted = targets.classes(output, targets.required(labels, "ce"), class_axis)
    return F.cross_entropy(logits, wanted, label_smoothing=smoothing)


def _bce(output: Tensor, labels: Tensor | None) -> Tensor:
    wanted = targets.like_output(output, targets.required(labels, "bce"))
    return F.binary_cross_entropy_with_logits(wide(output), wanted)


def _mse(output: Tensor, labels: Tensor | None) -> Tensor:
    return F.mse_loss(wide(output), targets.like_output(output, targets.required(labels, "mse")))


def _distilling(
    hard: str,
    plain: Callable[[Tensor, Tensor | None], Tensor],
    class_axis: int | None,
    temperature: float | None,
    weight: float | None,
) -> Loss:
    """W · T² · KL + (1 - w) · hard."""
    heat = _TEMPERATURE if temperature is None else temperature
    share = _WEIGHT if weight is None else weight
    if not heat > 0:
        raise SelectionError(f"temperature = {heat}: give one above 0")
    if not 0 <= share <= 1:
        raise SelectionError(f"weight = {share}: give the share of the teacher from 0 to 1")

    def loss(output: Tensor, labels: Tensor | None, teacher_output: Tensor | None) -> Tensor:
        if share == 0:
            return plain(output, labels)
        if teacher_output is None:
            raise DataError("the loss 'distill' needs the teacher's output: name a teacher")
        if teacher_output.shape != output.shape:
            raise DataError(
                f"the teacher's output has shape {list(teacher_output.shape)}, the model's {list(output.shape)}: "
                "the teacher must compute the same output on the same batch"
            )
        theirs, ours = wide(teacher_output.detach()).to(output.device), wide(output)
        if hard == "mse":
            soft = F.mse_loss(ours, theirs)
        elif hard == "bce":
            soft = heat * heat * _bernoulli_divergence(ours / heat, theirs / heat)
        else:
            soft = heat * heat * _class_divergence(ours / heat, theirs / heat, labels, class_axis)
        return soft if share == 1 else share * soft + (1 - share) * plain(output, labels)

    return loss


def _class_divergence(ours: Tensor, theirs: Tensor, labels: Tensor | None, class_axis: int | None) -> Tensor:
    """The mean over samples and positions of KL(softmax(theirs), softmax(ours)), ignored positions left out."""
    axis = targets.axis_of_classes(ours, labels, class_axis)
    each = F.kl_div(ours.log_softmax(axis), theirs.log_softmax(axis), reduction="none", log_target=True).sum(axis)
    if labels is None or labels.is_floating_point() or labels.numel() != each.numel():
        return each.mean()
    counts = labels.to(each.device).reshape(each.shape) != targets.IGNORED
    return (each * counts).sum() / counts.sum()


def _bernoulli_divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    """The mean over entries of KL(sigmoid(theirs), sigmoid(ours))."""
    wanted = theirs.sigmoid()
    crossed = F.binary_cross_entropy_with_logits(ours, wanted)
    return crossed - F.binary_cross_entropy_with_logits(theirs, wanted)


def _checked(name: str) -> Loss:
    """A user's function, held to giving one number."""
    function = named_function(name)

    def loss(output: Tensor, labels: Tensor | None, teacher_output: Tensor | None) -> Tensor:
        found = function(output, labels, teacher_output)
        if not isinstance(found, Tensor) or found.numel() != 1:
            shape = f"a tensor of shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise DataError(f"the loss {name!r} gave {shape}: give a tensor with one entry")
        return found.reshape(())

    return loss


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 when it is that."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
