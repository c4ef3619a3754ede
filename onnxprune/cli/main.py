"""The entry point of the `onnxprune` command."""

from __future__ import annotations

import click

from .. import __version__
from .completion import completion
from .densify import densify
from .group import DefaultGroup
from .inspect import inspect
from .interrupt import listen
from .plot import plot
from .prune import prune
from .retrain import retrain
from .schema import schema
from .sensitivity import sensitivity
from .verify import verify

_EPILOG = """`onnxprune MODEL.onnx` is short for `onnxprune prune MODEL.onnx`; `onnxprune COMMAND --help`
explains a command. A model that is named like a command is written ./inspect.
Exit codes: 0 done, 1 a check or the run failed, 2 usage."""


@click.group(
    cls=DefaultGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="MODEL.onnx [OPTIONS] | COMMAND ...",
    options_metavar="",
    epilog=_EPILOG,
)
@click.version_option(__version__, prog_name="onnxprune")
def cli() -> None:
    """Make a trained ONNX model smaller: prune it, remove dead neurons, store it sparsely, and check the answers.

    The result is a file that stock onnxruntime runs.
    """


for _command in (prune, retrain, inspect, sensitivity, plot, verify, densify, schema, completion):
    cli.add_command(_command)


def main() -> None:
    """Run the command; a SIGTERM ends it as Ctrl-C does, with nothing left behind."""
    listen()
    cli()
