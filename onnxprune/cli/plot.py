"""`onnxprune plot`: figures of models and of results."""

from __future__ import annotations

from pathlib import Path

import click

from .options import IN_FILE, OUT_FILE, Command, Examples, debug_option


@click.group(short_help="Draw masks, histograms, sensitivities and trade-offs.")
def plot() -> None:
    """Draw a figure to a .png or .svg file. Needs matplotlib (pip install onnxprune[plot])."""


def _output_option(command: Command) -> Command:
    return click.option(
        "-o", "--output", type=OUT_FILE, metavar="FILE", required=True, help="The .png or .svg file to draw to."
    )(command)


_weight_option = click.option(
    "--weight", metavar="GLOB", required=True, help="The weight to draw, such as 'fc1.weight'."
)


@plot.command(cls=Examples, epilog="onnxprune plot mask model.pruned.onnx --weight fc1.weight --band 28 -o mask.png")
@click.argument("model", type=IN_FILE, metavar="MODEL.onnx")
@_weight_option
@click.option(
    "--masks", type=IN_FILE, metavar="FILE.npz", help="Take what these masks prune for zero too (see --save-masks)."
)
@click.option("--band", type=click.IntRange(min=1), metavar="N", help="Mark every N inputs.")
@_output_option
@debug_option
def mask(model: str, weight: str, masks: str | None, band: int | None, output: str) -> None:
    """Which entries of a weight are kept: a row for each neuron, a column for each input."""
    from ..plots.figure import check_plot
    from ..plots.weights import plot_mask

    check_plot(output, "--output")
    plot_mask(model, weight, output, masks=masks, band=band)


@plot.command(
    cls=Examples, epilog="onnxprune plot histogram model.pruned.onnx --before model.onnx --weight fc1.weight -o h.svg"
)
@click.argument("model", type=IN_FILE, metavar="MODEL.onnx")
@_weight_option
@click.option("--before", type=IN_FILE, metavar="DENSE.onnx", help="Draw the same weight of this file above.")
@click.option("--bins", type=click.IntRange(min=1), default=101, metavar="N", help="Bins.  [default: 101]")
@_output_option
@debug_option
def histogram(model: str, weight: str, before: str | None, bins: int, output: str) -> None:
    """How the entries of a weight that are not zero are spread."""
    from ..plots.figure import check_plot
    from ..plots.weights import plot_histogram

    check_plot(output, "--output")
    plot_histogram(model, weight, output, before=before, bins=bins)


@plot.command("sensitivity", cls=Examples, epilog="onnxprune plot sensitivity model.sensitivity.json -o curves.svg")
@click.argument("result", type=IN_FILE, metavar="RESULT.json")
@_output_option
@debug_option
def sensitivity_curves(result: str, output: str) -> None:
    """The curves of a result of 'onnxprune sensitivity': the metric over the density of each layer."""
    import msgspec
    from onnxprune_passes.errors import DataError

    from ..plots.figure import check_plot
    from ..plots.sensitivity import plot_sensitivity
    from ..sensitivity import Sensitivity

    check_plot(output, "--output")
    try:
        found = msgspec.json.decode(Path(result).read_bytes(), type=Sensitivity)
    except OSError as error:
        raise DataError(f"{result} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise DataError(f"{result} is no result of 'onnxprune sensitivity' ({error}); give one") from error
    plot_sensitivity(found, output)


@plot.command(
    "trade-off",
    cls=Examples,
    epilog="onnxprune plot trade-off --curve 'one shot=s50.json,s80.json,s90.json' --curve rounds=rounds.json -o t.png",
)
@click.option(
    "--curve",
    "curves",
    multiple=True,
    required=True,
    metavar="LABEL=FILE,...",
    help="Reports of 'onnxprune MODEL --json', joined by a line; can be repeated.",
)
@click.option(
    "--untrained",
    multiple=True,
    metavar="LABEL=FILE,...",
    help="The same, of runs with --retrain: what was measured before each training.",
)
@click.option("--floor", type=float, metavar="C", help="The lowest change of the metric to show.")
@_output_option
@debug_option
def trade_off(curves: tuple[str, ...], untrained: tuple[str, ...], floor: float | None, output: str) -> None:
    """What pruning costs over how much is pruned: the change of the metric, from JSON reports."""
    from ..plots.figure import check_plot
    from ..plots.trade_off import plot_trade_off

    check_plot(output, "--output")
    before = _curves("--untrained", untrained)
    plot_trade_off(_curves("--curve", curves), output, untrained=before, floor=floor)


def _curves(option: str, entries: tuple[str, ...]) -> dict[str, list[str]]:
    """Label → files, of all entries with that label."""
    from onnxprune_passes.errors import SelectionError

    chosen: dict[str, list[str]] = {}
    for entry in entries:
        label, _, files = entry.partition("=")
        if not label or not files:
            raise SelectionError(f"{option} {entry!r} is not LABEL=FILE,..., such as 'one shot=a.json,b.json'")
        chosen.setdefault(label, []).extend(files.split(","))
    return chosen
