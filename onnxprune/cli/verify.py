"""`onnxprune verify`: do two models give the same answers?"""

from __future__ import annotations

import click

from .options import IN_FILE, Examples, data_options, debug_option, json_option


@click.command(
    cls=Examples,
    epilog="onnxprune verify model.onnx other.onnx\nonnxprune verify model.onnx other.onnx --data test.npz",
    short_help="Check that two models give the same answers.",
)
@click.argument("before", type=IN_FILE, metavar="A.onnx")
@click.argument("after", type=IN_FILE, metavar="B.onnx")
@data_options("Inputs, with labels to measure accuracy: X.npz, FOLDER or module:function.")
@click.option(
    "--check",
    type=click.IntRange(min=1),
    default=2,
    metavar="N",
    help="Number of random batches without --data.  [default: 2]",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, metavar="N", help="Seed of the random batches.  [default: 0]"
)
@json_option
@debug_option
@click.pass_context
def verify(
    ctx: click.Context,
    before: str,
    after: str,
    data: str | None,
    data_option: tuple[str, ...],
    check: int,
    seed: int,
    json_file: str | None,
) -> None:
    """Run A.onnx and B.onnx on the same inputs in onnxruntime, optimisations off and on, and compare their outputs.

    Exit code 0 when they agree within the tolerance of their number type, 1 when not.
    """
    from ..serialize import write_json
    from ..verification import verify_files
    from .progress import progress_bar
    from .render import show_verification

    with progress_bar(quiet=False) as progress:
        report = verify_files(
            before, after, data=data, data_options=data_option, check=check, seed=seed, progress=progress
        )
    if json_file:
        write_json(report, json_file)
    show_verification(report)
    ctx.exit(0 if report.verified else 1)
