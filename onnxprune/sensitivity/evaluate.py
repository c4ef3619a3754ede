"""The metric of one model over the samples, in onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnxprune_passes.errors import DataError

from ..metrics import metric_from
from ..runtime import Array, Session, open_session, run
from ..samples import Samples, batch_size_of, read_measured, spread


@dataclass(frozen=True)
class Task:
    """What is measured: `rows` of the samples of `data`, spread evenly, `batch` at a time, `output` against the labels.

    `data_options` say how `data` is read.
    """

    data: str
    data_options: tuple[str, ...]
    metric: str
    output: str | None
    rows: int | None
    batch: int


class Evaluator:
    """Measures models that share their inputs; the samples are read once.

    Where the samples have no labels, the dense model's output stands for them. A model whose first axis is fixed is
    given as many samples at once as it takes, and what is left over at the end is not measured.

    Args:
        task: what is measured.
        dense: the dense model's file.

    Raises:
        DataError: the samples do not fit the model, or there are none; no output of that name.
        SelectionError: no such metric.
        ModelError, VerifyError: onnxruntime does not load or run a model.
    """

    def __init__(self, task: Task, dense: Path) -> None:
        self._task = task
        with open_session(dense, optimize=True, threads=1) as session:
            names = [spec.name for spec in session.outputs if spec not in session.skipped]
            if task.output is not None and task.output not in names:
                raise DataError(f"{dense}: no output named {task.output!r}; --output-name is one of {', '.join(names)}")
            if not names:
                raise DataError(f"{dense}: the model has no output that can be measured")
            self._output = task.output or names[0]
            self._samples: Samples = read_measured(task.data, session.inputs, task.data_options)
            self._batch = batch_size_of(session.inputs) or task.batch
            self._rows = spread(len(self._samples), task.rows or len(self._samples))
            if batch_size_of(session.inputs) is not None:
                self._rows = self._rows[: len(self._rows) - len(self._rows) % self._batch]
            self.count = len(self._rows)
            if self.count == 0:
                raise DataError(f"{task.data}: {len(self._samples)} samples, fewer than one batch of {self._batch}")
            self._answers: list[Array] = []
            if self._samples.batch(np.arange(1))[1] is None:
                self._answers = [output for output, _ in self._outputs(session)]
        own = "; no labels there: measured against the dense model's own answers" if self._answers else ""
        self.note = f"{self._samples.note}{own}"

    def __call__(self, model: Path) -> float:
        """The metric of `model`."""
        metric = metric_from(self._task.metric)
        with open_session(model, optimize=True, threads=1) as session:
            for index, (output, labels) in enumerate(self._outputs(session)):
                metric.update(output, self._answers[index] if self._answers else _given(labels))
        return metric.value()

    def _outputs(self, session: Session) -> Iterator[tuple[Array, Array | None]]:
        for start in range(0, self.count, self._batch):
            feeds, labels = self._samples.batch(self._rows[start : start + self._batch])
            yield run(session, feeds)[self._output], labels


def _given(labels: Array | None) -> Array:
    if labels is None:
        raise DataError("a batch without labels between batches with labels: give labels for all samples, or for none")
    return labels
