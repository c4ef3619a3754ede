"""`onnxprune densify`: back to plain initializers."""

from __future__ import annotations

import click

from .options import IN_FILE, OUT_FILE, Examples, debug_option


@click.command(
    cls=Examples,
    epilog="onnxprune densify model.pruned.onnx -o model.dense.onnx",
    short_help="Undo every encoding.",
)
@click.argument("model", type=IN_FILE, metavar="A.onnx")
@click.option("-o", "--output", type=OUT_FILE, required=True, metavar="B.onnx", help="File to write.")
@click.option("--overwrite", is_flag=True, help="Let the output be the input itself.")
@debug_option
def densify(model: str, output: str, overwrite: bool) -> None:
    """Write A.onnx to B.onnx with every encoded tensor as a plain initializer again, byte for byte."""
    from ..prune import densify_file

    done = densify_file(model, output, overwrite=overwrite)
    click.echo(f"{output}: {done.tensors} encoded tensors made dense, {done.nbytes:,} bytes")
