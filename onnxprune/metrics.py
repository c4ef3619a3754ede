"""How good outputs are, counted batch by batch: `metric_from("accuracy")`, `top5`, `mse`, or the user's own.

A metric is made anew for each pass over the data: `update` for each batch, `value` at the end.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnxprune_passes.errors import DataError, SelectionError

from onnxprune.named import named_function

Array = NDArray[Any]


class Metric(Protocol):
    """A number that tells models apart. `larger_is_better` says which way is up."""

    name: str
    larger_is_better: bool

    def update(self, output: Array, labels: Array) -> None:
        """Count a batch: `output` [samples, …] as the model gives it, `labels` as the data does."""
        ...

    def value(self) -> float:
        """The metric over all samples seen. Raises DataError when there were none."""
        ...


class TopK:
    """Share of labels that are among the k largest scores, in 0..1; a NaN in the scores counts as wrong.

    Labels are class indices, one for each row of scores: the class axis is the last (`[N, classes]`,
    `[N, time, classes]`) or the second (`[N, classes, H, W]`). Floats in the shape of the scores stand for the class of
    their largest entry. Of equal scores the first classes count, as in `argmax`.
    """

    larger_is_better = True

    def __init__(self, name: str, k: int) -> None:
        self.name = name
        self._k = k
        self._right = self._seen = 0

    def update(self, output: Array, labels: Array) -> None:
        """Count a batch. Raises DataError when labels do not count the rows, or are no class."""
        scores, wanted = _rows(output, labels)
        classes = scores.shape[1]
        if self._k >= classes and self._k > 1:
            raise DataError(f"{self.name} of {classes} classes is always 1; use accuracy")
        if wanted.size and not (int(wanted.min()) >= 0 and int(wanted.max()) < classes):
            raise DataError(
                f"labels run from {int(wanted.min())} to {int(wanted.max())}, but the scores have {classes} classes; "
                f"number the classes from 0"
            )
        own = np.take_along_axis(scores, wanted[:, None], axis=1)
        earlier = np.arange(classes) < wanted[:, None]
        before = np.count_nonzero((scores > own) | ((scores == own) & earlier), axis=1)
        self._right += int(np.count_nonzero((before < self._k) & ~np.isnan(scores).any(axis=1)))
        self._seen += wanted.size

    def value(self) -> float:
        """Share of the labels seen that were among the k largest."""
        return self._right / _some(self._seen, self.name)


class MeanSquaredError:
    """Mean over all entries of (output − label)², in float64; labels have the output's shape (axes of 1 left aside)."""

    name = "mse"
    larger_is_better = False

    def __init__(self) -> None:
        self._sum = 0.0
        self._seen = 0

    def update(self, output: Array, labels: Array) -> None:
        """Count a batch. Raises DataError when the shapes differ."""
        if len(output) != len(labels) or _without_ones(output) != _without_ones(labels):
            raise DataError(
                f"mse needs labels in the shape of the output {list(output.shape)}; found {list(labels.shape)}; "
                f"store them so, or choose another metric"
            )
        difference = output.astype(np.float64).ravel() - labels.astype(np.float64).ravel()
        self._sum += float(difference @ difference)
        self._seen += difference.size

    def value(self) -> float:
        """Mean over every entry seen."""
        return self._sum / _some(self._seen, self.name)


class FunctionMetric:
    """The mean over samples of the user's `function(output, labels) -> float`, called once a batch.

    Larger is better, unless the function has an attribute `larger_is_better` that says otherwise.
    """

    def __init__(self, name: str, function: Callable[[Array, Array], Any]) -> None:
        self.name = name
        self.larger_is_better = bool(getattr(function, "larger_is_better", True))
        self._function = function
        self._sum = 0.0
        self._seen = 0

    def update(self, output: Array, labels: Array) -> None:
        """Call the function. Raises DataError when it gives no number."""
        found = self._function(output, labels)
        try:
            self._sum += float(found) * len(output)
        except (TypeError, ValueError) as error:
            raise DataError(f"metric {self.name} gave {found!r}; expected a number") from error
        self._seen += len(output)

    def value(self) -> float:
        """Mean of what the function gave, each batch by its number of samples."""
        return self._sum / _some(self._seen, self.name)


def metric_from(spec: str) -> Metric:
    """A fresh metric by name.

    Args:
        spec: "accuracy", "top5", "mse", or "module:function". The function takes nothing and gives a `Metric`, or takes
            `(output, labels)` of a batch and gives a number, of which the mean over samples is taken.

    Raises:
        SelectionError: no such metric, module or function, or one that takes other arguments.
    """
    if spec == "accuracy":
        return TopK(spec, 1)
    if spec == "top5":
        return TopK(spec, 5)
    if spec == "mse":
        return MeanSquaredError()
    if ":" not in spec:
        raise SelectionError(f"no metric {spec!r}; give accuracy, top5, mse, or module:function")
    function = named_function(spec)
    needed = _needed_arguments(spec, function)
    if needed == 2:
        return FunctionMetric(spec.rpartition(":")[2], function)
    metric: Any = function() if needed == 0 else None
    if not all(hasattr(metric, name) for name in ("name", "larger_is_better", "update", "value")):
        raise SelectionError(
            f"metric {spec}: expected a function of (output, labels), or one without arguments that gives an object "
            f"with name, larger_is_better, update and value; found {function!r}"
        )
    found: Metric = metric
    return found


def _needed_arguments(spec: str, function: Callable[..., Any]) -> int:
    """How many positional arguments a call must have."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise SelectionError(f"{spec}: its arguments cannot be read ({error}); give a Python function") from error
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.kind in positional and one.default is one.empty for one in parameters)


def _rows(output: Array, labels: Array) -> tuple[Array, NDArray[np.int64]]:
    """Scores [rows, classes] and the class of each row."""
    scores = output if output.dtype.kind == "f" else output.astype(np.float32)
    if labels.dtype.kind == "f" and labels.shape == output.shape and output.ndim > 1:
        axis = -1 if output.ndim < 4 else 1
        labels = np.argmax(labels, axis=axis)
    else:
        axis = next((axis for axis in (-1, 1) if _counts_rows(output, labels, axis)), 0)
    if axis == 0 or labels.dtype.kind not in "iu":
        raise DataError(
            f"labels {labels.dtype.name}{list(labels.shape)} do not fit scores {list(output.shape)}; expected one "
            f"class index for each row of scores; with other labels choose another metric"
        )
    moved = np.moveaxis(scores, axis, -1)
    return moved.reshape(-1, moved.shape[-1]), labels.reshape(-1).astype(np.int64)


def _counts_rows(output: Array, labels: Array, axis: int) -> bool:
    """Whether there is one label for each row along `axis`, which has more than one class."""
    return output.ndim > 1 and output.shape[axis] > 1 and labels.size * output.shape[axis] == output.size


def _without_ones(array: Array) -> tuple[int, ...]:
    return tuple(size for size in array.shape if size != 1)


def _some(seen: int, name: str) -> int:
    if not seen:
        raise DataError(f"{name} of no samples: give data with labels")
    return seen
