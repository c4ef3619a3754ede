"""`share_values`: `--values shared:auto` with data, the fewest bits for each tensor within a budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from onnxprune_passes.encode import encode_model, file_nbytes
from onnxprune_passes.encode.plan import Encoding
from onnxprune_passes.errors import DataError
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Change, State

from ..files import temporary_folder
from ..records import SharedValues, TensorValues, finite
from ..steps import Steps
from ..verification import Source, inputs_for
from .forms import Forms
from .measure import Measurer
from .search import Budget, Search

NAME = "share-values"
MAX_DROP, MAX_ERROR = 0.001, 0.05
"""The budget when none is given: with labels the first, without the second."""


@dataclass(frozen=True)
class Wanted:
    """What to search within, and for which file.

    Attributes:
        model: the file that inputs are read for.
        source: where they come from.
        metric: of labels; None takes accuracy.
        max_drop: how much worse than before the metric may be, in its own unit; None without `max_error`: 0.001 where
            there are labels.
        max_error: how far outputs may move: root mean square of the difference / of the output; None without
            `max_drop`: 0.05 where there are no labels.
        encoding, keep_inputs, inline: how the model will be stored.
        folder: takes the models while they are measured.
    """

    model: str
    source: Source
    metric: str | None
    max_drop: float | None
    max_error: float | None
    encoding: Encoding
    keep_inputs: bool
    inline: bool
    folder: Path


def share_values(state: State, wanted: Wanted, steps: Steps) -> tuple[State, SharedValues]:
    """`state` with few distinct values in each float32 weight and vector, and what was measured.

    Values of a tensor stay as they are, are rounded to float16, or are shared among 2^bits - 1 values for 1 to 8 bits
    (see `onnxprune_passes.sharing`), whichever makes the file smallest with the model as a whole within the budget.
    Zeros stay zeros.

    Raises:
        DataError: the data does not fit the model, or has no labels that `max_drop` could be measured with.
        ModelError, VerifyError: onnxruntime does not load or run a model.
    """
    with temporary_folder(wanted.folder / "model") as folder:
        with steps.step("share values", "inputs"):
            inputs = inputs_for(wanted.model, folder, wanted.source)
            measure = Measurer(state.model, inputs, wanted.metric, folder)
        budget = _budget(wanted, labels=measure.metric is not None)
        with steps.step("share values", "clusters"):
            forms = Forms(state.model, wanted.encoding, NAME, keep_inputs=wanted.keep_inputs, inline=wanted.inline)
        search = Search(forms, measure, budget, lambda model: _nbytes(model, wanted), steps)
        best = search.best()
        found = search.measured[best]
    model = forms.model(best)
    record = SharedValues(
        data=inputs.feeds.note,
        metric=measure.metric,
        samples=measure.samples,
        samples_of_error=measure.few,
        max_drop=budget.drop,
        max_error=budget.error,
        before=measure.before,
        after=found.metric,
        error=finite(found.error),
        measurements=search.count,
        tensors=tuple(
            TensorValues(name=tensor.key, values=tensor.forms[place].name)
            for tensor, place in zip(forms.tensors, best, strict=True)
        ),
    )
    changed = sum(place > 0 for place in best)
    said = Change(NAME, f"{changed} of {len(best)} tensors take fewer bytes; {described(record)}")
    return replace(state, model=model).noted(said, *forms.skips), record


def described(record: SharedValues) -> str:
    """What was measured, in a line."""
    moved = "?" if record.error is None else f"{record.error:.2%}"
    error = f"outputs move by {moved} on {record.samples_of_error:,} samples"
    allowed = "" if record.max_error is None else f" (at most {record.max_error:.2%})"
    if record.metric is None or record.before is None or record.after is None:
        return f"{error}{allowed}"
    most = "" if record.max_drop is None else f" (at most {record.max_drop:g} worse)"
    change = f"{record.metric} {record.before:.4f} -> {record.after:.4f} on {record.samples:,} samples{most}"
    return f"{change}; {error}{allowed}"


def _budget(wanted: Wanted, *, labels: bool) -> Budget:
    """What is allowed, defaults filled in. Raises DataError where it cannot be measured."""
    if wanted.max_drop is not None and not labels:
        raise DataError(
            f"--values-max-drop needs labels to take the metric from, and {wanted.source.data} has none that fit an "
            "output: give such, or --values-max-error"
        )
    if wanted.max_drop is None and wanted.max_error is None:
        return Budget(MAX_DROP, None) if labels else Budget(None, MAX_ERROR)
    return Budget(wanted.max_drop, wanted.max_error)


def _nbytes(model: Model, wanted: Wanted) -> int:
    encoding: Encoding = "auto" if wanted.encoding in ("coo", "dense") else wanted.encoding
    return file_nbytes(encode_model(model, encoding, keep_inputs=wanted.keep_inputs, inline=wanted.inline).model)
