"""Running two models on the same feeds, one session after the other, and measuring how far they are apart.

The outputs of the model before are held (`Reference`), those of the model after are measured batch by batch and
dropped. A reference can be compared with several models without running the first one again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnxprune_passes.errors import VerifyError

from onnxprune.feeds import Feeds
from onnxprune.runtime import Array, is_float, open_session, run
from onnxprune.verify.comparison import FLOAT_TOLERANCE, Comparison, OutputComparison
from onnxprune.verify.scores import correct, looks_like_scores, scored_output, top1

_CHUNK = 1 << 20  # elements that are compared at a time, in float64


@dataclass(frozen=True)
class Reference:
    """A model's outputs, one mapping name -> array per batch, and how they were computed."""

    path: str
    optimize: bool
    threads: int | None
    outputs: tuple[Mapping[str, Array], ...]
    notes: tuple[str, ...]


def run_all(path: str | Path, feeds: Feeds, *, optimize: bool, threads: int | None = None) -> Reference:
    """Run a model on every batch and keep its outputs.

    Args:
        path: the model file.
        feeds: batches that fit it.
        optimize: True for onnxruntime's default level of graph optimisation, False for none.
        threads: threads inside one operator, None for onnxruntime's default.

    Raises:
        ModelError, NoKernelError: onnxruntime does not load the model.
        DataError: the feeds do not fit.
        VerifyError: onnxruntime failed while running.
    """
    with open_session(path, optimize=optimize, threads=threads) as session:
        outputs = tuple(run(session, batch) for batch in feeds.batches)
        notes = tuple(f"output {spec} is not compared: numpy has no array for it" for spec in session.skipped)
    return Reference(str(path), optimize, threads, outputs, notes)


def compare(
    before: str | Path, after: str | Path, feeds: Feeds, *, optimize: bool, threads: int | None = None
) -> Comparison:
    """Run both models on the feeds at one level of graph optimisation; arguments and errors as in `run_all`."""
    return compare_with(run_all(before, feeds, optimize=optimize, threads=threads), after, feeds)


def compare_with(reference: Reference, after: str | Path, feeds: Feeds) -> Comparison:
    """Run `after` on the feeds that gave the reference, at its level and with its threads.

    Raises:
        VerifyError: `after` lacks an output of the reference, or onnxruntime failed while running it.
        ModelError, NoKernelError, DataError: as in `run_all`.
    """
    with open_session(after, optimize=reference.optimize, threads=reference.threads) as session:
        return _measure(reference, str(after), (run(session, batch) for batch in feeds.batches), feeds.labels)


def compare_references(before: Reference, after: Reference) -> Comparison:
    """Compare outputs that both were kept, for instance of one model at both levels of graph optimisation.

    How far those two are apart tells how much of a difference is rounding that the model itself amplifies. The result
    has the level of `before`; raises `VerifyError` when `after` lacks an output.
    """
    return _measure(before, after.path, after.outputs, None)


def _measure(
    reference: Reference, after: str, found_outputs: Iterable[Mapping[str, Array]], labels: tuple[Array, ...] | None
) -> Comparison:
    """Measure the outputs of `after` batch by batch."""
    names = list(dict.fromkeys(name for batch in reference.outputs for name in batch))
    tallies = {name: _Tally(name, [batch[name] for batch in reference.outputs if name in batch]) for name in names}
    extra: dict[str, None] = {}
    scores = _Scores(reference.outputs, labels)
    for index, (expected, found) in enumerate(zip(reference.outputs, found_outputs, strict=True)):
        missing = [name for name in expected if name not in found]
        if missing:
            raise VerifyError(
                f"{after}: no output {', '.join(missing)}, which {reference.path} has; found {sorted(found)}; "
                f"compare models with equal outputs"
            )
        for name, array in expected.items():
            tallies[name].add(array, found[name])
        scores.add(index, expected, found)
        extra.update(dict.fromkeys(name for name in found if name not in expected))
    accuracy_before, accuracy_after = scores.accuracies()
    return Comparison(
        before=reference.path,
        after=after,
        optimize=reference.optimize,
        batches=len(reference.outputs),
        outputs=tuple(tally.result() for tally in tallies.values()),
        accuracy_before=accuracy_before,
        accuracy_after=accuracy_after,
        notes=(*reference.notes, *(f"output {name} is in {after} only" for name in extra), *scores.notes),
    )


class _Tally:
    """What is known of one output so far; the scale comes from all batches before, so nothing is kept of `after`."""

    def __init__(self, name: str, before: Sequence[Array]) -> None:
        self.name = name
        self.dtype = before[0].dtype
        self.scale = max(_largest_finite(array) for array in before) or 1.0
        self.count = self.finite = self.unequal = self.beyond = self.nonfinite = 0
        self.largest = self.total = 0.0
        self.rows = self.rows_agreeing = 0
        self.mismatch = ""

    def add(self, before: Array, after: Array) -> None:
        """Measure one batch."""
        self.count += before.size
        if before.dtype != after.dtype or before.shape != after.shape:
            found, expected = (f"{array.dtype.name}{list(array.shape)}" for array in (after, before))
            self.mismatch = self.mismatch or f"is {found}, expected {expected}"
            return
        flat_before, flat_after = before.reshape(-1), after.reshape(-1)
        for start in range(0, before.size, _CHUNK):
            self._add_chunk(flat_before[start : start + _CHUNK], flat_after[start : start + _CHUNK])
        if looks_like_scores(before):
            agree = top1(before) == top1(after)
            self.rows += agree.size
            self.rows_agreeing += int(np.count_nonzero(agree))

    def _add_chunk(self, before: Array, after: Array) -> None:
        if before.dtype.kind == "O":
            self.unequal += int(np.count_nonzero(before != after))
            return
        wide_before, wide_after = before.astype(np.float64), after.astype(np.float64)
        unequal = np.asarray(before != after) & ~(np.isnan(wide_before) & np.isnan(wide_after))
        finite = np.isfinite(wide_before) & np.isfinite(wide_after)
        with np.errstate(over="ignore"):
            errors = np.abs(wide_after[finite] - wide_before[finite])
        self.finite += errors.size
        self.unequal += int(np.count_nonzero(unequal))
        self.nonfinite += int(np.count_nonzero(unequal & ~finite))
        self.beyond += int(np.count_nonzero(errors > FLOAT_TOLERANCE * self.scale)) if is_float(self.dtype) else 0
        self.largest = max(self.largest, float(errors.max(initial=0.0)))
        self.total += float(errors.sum())

    def result(self) -> OutputComparison:
        """The numbers over all batches."""
        infinite = float("inf") if self.mismatch else 0.0
        return OutputComparison(
            name=self.name,
            dtype=self.dtype.name,
            count=self.count,
            scale=self.scale,
            max_error=infinite or self.largest / self.scale,
            mean_error=infinite or self.total / max(self.finite, 1) / self.scale,
            max_difference=infinite or self.largest,
            unequal=self.unequal,
            beyond=self.beyond,
            nonfinite_mismatches=self.nonfinite,
            agreement=self.rows_agreeing / self.rows if self.rows else None,
            mismatch=self.mismatch,
        )


def _largest_finite(array: Array) -> float:
    """The largest finite |value| of an array of numbers; 0 when there is none."""
    if array.dtype.kind == "O":
        return 0.0
    flat, largest = array.reshape(-1), 0.0
    for start in range(0, flat.size, _CHUNK):
        sizes = np.abs(flat[start : start + _CHUNK].astype(np.float64))
        largest = max(largest, float(np.max(sizes, initial=0.0, where=np.isfinite(sizes))))
    return largest


class _Scores:
    """How many labels each model got right."""

    def __init__(self, before: Sequence[Mapping[str, Array]], labels: tuple[Array, ...] | None) -> None:
        self.labels = labels
        self.name = scored_output(before[0], labels[0]) if labels and before else None
        self.count = self.right_before = self.right_after = 0
        missing = labels is not None and self.name is None
        self.notes = ("labels are not used: no output has one row of class scores per label",) if missing else ()

    def add(self, index: int, before: Mapping[str, Array], after: Mapping[str, Array]) -> None:
        """Count one batch; outputs of other shapes than before count nothing from then on."""
        if self.labels is None or self.name is None:
            return
        if before[self.name].shape != after[self.name].shape:
            self.name, self.count = None, 0
            return
        self.count += self.labels[index].size
        self.right_before += correct(before[self.name], self.labels[index])
        self.right_after += correct(after[self.name], self.labels[index])

    def accuracies(self) -> tuple[float, float] | tuple[None, None]:
        """Shares of labels that are right before and after; None twice when none was counted."""
        return (self.right_before / self.count, self.right_after / self.count) if self.count else (None, None)
