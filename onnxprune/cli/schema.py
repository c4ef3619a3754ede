"""`onnxprune schema`: the JSON Schema of what `--json` writes."""

from __future__ import annotations

import click
import msgspec

from .options import Examples, debug_option


@click.command(
    cls=Examples,
    epilog="onnxprune schema > report.schema.json\nonnxprune schema inspect",
    short_help="Print the JSON Schema of the reports.",
)
@click.argument("command", type=click.Choice(["prune", "retrain", "inspect", "sensitivity", "verify"]), default="prune")
@debug_option
def schema(command: str) -> None:
    """Print the JSON Schema of the report that COMMAND writes with --json (default: prune)."""
    from ..serialize import json_text, schema_of

    click.echo(json_text(schema_of(_kind(command))), nl=False)


def _kind(command: str) -> type[msgspec.Struct]:
    if command == "inspect":
        from ..analysis import Analysis

        return Analysis
    if command == "retrain":
        from ..train_report import RetrainReport

        return RetrainReport
    if command == "sensitivity":
        from ..sensitivity import Sensitivity

        return Sensitivity
    from ..report import Report, VerifyReport

    return VerifyReport if command == "verify" else Report
