"""What `onnxprune sensitivity` prints."""

from __future__ import annotations

from rich.text import Text

from ..sensitivity import Curve, Sensitivity
from .render import console, percent, table


def show_sensitivity(result: Sensitivity) -> None:
    """A row for each unit: the metric at each density, and how far it can be pruned alone."""
    out = console()
    wanted = [point.wanted for point in result.curves[0].points]
    columns = ("name", *(f"{density:g}" for density in wanted), "density", "quality")
    rows = [
        (curve.name, *(f"{point.metric:.4f}" for point in curve.points), *_advice(curve)) for curve in result.curves
    ]
    out.print(table(f"{result.metric} by density of one unit, all others dense", columns, rows, text=("name",)))
    out.print(Text(f"dense model: {result.metric} {result.dense:.4f} on {result.samples:,} samples ({result.note})"))
    drop = result.options.max_drop
    out.print(
        Text(
            f"density, quality: how far a unit alone may go with {result.metric} at most {drop:g} worse. Drops add up "
            f"when all are pruned: retrain, or choose less."
        ),
        soft_wrap=True,
    )
    chosen = [
        f"--layer {curve.name}={curve.suggestion.quality:.3g}"
        for curve in result.curves
        if curve.kind == "initializer" and curve.suggestion is not None and curve.suggestion.quality is not None
    ]
    if chosen:
        out.print(Text(f"onnxprune {result.options.model} --quality 0 {' '.join(chosen)}"), soft_wrap=True)
    out.print(Text(f"written: {result.options.json}"), soft_wrap=True)


def _advice(curve: Curve) -> tuple[str, str]:
    found = curve.suggestion
    if found is None:
        return "none", "-"
    return percent(found.density), "-" if found.quality is None else f"{found.quality:.3g}"
