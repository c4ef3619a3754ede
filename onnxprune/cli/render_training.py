"""A training on the terminal."""

from __future__ import annotations

import click
from rich.text import Text

from ..train_recipe import RetrainOptions
from ..train_report import Epoch, RetrainReport, Training
from .render import console, table


def epoch_line(epoch: Epoch, options: RetrainOptions) -> str:
    """One epoch in one line, for a log."""
    text = [f"epoch {epoch.epoch}/{options.epochs}:"]
    named = (("loss", epoch.loss), ("validation loss", epoch.validation_loss), ("metric", epoch.metric))
    text += [f"{name} {value:.4f}" for name, value in named if value is not None]
    return f"{' '.join(text)} ({epoch.seconds:.1f} s)"


def show_training(report: RetrainReport, *, quiet: bool) -> None:
    """A run of `onnxprune retrain`. With `quiet` only what went wrong, on stderr."""
    for warning in report.warnings:
        click.echo(f"warning: {warning}", err=True)
    if report.error is not None:
        click.echo(f"error: {report.error}; nothing was written", err=True)
    if quiet:
        return
    out = console()
    training = report.training
    if training is not None:
        out.print(_epochs(training))
    lines = [f"{note.by}: {note.summary}" for note in report.changes]
    lines += [f"{left.by}: left {left.name} alone: {left.reason}" for left in report.skips]
    lines += list(training.notes) if training is not None else []
    if training is not None and training.resumed_at is not None:
        lines.append(f"went on from the checkpoint at step {training.resumed_at:,}")
    if report.max_error is not None:
        lines.append(f"torch and onnxruntime differ by {report.max_error:.2g} of the output's size")
    if report.input is not None and report.output is not None:
        lines.append(f"{report.output.path}: {report.input.bytes:,} -> {report.output.bytes:,} bytes")
    for line in lines:
        out.print(Text(line), soft_wrap=True)


def _epochs(training: Training) -> object:
    columns = ("epoch", "rate", "loss", "validation loss", training.metric or "metric", "seconds", "")
    rows = [
        (
            str(one.epoch),
            _number(one.lr, "g"),
            _number(one.loss, ".4f"),
            _number(one.validation_loss, ".4f"),
            _number(one.metric, ".4f"),
            f"{one.seconds:.1f}",
            "kept" if one.epoch == training.kept else "",
        )
        for one in training.epochs
    ]
    return table("Training (epoch 0: the model as it came)", columns, rows, text=("",))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
