"""`onnxprune inspect`: what is in a model, and what pruning could do to it."""

from __future__ import annotations

import click

from .options import IN_FILE, OUT_FILE, Examples, data_options, debug_option, json_option

_EXAMPLES = """onnxprune inspect model.onnx
onnxprune inspect model.onnx --groups --json model.json
onnxprune inspect model.pruned.onnx --compare-gzip
onnxprune inspect small.onnx --dense model.onnx --data test.npz --markdown layers.md"""


@click.command(cls=Examples, epilog=_EXAMPLES, short_help="Show what is in a model and what pruning could do.")
@click.argument("model", type=IN_FILE, metavar="MODEL.onnx")
@click.option("--groups", is_flag=True, help="List the groups of neurons that must go together.")
@click.option(
    "--compare-gzip",
    is_flag=True,
    help="Compress encoded tensors as dense ones too, by gzip -9 and, with the package zstandard, zstd -19: slow.",
)
@click.option("--layers", is_flag=True, help="What each layer costs: weights, FLOPs, and what is left of them.")
@data_options("With --layers: measure activations on these: X.npz, FOLDER or module:function.")
@click.option("--samples", type=click.IntRange(min=1), metavar="N", help="On N samples, spread evenly.  [default: all]")
@click.option(
    "--dense", type=IN_FILE, metavar="FILE", help="With --layers: weights and FLOPs count against this file's."
)
@click.option("--markdown", type=OUT_FILE, metavar="FILE", help="Write the table of --layers as Markdown.")
@json_option
@debug_option
def inspect(
    model: str,
    groups: bool,
    compare_gzip: bool,
    layers: bool,
    data: str | None,
    data_option: tuple[str, ...],
    samples: int | None,
    dense: str | None,
    markdown: str | None,
    json_file: str | None,
) -> None:
    """Show the layers of MODEL.onnx: shapes, density, bytes, MACs; dead neurons; what is refused and why; how encoded
    tensors are stored, beside the entropy of their positions and values.

    --data, --dense and --markdown each ask for --layers, the table of Han et al. 2015: weights, FLOPs (2 x MACs), Act %
    (activations that are not zero, behind ReLU and pooling), Weights %, and FLOP % (Weights % x Act % of what a layer
    reads).
    """
    import msgspec
    from onnxprune_passes.errors import SelectionError

    from ..analysis import analyze_file
    from ..layers import DataSource, layer_table
    from ..serialize import write_json, write_text
    from .render_analysis import show_analysis
    from .render_layers import markdown_layers, show_layers

    if data is None and (samples is not None or data_option):
        raise SelectionError(f"{'--samples' if samples else '--data-option'} has no meaning without --data")
    analysis = analyze_file(model, compare=compare_gzip)
    if layers or data or dense or markdown:
        source = None if data is None else DataSource(data, data_option, samples)
        analysis = msgspec.structs.replace(analysis, layers=layer_table(model, source, dense=dense))
    if json_file:
        write_json(analysis, json_file)
    if analysis.layers is not None and markdown:
        write_text(markdown_layers(analysis.layers), markdown)
    show_analysis(analysis, groups=groups)
    if analysis.layers is not None:
        show_layers(analysis.layers)
