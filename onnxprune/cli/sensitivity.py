"""`onnxprune sensitivity`: how far each layer can be pruned by itself."""

from __future__ import annotations

from typing import Any

import click

from .options import IN_FILE, OUT_FILE, Examples, data_options, debug_option

_EXAMPLES = """onnxprune sensitivity model.onnx --data test.npz
onnxprune sensitivity model.onnx --data test.npz --densities 1,0.5,0.2,0.1 --max-drop 0.005 --plot curves.svg
onnxprune sensitivity model.onnx --data test.npz --groups --jobs 4"""


@click.command(cls=Examples, epilog=_EXAMPLES, short_help="Measure how far each layer can be pruned by itself.")
@click.argument("model", type=IN_FILE, metavar="MODEL.onnx")
@data_options("Samples, with labels: X.npz, FOLDER or module:function.", required=True)
@click.option(
    "--metric", default="accuracy", metavar="NAME", help="accuracy, top5, mse or module:function.  [default: accuracy]"
)
@click.option("--densities", metavar="D,D,...", help="The densities to measure.  [default: 1 down to 0.02]")
@click.option("--groups", is_flag=True, help="Measure coupled groups of channels too.")
@click.option("--only", multiple=True, metavar="GLOB", help="Measure these weights only; can be repeated.")
@click.option("--skip", multiple=True, metavar="GLOB", help="Leave these weights out; can be repeated.")
@click.option(
    "--max-drop",
    type=float,
    metavar="D",
    help="Suggest, for each layer, the sparsest point that is at most D worse, in the metric's unit.  [default: 0.01]",
)
@click.option("--samples", type=int, metavar="N", help="Measure on N samples, spread evenly.  [default: all]")
@click.option(
    "--batch", type=int, metavar="N", help="Samples a batch, where the model leaves that open.  [default: 64]"
)
@click.option("--output-name", "output", metavar="NAME", help="The output that is measured.  [default: the first]")
@click.option("--jobs", type=int, metavar="N", help="Processes, one thread each.  [default: one a core]")
@click.option("--json", type=OUT_FILE, metavar="FILE", help="Where the result goes.  [default: MODEL.sensitivity.json]")
@click.option("--plot", type=OUT_FILE, metavar="FILE", help="Draw the curves to a .png or .svg (needs matplotlib).")
@click.option("--overwrite", is_flag=True, help="Begin anew instead of going on where an interrupted run stopped.")
@click.option("-q", "--quiet", is_flag=True, help="Show errors only.")
@debug_option
def sensitivity(model: str, quiet: bool, densities: str | None, **given: Any) -> None:
    """Prune one weight of MODEL.onnx after the other, all others dense, and measure the metric in onnxruntime.

    Suggests a quality parameter for each layer: prune with them by --quality 1 --layer NAME=Q. What was measured stays
    when a run is interrupted; the same command goes on.
    """
    from ..plots.figure import check_plot
    from ..plots.sensitivity import plot_sensitivity
    from ..sensitivity import measure_sensitivity
    from ..sensitivity.options import options_from
    from .progress import progress_bar
    from .render_sensitivity import show_sensitivity

    options = options_from(model, densities, given)
    if options.plot is not None:
        check_plot(options.plot)
    with progress_bar(quiet=quiet) as progress:
        result = measure_sensitivity(options, progress)
    if options.plot is not None:
        plot_sensitivity(result, options.plot)
    if not quiet:
        show_sensitivity(result)
