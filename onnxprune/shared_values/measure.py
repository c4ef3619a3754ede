"""What a change of values does to a model: how far its outputs move, and what its metric becomes, in onnxruntime."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnxprune_passes.model import Model
from onnxprune_passes.storage import save

from ..metrics import metric_from
from ..runtime import Array, Session, open_session, run
from ..verification import Inputs, cast_to_float32
from ..verify.scores import scored_output

_FEW = 256
"""About so many samples show how far outputs move."""


@dataclass(frozen=True)
class Measured:
    """One model against the one before its values were changed.

    Attributes:
        error: root mean square of the difference of an output / root mean square of the output, of the output where it
            is largest; infinite where it is no number.
        metric: over all samples; None where it was not asked for, or there are no labels.
    """

    error: float
    metric: float | None = None


class Measurer:
    """Measures models that differ from one in their values only.

    Args:
        model: the model before.
        inputs: what the models are run on.
        metric: the metric's name; None takes accuracy.
        folder: takes a model while it is measured.

    Attributes:
        metric: its name; None without labels, or without an output that has one row of scores for each.
        before: the metric of `model`.
        samples: how many labels it is taken over.
        few: on how many samples outputs are compared.

    Raises:
        DataError: labels do not fit.
        SelectionError: no such metric.
        ModelError, VerifyError: onnxruntime does not load or run a model.
    """

    def __init__(self, model: Model, inputs: Inputs, metric: str | None, folder: Path) -> None:
        self._inputs, self._folder = inputs, folder
        batches = inputs.feeds.batches
        sizes = [max((array.shape[0] for array in batch.values() if array.ndim), default=1) for batch in batches]
        places = np.linspace(0, len(batches) - 1, min(len(batches), max(1, _FEW // max(sizes))))
        self._few = sorted({round(place) for place in places.tolist()})
        self.few = sum(sizes[place] for place in self._few)
        labels = inputs.feeds.labels
        self.samples = sum(label.size for label in labels) if labels else 0
        self.before: float | None = None
        with self._opened(model) as session:
            self._wanted = list(self._outputs(session))
            scored = scored_output(self._wanted[0], labels[self._few[0]]) if labels else None
            self._output = scored or next(iter(self._wanted[0]))
            self.metric = None if not labels or (metric is None and scored is None) else metric or "accuracy"
            if self.metric is not None:
                self.before = self._scored(session, self.metric)

    def __call__(self, model: Model, *, joint: bool) -> Measured:
        """How far the outputs of `model` are from those of the model before; `joint`: its metric too."""
        with self._opened(model) as session:
            error = self._error(session)
            metric = self._scored(session, self.metric) if joint and self.metric is not None else None
        return Measured(error, metric)

    def drop(self, found: Measured) -> float:
        """How much worse the metric is than before, in its own unit; negative when it is better, 0 without labels."""
        if self.metric is None or self.before is None or found.metric is None:
            return 0.0
        worse = self.before - found.metric
        return worse if metric_from(self.metric).larger_is_better else -worse

    def _opened(self, model: Model) -> Session:
        file = self._folder / "values.onnx"
        file.with_name(f"{file.name}.data").unlink(missing_ok=True)
        save(model, file)
        return open_session(cast_to_float32(file, self._folder) if self._inputs.float32 else file, optimize=True)

    def _outputs(self, session: Session) -> Iterator[dict[str, Array]]:
        for place in self._few:
            yield run(session, self._inputs.feeds.batches[place])

    def _scored(self, session: Session, name: str) -> float:
        metric, feeds = metric_from(name), self._inputs.feeds
        for batch, labels in zip(feeds.batches, feeds.labels or (), strict=True):
            metric.update(run(session, batch)[self._output], labels)
        return metric.value()

    def _error(self, session: Session) -> float:
        off: dict[str, float] = {}
        own: dict[str, float] = {}
        for outputs, wanted in zip(self._outputs(session), self._wanted, strict=True):
            for name, before in wanted.items():
                if before.dtype.kind == "f" and outputs[name].shape == before.shape:
                    wide = before.astype(np.float64)
                    with np.errstate(all="ignore"):
                        off[name] = off.get(name, 0.0) + float(np.sum((outputs[name] - wide) ** 2))
                        own[name] = own.get(name, 0.0) + float(np.sum(wide**2))
        shares = [math.sqrt(off[name] / own[name]) for name in off if own[name] > 0]
        return max((share if math.isfinite(share) else math.inf for share in shares), default=0.0)
