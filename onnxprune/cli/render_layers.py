"""The table of `onnxprune inspect --layers`, on the terminal and as Markdown."""

from __future__ import annotations

from rich.text import Text

from ..layers import LayerTable
from .render import console, count_text, table

COLUMNS = ("layer", "weights", "FLOP", "Act %", "Weights %", "FLOP %")


def show_layers(found: LayerTable) -> None:
    """Print the table and what its numbers rest on."""
    out = console()
    out.print(table("Layers", COLUMNS, _rows(found), text=("layer",)))
    for line in _lines(found):
        out.print(Text(line), soft_wrap=True)


def markdown_layers(found: LayerTable) -> str:
    """The same as a Markdown table, with a final newline."""
    head = [f"| {' | '.join(COLUMNS)} |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in _rows(found)), "", *_lines(found)]) + "\n"


def _rows(found: LayerTable) -> list[tuple[str, ...]]:
    rows = [
        (
            layer.name,
            count_text(layer.weights),
            count_text(layer.flops),
            _share(layer.activations),
            _share(layer.density),
            _share(layer.flop_share),
        )
        for layer in found.layers
    ]
    end = found.total
    shares = (_share(end.activations), _share(end.density), _share(end.flop_share if found.samples else None))
    return [*rows, ("total", count_text(end.weights), count_text(end.flops), *shares)]


def _share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _lines(found: LayerTable) -> list[str]:
    factor = f"{found.total.weights / found.total.kept:.1f}" if found.total.kept else "all"
    lines = [f"weights kept: {found.total.kept:,} of {found.total.weights:,}, {factor} times fewer"]
    if found.samples:
        if found.total.flop_share:
            lines[0] += f"; FLOPs with both factors not zero: {1 / found.total.flop_share:.1f} times fewer"
        lines.append(f"activations: {found.samples:,} samples ({found.inputs_from})")
    if found.dense is not None:
        lines.append(f"dense: {found.dense}")
    return [*lines, *found.notes]
