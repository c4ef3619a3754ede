"""The `onnxprune` command: `prune` is its default subcommand, and every error becomes one line.

Exit codes: 0 done, 1 a check failed or something went wrong, 2 usage, 130 interrupted.
"""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem
from onnxprune_passes.errors import OnnxPruneError, SelectionError

DEFAULT = "prune"
DEBUG = "onnxprune.debug"
_OWN_OPTIONS = ("-h", "--help", "--version")


class Failure(click.ClickException):
    """A one-line error, `error: MESSAGE` on stderr; exit code 1."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))

    def show(self, file: Any = None) -> None:
        """Print the line."""
        click.echo(f"error: {self.message}", file=file, err=file is None)


class UsageFailure(Failure):
    """The same for what the caller can put right on the command line; exit code 2."""

    exit_code = 2


class DefaultGroup(click.Group):
    """A group in which a first word that is no subcommand belongs to `prune`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default subcommand where none is named."""
        if args and args[0] not in self.commands and args[0] not in _OWN_OPTIONS:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand. Errors become one line, unless --debug asks for the traceback."""
        try:
            return super().invoke(ctx)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else ctx.command_path
            raise UsageFailure(f"{error.format_message().rstrip('.')} (see '{where} --help')") from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)
        except OnnxPruneError as error:
            if ctx.meta.get(DEBUG):
                raise
            raise (UsageFailure if isinstance(error, SelectionError) else Failure)(str(error)) from None
        except BrokenPipeError:
            raise
        except Exception as error:
            if ctx.meta.get(DEBUG):
                raise
            raise Failure(f"{type(error).__name__}: {error}; run again with --debug for the traceback") from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options of the default subcommand, then the subcommands."""
        self.commands[DEFAULT].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Subcommands, file names, and the options of the default subcommand."""
        prune = self.commands[DEFAULT]
        items = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            within = click.Context(prune, parent=ctx, info_name=DEFAULT, resilient_parsing=True)
            return items + prune.shell_complete(within, incomplete)
        return [CompletionItem(incomplete, type="file"), *items]  # bash drops what stands before a file entry
