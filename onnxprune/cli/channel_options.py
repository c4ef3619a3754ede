"""What says how `--channels` chooses."""

from __future__ import annotations

import click

from .options import Command

_OPTIONS = (
    click.option(
        "--round-to",
        type=click.Choice(["1", "4", "8", "16", "auto"]),
        callback=lambda _ctx, _param, value: int(value) if value and value.isdigit() else value,
        help="With --channels: keep a multiple of this in each group; auto measures which is fastest.  [default: 8]",
    ),
    click.option(
        "--round-threads",
        type=int,
        metavar="N",
        help="With --round-to auto: threads of onnxruntime while it measures.  [default: 1]",
    ),
    click.option(
        "--channel-score",
        type=click.Choice(["norm", "batchnorm"]),
        help="With --channels: rank by the norm of the weights, or by BatchNormalization scale where there is one.  "
        "[default: norm]",
    ),
    click.option("--channel-norm", type=click.Choice(["l1", "l2"]), help="With --channels: which norm.  [default: l2]"),
    click.option(
        "--channel-reduce",
        type=click.Choice(["sum", "mean"]),
        help="With --channels: over the weights of a channel.  [default: sum]",
    ),
    click.option(
        "--channel-floor",
        type=int,
        metavar="N",
        help="With --channels: keep at least N channels of each group.  [default: 1]",
    ),
    click.option(
        "--channel-kind",
        multiple=True,
        type=click.Choice(["conv", "fc", "rnn", "embedding", "head"]),
        help="With --channels: only channels of this kind, such as whole attention heads; may be given again.",
    ),
    click.option(
        "--channel-layer",
        multiple=True,
        metavar="GLOB=C",
        help="With --channels: another share for groups made by some weights, such as 'conv1.*=0.25'; last match wins.",
    ),
    click.option(
        "--channel-reads",
        type=click.Choice(["auto", "always", "never"]),
        help="With --channels: leave channels that stay where they are made unread by the weights behind them, through "
        "a Gather.  [default: auto, where no channels may go whole]",
    ),
)


def channel_options(command: Command) -> Command:
    """The options, in the order of this file."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
