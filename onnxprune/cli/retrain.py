"""`onnxprune retrain`: train what a prune left, and write it back into the same graph."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from .group import Failure
from .options import IN_FILE, OUT_FILE, Examples, debug_option
from .train_options import given_options, train_options

_EPILOG = """
onnxprune retrain model.pruned.onnx --data train.npz
onnxprune retrain model.pruned.onnx --data train.npz --validation-data test.npz --epochs 20 --lr 0.005 --schedule cosine
onnxprune retrain model.pruned.onnx --data images/ --teacher model.onnx -o small.onnx
torchrun --nproc-per-node 2 -m onnxprune retrain model.pruned.onnx --data train.npz
"""


@click.command(cls=Examples, epilog=_EPILOG, short_help="Train what a prune left, under its masks.")
@click.argument("model", type=IN_FILE, metavar="MODEL.onnx")
@click.option(
    "-o", "--output", type=OUT_FILE, metavar="OUT.onnx", help="File to write.  [default: MODEL.retrained.onnx]"
)
@train_options
@click.option("--masks", type=IN_FILE, metavar="FILE.npz", help="Hold these entries at zero, besides those that are.")
@click.option(
    "--encode",
    type=click.Choice(["auto", "dense", "coo", "gaps", "bitmask", "rice", "2of4", "blocks"]),
    help="How pruned weights are stored.  [default: auto where the input was encoded, else dense]",
)
@click.option("--check/--no-check", default=None, help="Compare the file with torch in onnxruntime.  [default: yes]")
@click.option("--json", type=OUT_FILE, metavar="FILE", help="Write the report as JSON.")
@click.option("--quiet/--no-quiet", default=None, help="Show errors and warnings only.")
@click.option("--overwrite/--no-overwrite", default=None, help="Let the output be the input itself.")
@debug_option
@click.pass_context
def retrain(ctx: click.Context, /, model: str, **options: Any) -> None:
    """Train the weights of MODEL.onnx that are not zero, and write them back into the same graph.

    Zeros stay zero. Names, shapes and everything else of the file stay. The same command goes on where a run was
    interrupted. Needs PyTorch (pip install onnxprune[torch]).
    """
    from ..train_recipe import retrain_options_from
    from ..train_report import Stopped, Watch
    from . import interrupt
    from .progress import progress_bar
    from .render_training import epoch_line, show_training

    resolved = retrain_options_from(model, given_options(options))
    try:
        from ..torch.retrain_file import retrain_file
    except ImportError as error:
        raise Failure(str(error)) from None
    is_main = os.environ.get("RANK", "0") == "0"
    quiet = resolved.quiet or not is_main
    lines = not quiet and not sys.stderr.isatty()
    try:
        with progress_bar(quiet=quiet) as progress:
            watch = Watch(
                step=progress,
                epoch=lambda one: click.echo(epoch_line(one, resolved), err=True) if lines else None,
                stop=interrupt.was_received,
                guard=interrupt.noting,
            )
            report = retrain_file(resolved, watch)
    except Stopped as stop:
        if is_main:
            click.echo(f"interrupted: {stop}; the same command goes on from there", err=True)
        ctx.exit(interrupt.exit_code())
    if is_main:
        show_training(report, quiet=resolved.quiet)
    _leave(0 if report.status == "done" else 1, ctx)


def _leave(code: int, ctx: click.Context) -> None:
    """End the process; one of several at once, since gloo's threads now and then abort an orderly end."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    ctx.exit(code)
