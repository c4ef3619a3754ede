"""What several commands take: file names, `--debug`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from .group import DEBUG

Command = Callable[..., Any]


class FileName(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """A path; `-` is refused. Whether it exists is found out by whoever opens it."""

    name = "file"

    def __init__(self, stream: str) -> None:
        self._stream = stream

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The path as it was given."""
        if value == "-":
            self.fail(f"standard {self._stream} is not supported: give a file name", param, ctx)
        return str(value)

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        """Files of the current folder."""
        return [CompletionItem(incomplete, type="file")]


IN_FILE = FileName("input")
OUT_FILE = FileName("output")


def _remember_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[DEBUG] = True


def debug_option(command: Command) -> Command:
    """`--debug`: errors show their traceback."""
    return click.option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_remember_debug,
        help="Show the traceback of an error.",
    )(command)


def json_option(command: Command) -> Command:
    """`--json FILE`."""
    return click.option("--json", "json_file", type=OUT_FILE, metavar="FILE", help="Write the result as JSON too.")(
        command
    )


def data_options(purpose: str, *, required: bool = False) -> Callable[[Command], Command]:
    """`--data`, with what it is for, and `--data-option`."""

    def decorated(command: Command) -> Command:
        read = click.option(
            "--data-option",
            multiple=True,
            metavar="KEY=VALUE",
            help="How pictures and data sets are read: mean=…, std=…, scale=…, size=HxW, split=…, column.INPUT=…",
        )
        named = click.option("--data", type=IN_FILE, required=required, metavar="DATA", help=purpose)
        return named(read(command))

    return decorated


class Examples(click.Command):
    """A command whose epilog is shown as it is written: shell lines, one under the other."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """The examples."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.strip().splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line.strip()}\n")
