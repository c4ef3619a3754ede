"""`onnxprune completion`: the script that teaches a shell to complete."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .options import Examples, debug_option

_ACTIVATE = {
    "bash": "onnxprune completion bash > ~/.onnxprune-complete.bash, then in ~/.bashrc: . ~/.onnxprune-complete.bash",
    "zsh": "onnxprune completion zsh > ~/.onnxprune-complete.zsh, then in ~/.zshrc: . ~/.onnxprune-complete.zsh",
    "fish": "onnxprune completion fish > ~/.config/fish/completions/onnxprune.fish",
}


@click.command(cls=Examples, epilog="\n".join(_ACTIVATE.values()), short_help="Print a shell's completion script.")
@click.argument("shell", type=click.Choice(list(_ACTIVATE)))
@debug_option
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL."""
    kind = get_completion_class(shell)
    assert kind is not None  # every choice is a shell that click knows
    source = kind(ctx.find_root().command, {}, "onnxprune", "_ONNXPRUNE_COMPLETE").source()
    click.echo(f"# To switch it on: {_ACTIVATE[shell]}\n{source}")
