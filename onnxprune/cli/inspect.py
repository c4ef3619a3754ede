"""`onnxprune inspect`: what is in a model, and what pruning could do to it."""

from __future__ import annotations

import click

from .options import IN_FILE, Examples, debug_option, json_option


@click.command(
    cls=Examples,
    epilog="onnxprune inspect model.onnx\nonnxprune inspect model.onnx --groups --json model.json",
    short_help="Show what is in a model and what pruning could do.",
)
@click.argument("model", type=IN_FILE, metavar="MODEL.onnx")
@click.option("--groups", is_flag=True, help="List the groups of neurons that must go together.")
@json_option
@debug_option
def inspect(model: str, groups: bool, json_file: str | None) -> None:
    """Show the layers of MODEL.onnx: shapes, density, bytes, MACs; dead neurons; what is refused and why."""
    from ..analysis import analyze_file
    from ..serialize import write_json
    from .render_analysis import show_analysis

    analysis = analyze_file(model)
    if json_file:
        write_json(analysis, json_file)
    show_analysis(analysis, groups=groups)
