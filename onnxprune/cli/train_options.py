"""The options of a training, for every command that trains: a decorator each, in the order of the help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from .options import IN_FILE, OUT_FILE, Command, data_options

_DATA = (
    data_options("Samples: X.npz, FOLDER or module:function.", required=True),
    click.option(
        "--validation-data",
        metavar="DATA",
        help="Samples to measure on.  [default: those of --data for it, else a share of --data]",
    ),
    click.option(
        "--validation", type=float, metavar="S", help="The share of --data to measure on, 0 for none.  [default: 0.1]"
    ),
    click.option(
        "--metric", metavar="NAME", help="accuracy, top5, mse or module:function.  [default: accuracy; mse for values]"
    ),
)
_LOSS = (
    click.option(
        "--loss", metavar="NAME", help="ce, bce, mse, distill or module:function.  [default: by labels and teacher]"
    ),
    click.option(
        "--output-name",
        metavar="NAME",
        help="The value that loss and metric look at.  [default: output 0, the loss before its Softmax or Sigmoid]",
    ),
    click.option(
        "--label-smoothing", type=float, metavar="S", help="Of ce: this share of a label goes to all classes."
    ),
    click.option("--class-axis", type=int, metavar="N", help="Of ce: the axis of the classes, where two are possible."),
    click.option("--teacher", type=IN_FILE, metavar="DENSE.onnx", help="Learn from what this model answers."),
    click.option(
        "--teacher-in", type=click.Choice(["onnxruntime", "torch"]), help="What runs it.  [default: onnxruntime]"
    ),
    click.option("--temperature", type=float, metavar="T", help="Of distillation.  [default: 4]"),
    click.option(
        "--distill-weight", type=float, metavar="W", help="The teacher's share in the loss, 0 to 1.  [default: 0.9]"
    ),
    click.option(
        "--hard-loss", type=click.Choice(["ce", "bce", "mse"]), help="The loss of the labels beside the teacher's."
    ),
)
_STEPS = (
    click.option("--epochs", type=int, metavar="N", help="How often all samples are seen.  [default: 10]"),
    click.option("--batch-size", type=int, metavar="N", help="Samples a step, of all processes.  [default: 64]"),
    click.option("--optimizer", type=click.Choice(["sgd", "adamw"]), help="[default: sgd]"),
    click.option("--momentum", type=float, metavar="M", help="Of sgd.  [default: 0.9]"),
    click.option("--nesterov/--no-nesterov", default=None, help="Nesterov's momentum."),
    click.option("--lr", type=float, metavar="R", help="Learning rate.  [default: a tenth of --original-lr]"),
    click.option(
        "--original-lr",
        type=float,
        metavar="R",
        help="That of the original training.  [default: 0.01 for sgd, 0.001 for adamw]",
    ),
    click.option("--schedule", type=click.Choice(["constant", "cosine", "step", "rewind"]), help="[default: constant]"),
    click.option("--warmup", type=float, metavar="E", help="Epochs over which the rate rises.  [default: 0]"),
    click.option("--milestones", metavar="E,E,...", help="Of step: epochs at which the rate falls."),
    click.option("--gamma", type=float, metavar="G", help="Of step: by this factor.  [default: 0.1]"),
    click.option(
        "--original-schedule",
        type=click.Choice(["constant", "cosine", "step"]),
        help="Of rewind: what it replays.  [default: cosine]",
    ),
    click.option("--original-epochs", type=float, metavar="E", help="Of rewind: how long the original training was."),
)
_HOLDING_BACK = (
    click.option("--weight-decay", type=float, metavar="D", help="Of the optimizer.  [default: 0]"),
    click.option("--l1", type=float, metavar="S", help="Strength of a penalty on the weights' magnitudes."),
    click.option("--l2", type=float, metavar="S", help="The same on their squares."),
    click.option("--hoyer", type=float, metavar="S", help="The same on Hoyer's measure of how many count."),
    click.option("--clip-norm", type=float, metavar="N", help="Scale gradients down to this norm."),
    click.option(
        "--dropout",
        multiple=True,
        metavar="GLOB=RATE",
        help="Dropout on values, nodes or layers, its rate that of the dense model; weaker where weights are pruned.",
    ),
    click.option("--ema", type=float, metavar="D", help="Take the moving average of the values with this decay."),
)
_WHAT_TRAINS = (
    click.option(
        "--tie-values/--no-tie-values",
        default=None,
        help="Entries of a tensor that share a value go on sharing one, which trains.  [default: no]",
    ),
    click.option(
        "--train-only", type=click.Choice(["fc", "conv", "alternate"]), help="These layers, or both kinds in turns."
    ),
    click.option("--train", multiple=True, metavar="GLOB", help="Train tensors that look fixed too."),
    click.option("--freeze", multiple=True, metavar="GLOB", help="Leave tensors as they are."),
    click.option(
        "--batch-norm",
        type=click.Choice(["frozen", "train", "recalibrate"]),
        help="The statistics of BatchNormalization.  [default: frozen]",
    ),
)
_HOW = (
    click.option("--seed", type=int, metavar="N", help="Of order, validation share and dropout.  [default: 0]"),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="[default: auto]"),
    click.option("--threads", type=int, metavar="N", help="Of torch.  [default: its own choice]"),
    click.option("--amp", type=click.Choice(["bf16", "fp16"]), help="Compute in mixed precision."),
    click.option(
        "--channels-last/--no-channels-last",
        default=None,
        help="Lay images out with their channels last; with --amp much faster.  [default: no]",
    ),
    click.option("--patience", type=int, metavar="N", help="Stop when N epochs brought nothing better."),
    click.option(
        "--keep", type=click.Choice(["best", "last"]), help="The epoch whose values are written.  [default: best]"
    ),
    click.option(
        "--checkpoint",
        type=OUT_FILE,
        metavar="FOLDER",
        help="Where checkpoints go, to stay.  [default: OUT.checkpoint, which goes when all is done]",
    ),
    click.option("--checkpoint-steps", type=int, metavar="N", help="One every N steps, besides each epoch's."),
    click.option("--checkpoint-seconds", type=float, metavar="S", help="One every S seconds.  [default: 300]"),
    click.option("--restart", is_flag=True, default=None, help="Begin anew although there is a checkpoint."),
    click.option("--tensorboard", type=OUT_FILE, metavar="FOLDER", help="Write TensorBoard's logs there."),
)

TRAIN_OPTIONS: tuple[Callable[[Command], Command], ...] = (
    *_DATA,
    *_LOSS,
    *_STEPS,
    *_HOLDING_BACK,
    *_WHAT_TRAINS,
    *_HOW,
)


def train_options(command: Command) -> Command:
    """All options of a training."""
    for option in reversed(TRAIN_OPTIONS):
        command = option(command)
    return command


_ROUNDS = (
    click.option("--retrain", is_flag=True, default=None, help="Train after pruning, under the masks (needs PyTorch)."),
    click.option(
        "--rounds", type=int, metavar="N", help="With --retrain: prune and train N times, ever more.  [default: 1]"
    ),
    click.option(
        "--rounds-schedule",
        metavar="HOW",
        help="With --retrain: constant, cubic, or the target of each round, such as 0.5,0.8,0.9.  [default: constant]",
    ),
    click.option(
        "--rounds-epochs",
        metavar="N,N,...",
        help="With --retrain: the epochs of each round, such as 5,5,20.  [default: --epochs]",
    ),
    click.option(
        "--rounds-shrink/--no-rounds-shrink",
        default=None,
        help="With --retrain: take dead neurons out before each round trains; later rounds are faster.  [default: no]",
    ),
    click.option(
        "--max-drop",
        type=float,
        metavar="D",
        help="With --retrain: take the last round whose metric is at most D worse than the model's.",
    ),
)
_NOT_TRAINING = ("data", "data_option", "seed")
"""Options of a training that the main command has already."""


def rounds_options(command: Command) -> Command:
    """`--retrain` and what belongs to it; the options of the training itself are not listed in the help."""
    options: tuple[Callable[[Command], Command], ...] = (*_ROUNDS, *TRAIN_OPTIONS)
    for option in reversed(options):
        before = list(_parameters(command))
        command = option(command)
        added = _parameters(command)[len(before) :]
        for parameter in added if option in TRAIN_OPTIONS else ():
            if parameter.name in _NOT_TRAINING:
                _parameters(command).remove(parameter)
            elif isinstance(parameter, click.Option):
                parameter.hidden = True
    return command


def _parameters(command: Command) -> list[click.Parameter]:
    """The parameters that decorators have given a function so far, last first."""
    found: list[click.Parameter] = command.__dict__.setdefault("__click_params__", [])
    return found


def training_names() -> frozenset[str]:
    """The parameters that belong to a training alone."""

    def probe() -> None:
        """A function to hang options on."""

    train_options(probe)
    names = {parameter.name for parameter in _parameters(probe) if parameter.name is not None}
    return frozenset(names.difference(_NOT_TRAINING))


def split_training(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the command line gave for the run, and for its training, by option name."""
    own = training_names()
    training = given_options({name: value for name, value in options.items() if name in own})
    return given_options({name: value for name, value in options.items() if name not in own}), training


def given_options(options: dict[str, Any]) -> dict[str, Any]:
    """What the command line gave, by option name; `--milestones` as numbers."""
    given = {name.replace("_", "-"): value for name, value in options.items() if value not in (None, ())}
    if "milestones" in given:
        try:
            given["milestones"] = [float(one) for one in str(given["milestones"]).split(",")]
        except ValueError:
            raise click.UsageError(f"--milestones {given['milestones']!r} is no list of epochs such as 30,60") from None
    return given
