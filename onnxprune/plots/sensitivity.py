"""The sensitivity curves of a model's layers: metric over density (Han et al. 2015, figure 6)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .figure import figure

if TYPE_CHECKING:
    from ..sensitivity import Sensitivity

_MOST_IN_LEGEND = 20


def plot_sensitivity(result: Sensitivity, path: str | Path) -> None:
    """Draw one curve for each unit, and the dense model's metric as a dashed line.

    Raises:
        SelectionError: `path` is no .png or .svg, or matplotlib is missing.
        DataError: the file cannot be written.
    """
    model = Path(result.options.model).name
    with figure(path, f"{model}: {result.metric} with one unit pruned, {result.samples:,} samples") as axes:
        for index, curve in enumerate(result.curves):
            axes.plot(
                [point.density for point in curve.points],
                [point.metric for point in curve.points],
                marker=".",
                linestyle="-" if curve.kind == "initializer" else ":",
                label=curve.name if index < _MOST_IN_LEGEND else None,
            )
        axes.axhline(result.dense, color="black", linestyle="--", linewidth=1, label="dense")
        axes.set_xlabel("density of the unit")
        axes.set_ylabel(result.metric)
        axes.set_xlim(1, 0)
        axes.legend(fontsize="small")
