"""Reports on the terminal: results to stdout, warnings and errors to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from math import inf

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..records import Accuracy, Comparison, Rounding
from ..report import Report, VerifyReport
from ..rounds import Rounds

_VERDICTS = {"measured": "", "equal": "equal", "within tolerance": "close"}
_WIDE = 200
"""Columns where stdout is no terminal: nothing is cut off in a log file."""


def console() -> Console:
    """Where results go."""
    return Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False, soft_wrap=False)


def show_report(report: Report, *, quiet: bool) -> None:
    """A run of the main job. With `quiet` only what went wrong, on stderr."""
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)
    if report.error is not None:
        click.echo(f"error: {report.error}; nothing was written", err=True)
    if quiet:
        return
    out = console()
    if report.layers:
        out.print(_layer_table(report))
    if report.rounds is not None:
        out.print(_rounds_table(report.rounds))
    if report.rounding is not None:
        out.print(_rounding_table(report.rounding))
    if report.comparisons:
        out.print(comparison_table(report.comparisons))
    for line in _summary(report):
        out.print(Text(line), soft_wrap=True)


def show_verification(report: VerifyReport) -> None:
    """What `onnxprune verify` found."""
    for note in report.notes:
        click.echo(f"warning: {note}", err=True)
    out = console()
    out.print(comparison_table(report.comparisons))
    out.print(Text(f"inputs: {report.inputs_from}"), soft_wrap=True)
    out.print(Text(accuracy_line(report.accuracy, report.accuracy_note)), soft_wrap=True)
    out.print(Text("they agree" if report.verified else "they do not agree"), soft_wrap=True)
    for problem in report.problems:
        click.echo(f"error: {problem}", err=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], text: Sequence[str]) -> Table:
    """A plain table; the columns named in `text` are flush left, numbers flush right."""
    made = Table(title=Text(title), title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, justify="left" if column in text else "right", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def shape_text(shape: Sequence[int]) -> str:
    """`300x784`; `-` for a tensor that is gone."""
    return "x".join(map(str, shape)) or "-"


def percent(share: float) -> str:
    """`12.3 %`."""
    return f"{share:.1%}".replace("%", " %")


def count_text(count: int | None) -> str:
    """With thousands separators; `?` when it is not known."""
    return "?" if count is None else f"{count:,}"


def _layer_table(report: Report) -> Table:
    rows = []
    for layer in report.layers:
        same = layer.shape_before == layer.shape_after
        shape = shape_text(layer.shape_before) + ("" if same else f" -> {shape_text(layer.shape_after)}")
        density = f"{100 * layer.density_before:.1f} -> {100 * layer.density_after:.1f}"
        sizes = f"{layer.bytes_before:,} -> {layer.bytes_after:,}"
        rows.append((layer.name, layer.op, shape, density, sizes, layer.scheme))
    columns = ("name", "op", "shape", "density %", "bytes", "stored")
    return table("Weights", columns, rows, text=("name", "op", "stored"))


def _rounding_table(rounding: Rounding) -> Table:
    rows = [
        (
            str(one.round_to),
            count_text(one.parameters),
            count_text(one.dense_macs),
            f"{one.bytes:,}",
            f"{one.milliseconds:.3g}",
            f"{one.ratio:.3f} ({one.ratio_low:.3f} to {one.ratio_high:.3f})",
            str(one.pairs),
            "chosen" if one.round_to == rounding.chosen else f"as {one.same_as}" if one.same_as else "",
        )
        for one in rounding.candidates
    ]
    columns = ("round to", "weights", "MACs", "bytes, dense", "ms", "of the original (95 %)", "pairs", "")
    title = f"Roundings (threads: {rounding.threads}; original: {rounding.milliseconds:.3g} ms; {rounding.inputs_from})"
    return table(title, columns, rows, text=("",))


def comparison_table(comparisons: Iterable[Comparison]) -> Table:
    """One row for each pair and level: the output that moved most. Errors are shares of the output's largest entry."""
    rows = []
    for found in comparisons:
        worst = max(found.outputs, key=lambda output: inf if output.max_error is None else output.max_error)
        agreements = [output.agreement for output in found.outputs if output.agreement is not None]
        agreement = percent(min(agreements)) if agreements else ""
        verdict = "failed" if found.problems else _VERDICTS[found.wanted]
        name = worst.output if worst.max_error != 0 else "all"
        errors = [_error(worst.max_error), _error(worst.mean_error)]
        rows.append((f"{found.before} -> {found.after}", found.optimizations, name, *errors, agreement, verdict))
    columns = ("models", "level", "output", "max error", "mean", "same top-1", "check")
    title = "Answers (worst output; errors relative to its largest entry; level = onnxruntime's optimisations)"
    return table(title, columns, rows, text=("models", "level", "output", "check"))


def _error(value: float | None) -> str:
    return "-" if value is None else "0" if value == 0 else f"{value:.2g}"


def accuracy_line(accuracy: Accuracy | None, note: str | None) -> str:
    """What is known of the accuracy."""
    if accuracy is None:
        return note or "accuracy was not measured"
    change = f"{accuracy.before:.2%} -> {accuracy.after:.2%}"
    return f"accuracy: {change} ({accuracy.samples:,} samples, output {accuracy.output})"


def _summary(report: Report) -> list[str]:
    lines = [f"{note.by}: {note.summary}" for note in report.changes]
    lines += [f"{left.by}: left {left.name} alone: {left.reason}" for left in report.skips]
    if report.totals is not None:
        totals = report.totals
        sparsity = [
            zeros / max(parameters, 1)
            for zeros, parameters in (
                (totals.zeros_before, totals.parameters_before),
                (totals.zeros_after, totals.parameters_after),
            )
        ]
        lines.append(
            f"weights: {totals.parameters_before:,} -> {totals.parameters_after:,}, "
            f"sparsity {percent(sparsity[0])} -> {percent(sparsity[1])}"
        )
        if totals.dense_macs_before is not None:
            lines.append(
                f"MACs: {count_text(totals.dense_macs_before)} -> {count_text(totals.dense_macs_after)} dense, "
                f"{count_text(totals.effective_macs_after)} without the zeros"
            )
    if report.inputs_from is not None:
        lines.append(f"verified on {report.inputs_from}" if report.verified else f"run on {report.inputs_from}")
    if report.status == "done":
        lines.append(accuracy_line(report.accuracy, report.accuracy_note))
    if report.input is not None and report.output is not None and report.totals is not None:
        lines.append(
            f"{report.output.path}: {report.input.bytes:,} -> {report.output.bytes:,} bytes, "
            f"{report.totals.compression_factor:.2f} times smaller"
        )
    return lines


def _rounds_table(rounds: Rounds) -> Table:
    name = "metric" if rounds.dense is None else rounds.dense.metric
    rows = [
        (
            str(one.number),
            "-" if one.target is None else f"{one.unit} {one.target:.4g}",
            percent(one.density),
            "-" if one.metric_before is None else f"{one.metric_before:.4f}",
            "-" if one.metric is None else f"{one.metric:.4f}",
            str(one.epochs),
            f"{one.seconds:.1f}",
            "taken" if one.number == rounds.taken else "",
        )
        for one in rounds.rounds
    ]
    dense = "" if rounds.dense is None else f" ({name} of the model as it came: {rounds.dense.value:.4f})"
    columns = ("round", "target", "density", f"{name} pruned", f"{name} trained", "epochs", "seconds", "")
    return table(f"Rounds{dense}", columns, rows, text=("target", ""))
