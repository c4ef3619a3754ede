"""What pruning costs, over how much is pruned: one curve for each set of reports (Han et al. 2015, figure 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from onnxprune_passes.errors import DataError

from ..report import Report
from .figure import figure


@dataclass(frozen=True)
class TradeOff:
    """One point: the share of the prunable weights that is gone, and the metric against the model as it came.

    Attributes:
        pruned: 0..1.
        change: metric - metric of the model as it came, in the metric's unit; below 0 is worse for an accuracy.
        metric: the metric's name.
    """

    pruned: float
    change: float
    metric: str


def read_points(path: str | Path, *, trained: bool = True) -> tuple[TradeOff, ...]:
    """The points of one JSON report of `onnxprune MODEL --json`; of rounds, as they were `trained` or before that.

    A run in rounds gives one for each round, on its validation samples; any other one, on the samples of `--data`.

    Raises:
        DataError: the file is no such report, or nothing was measured.
    """
    try:
        report = msgspec.json.decode(Path(path).read_bytes(), type=Report)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise DataError(f"{path} is no report of 'onnxprune MODEL --json' ({error}); give one") from error
    rounds, accuracy, totals = report.rounds, report.accuracy, report.totals
    if rounds is not None and rounds.dense is not None:
        dense = rounds.dense
        found = [(one.density, one.metric if trained else one.metric_before) for one in rounds.rounds]
        points = [TradeOff(1 - kept, value - dense.value, dense.metric) for kept, value in found if value is not None]
        if points:
            return tuple(points)
    if accuracy is None or totals is None:
        why = report.accuracy_note or report.error or "nothing was measured"
        raise DataError(f"{path}: no accuracy in it ({why}); run with --data that has labels")
    kept = totals.parameters_after - totals.zeros_after
    pruned = 1 - kept / max(totals.parameters_before, 1)
    return (TradeOff(pruned, accuracy.after - accuracy.before, "accuracy"),)


def plot_trade_off(
    curves: Mapping[str, Sequence[str | Path]],
    path: str | Path,
    *,
    untrained: Mapping[str, Sequence[str | Path]] | None = None,
    floor: float | None = None,
) -> None:
    """Draw one curve for each entry of `curves`: its label → JSON reports of `onnxprune MODEL --json`.

    Args:
        curves: label → files.
        untrained: the same, with what rounds measured after pruning and before training.
        path: the .png or .svg file.
        floor: the lowest change that the axis shows; None shows all.

    Raises:
        SelectionError: `path` is no .png or .svg, or matplotlib is missing.
        DataError: a report cannot be used, metrics differ, or the file cannot be written.
    """
    found = {label: [one for file in files for one in read_points(file)] for label, files in curves.items()}
    for label, files in (untrained or {}).items():
        found[label] = [one for file in files for one in read_points(file, trained=False)]
    metrics = {point.metric for points in found.values() for point in points}
    if len(metrics) > 1:
        raise DataError(f"the reports measure {' and '.join(sorted(metrics))}: give reports of one metric")
    metric = next(iter(metrics), "metric")
    with figure(path, f"{metric} lost by pruning") as axes:
        for label, points in found.items():
            line = sorted(points, key=lambda point: point.pruned)
            axes.plot([100 * one.pruned for one in line], [one.change for one in line], marker=".", label=label)
        axes.axhline(0, color="black", linestyle="--", linewidth=1)
        axes.set_xlabel("weights pruned, %")
        axes.set_ylabel(f"change of {metric}")
        if floor is not None:
            highest = max((one.change for points in found.values() for one in points), default=0.0)
            axes.set_ylim(floor, max(highest, 0.0) - 0.1 * floor)
        axes.legend(fontsize="small")
