"""`onnxprune prune`, the main job, and what `onnxprune MODEL.onnx` means."""

from __future__ import annotations

from typing import Any

import click

from .channel_options import channel_options
from .options import IN_FILE, OUT_FILE, Examples, data_options, debug_option
from .train_options import rounds_options, split_training

_EPILOG = """
onnxprune model.onnx
onnxprune model.onnx --sparsity 0.9 -o small.onnx
onnxprune model.onnx --quality 1.0 --skip 'head.*' --data test.npz
onnxprune model.onnx --sparsity 0.8 --layer 'fc1.*=0.95' --json report.json
onnxprune model.onnx --channels 0.5 --round-to auto --data train.npz
onnxprune model.onnx --channels 0.5 --channel-kind head --channel-floor 4 --channel-layer 'layers.0.*=0.25'
onnxprune model.onnx --sparsity 0.95 --retrain --rounds 5 --epochs 3 --data train.npz --validation-data test.npz
onnxprune model.onnx --sparsity 0.9 --values shared:auto --values-max-drop 0.002 --data test.npz
onnxprune model.onnx --recipe recipe.yaml
"""


@click.command(cls=Examples, epilog=_EPILOG, short_help="Make a model smaller (the default command).")
@click.argument("model", type=IN_FILE, metavar="MODEL.onnx")
@click.option("-o", "--output", type=OUT_FILE, metavar="OUT.onnx", help="File to write.  [default: MODEL.pruned.onnx]")
@click.option("--sparsity", type=float, metavar="S", help="Zero this share of the weights, 0 <= S < 1.  [default: 0.5]")
@click.option("--quality", type=float, metavar="Q", help="Zero what is under Q x the standard deviation of its layer.")
@click.option("--threshold", type=float, metavar="T", help="Zero what is under T.")
@click.option("--nm", metavar="N:M", help="Keep the N largest of every M weights in a row, such as 2:4.")
@click.option(
    "--channels", type=float, metavar="C", help="Prune this share of the channels whole, 0 <= C < 1; alone, only them."
)
@channel_options
@click.option(
    "--recalibrate/--no-recalibrate",
    default=None,
    help="Estimate BatchNormalization statistics anew from --data.  [default: with --channels and --data]",
)
@click.option(
    "--scope",
    type=click.Choice(["global", "layer"]),
    help="With --sparsity or --channels: rank over all layers (default) or in each.",
)
@click.option(
    "--score", type=click.Choice(["lamp", "magnitude"]), help="With --sparsity: what is ranked.  [default: lamp]"
)
@click.option(
    "--layer",
    multiple=True,
    metavar="GLOB=V",
    help="Another value for some weights, in the unit of the mode; last match wins.",
)
@click.option("--only", multiple=True, metavar="GLOB", help="Prune only weights with such names.")
@click.option("--skip", multiple=True, metavar="GLOB", help="Leave weights with such names alone; wins over --only.")
@click.option("--embeddings/--no-embeddings", default=None, help="Prune embedding tables too.  [default: no]")
@click.option(
    "--fold/--no-fold", default=None, help="BatchNormalization goes into the weights before it.  [default: no]"
)
@click.option(
    "--shrink/--no-shrink",
    default=None,
    help="Remove dead neurons by rewriting shapes, and nodes that do nothing.  [default: yes]",
)
@click.option(
    "--values",
    metavar="V",
    help="Values of weights: f32 as they are; rounded to f16, bf16, or int8 by channel; shared:BITS, a codebook each; "
    "shared:auto, the fewest bits each within a budget measured on --data.  [default: f32]",
)
@click.option(
    "--values-max-drop",
    type=float,
    metavar="D",
    help="With --values shared:auto and labels: let the metric be D worse, in its own unit.  [default: 0.001]",
)
@click.option(
    "--values-max-error",
    type=float,
    metavar="E",
    help="With --values shared:auto: let outputs move by E of their root mean square.  [default: 0.05 without labels]",
)
@click.option(
    "--encode",
    type=click.Choice(["auto", "dense", "coo", "gaps", "bitmask", "rice", "2of4", "blocks"]),
    help="How pruned weights are stored; auto takes the smallest for each.  [default: auto]",
)
@click.option(
    "--inline/--no-inline",
    default=None,
    help="Decoders as plain nodes, not functions, for tools without those; 700 bytes more a weight.  [default: no]",
)
@click.option(
    "--keep-inputs/--no-keep-inputs", default=None, help="Weights that are graph inputs too stay so, and dense."
)
@rounds_options
@data_options("Inputs to verify on, with labels to measure accuracy: X.npz, FOLDER or module:function.")
@click.option("--check", type=int, metavar="N", help="Verify on N random batches; 0 does not verify.  [default: 2]")
@click.option("--seed", type=int, metavar="N", help="Seed of the random batches.  [default: 0]")
@click.option("--masks", type=IN_FILE, metavar="FILE.npz", help="Begin with these masks.")
@click.option(
    "--save-masks", type=OUT_FILE, metavar="FILE.npz", help="Write the masks, in the shapes of the input model."
)
@click.option(
    "--recipe", "recipe_file", type=IN_FILE, metavar="FILE", help="Options from a YAML file; the command line wins."
)
@click.option(
    "--json", type=OUT_FILE, metavar="FILE", help="Write the report as JSON ('onnxprune schema' prints its schema)."
)
@click.option("--quiet/--no-quiet", default=None, help="Show errors and warnings only.")
@click.option("--overwrite/--no-overwrite", default=None, help="Let the output be the input itself.")
@debug_option
@click.pass_context
def prune(ctx: click.Context, /, model: str, recipe_file: str | None, **options: Any) -> None:
    """Prune MODEL.onnx, remove dead neurons, store it sparsely, check that it gives the same answers.

    --sparsity, --quality, --threshold and --nm exclude each other; --channels goes before any of them, which then
    counts over what remains, or stands alone. The pruned model computes something else than the
    original; that difference is measured. All later steps must not change its answers, or no file is written.

    --retrain trains after pruning, in --rounds rounds, and takes every option of 'onnxprune retrain' (see its --help).
    """
    from ..recipe_yaml import read_recipe
    from ..resolve import options_from

    given, training = split_training(options)
    if training:
        given["training"] = training
    resolved = options_from(model, given, read_recipe(recipe_file) if recipe_file else None)
    from ..prune import prune_file
    from ..train_report import Stopped, Watch
    from . import interrupt
    from .progress import progress_bar
    from .render import show_report

    try:
        with progress_bar(quiet=resolved.quiet) as progress:
            watch = Watch(step=progress, stop=interrupt.was_received, guard=interrupt.noting)
            report = prune_file(resolved, progress, watch)
    except Stopped as stop:
        click.echo(f"interrupted: {stop}; the same command goes on from there", err=True)
        ctx.exit(interrupt.exit_code())
    show_report(report, quiet=resolved.quiet)
    ctx.exit(0 if report.status == "done" else 1)
