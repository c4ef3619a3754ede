"""What a training is asked to do, and what one run of `onnxprune retrain` is asked to do besides.

`TrainRecipe` holds the options of the training itself, so that other commands can take the same ones. `None` means
"not given"; `resolved` fills in what was left open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from onnxprune_passes.errors import SelectionError

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]

LOSSES = ("ce", "bce", "mse", "distill")


class TrainRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """The options of a training.

    Attributes:
        data: what to train on: an `.npz`, a folder of class folders of images, a Hugging Face dataset on disk, or
            `module:function`; see `onnxprune.samples`.
        data_option: "KEY=VALUE" each: how `data` and `validation_data` are read.
        validation_data: the same for what the metric is measured on; None takes what `data` holds for it, or
            `validation` of `data`.
        validation: the share of `data` that is kept for the metric, chosen by `seed`; 0 measures nothing.
        metric: `accuracy`, `top5`, `mse` or `module:function`; None takes accuracy for class labels, else mse.
        loss: `ce`, `bce`, `mse`, `distill` or `module:function`; None takes `distill` where there is a teacher, `ce`
            for class labels, `bce` for others behind a Sigmoid, else `mse`.
        output_name: the value of the graph that the loss and the metric look at; None takes output 0, and for every
            loss but `mse` what stands before its Softmax, LogSoftmax or Sigmoid.
        label_smoothing: of `ce`.
        class_axis: of `ce`, where the shapes leave two possible.
        teacher: the dense model that `distill` learns from, a file.
        teacher_in: what runs the teacher.
        temperature: of `distill`.
        distill_weight: the share of the teacher in `distill`; 1 where there are no labels.
        hard_loss: the loss of the labels in `distill`: `ce`, `bce` or `mse`; None chooses as for `loss`.
        optimizer: `sgd` or `adamw`.
        lr: the learning rate that the schedule multiplies.
        original_lr: the learning rate of the original training: a tenth of it is taken, or all with `rewind`; None
            and no `lr` take what is customary, 0.01 for sgd and 0.001 for adamw, for the original one.
        momentum: of `sgd`.
        nesterov: whether it is Nesterov's.
        weight_decay: of the optimizer, on everything that is trained.
        schedule: `constant`; `cosine` (to 0 at the end); `step` (by `gamma` at each of `milestones`); `rewind` (the
            last epochs of the original schedule once more).
        warmup: epochs over which the rate rises, at the beginning (of the original schedule with `rewind`).
        milestones: of `step`, in epochs.
        gamma: of `step`.
        original_schedule: what `rewind` replays: `constant`, `cosine` or `step`.
        original_epochs: how long the original training was, for `rewind`.
        epochs: how often all samples are seen.
        batch_size: samples in a step, of all processes together.
        l1, l2, hoyer: strengths of the penalties on what is trained; 0 leaves one out.
        clip_norm: the gradients' norm is cut to this.
        dropout: "GLOB=RATE" each: a value or layer, and its dropout in the dense model; it shrinks with the density.
        tie_values: entries of a tensor that share a value (`--values shared`) go on sharing one, which trains.
        train_only: `fc` or `conv` layers, or the two in turns.
        batch_norm: `frozen` (the file's statistics), `train` (those of the batches), or `recalibrate` (measured anew
            before the first epoch and after each).
        train: globs of tensors to train although they look like fixed ones.
        freeze: globs of tensors not to train.
        channels_last: lay images and the weights of 2-D convolutions out in memory with their channels last.
        amp: `bf16` or `fp16`: torch.autocast to it.
        ema: the decay of an exponential moving average of the values, which is then what is measured and written.
        seed: of the order of samples, the validation share and dropout.
        threads: of torch; None leaves its default.
        device: `cpu`, `cuda`, or `auto`: cuda when there is one.
        patience: stop when the metric was not better for so many epochs.
        keep: write the values of the `best` epoch by the metric, or the `last`; None is best where one is measured.
        checkpoint: a folder for checkpoints, kept; None takes one beside the output, removed when all is done.
        checkpoint_steps: write one every so many steps, beside those at the end of epochs.
        checkpoint_seconds: the same by time.
        restart: begin anew although there is a checkpoint.
        tensorboard: a folder for TensorBoard's logs.
    """

    data: str
    data_option: tuple[str, ...] = ()
    validation_data: str | None = None
    validation: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    metric: str | None = None
    loss: str | None = None
    output_name: str | None = None
    label_smoothing: Annotated[float, msgspec.Meta(ge=0, lt=1)] | None = None
    class_axis: int | None = None
    teacher: str | None = None
    teacher_in: Literal["onnxruntime", "torch"] = "onnxruntime"
    temperature: Positive | None = None
    distill_weight: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    hard_loss: Literal["ce", "bce", "mse"] | None = None
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Positive | None = None
    original_lr: Positive | None = None
    momentum: Annotated[float, msgspec.Meta(ge=0, lt=1)] | None = None
    nesterov: bool = False
    weight_decay: NotNegative = 0.0
    schedule: Literal["constant", "cosine", "step", "rewind"] = "constant"
    warmup: NotNegative = 0.0
    milestones: tuple[Positive, ...] = ()
    gamma: Positive | None = None
    original_schedule: Literal["constant", "cosine", "step"] | None = None
    original_epochs: Positive | None = None
    epochs: Count = 10
    batch_size: Count = 64
    l1: NotNegative = 0.0
    l2: NotNegative = 0.0
    hoyer: NotNegative = 0.0
    clip_norm: Positive | None = None
    dropout: tuple[str, ...] = ()
    tie_values: bool = False
    train_only: Literal["fc", "conv", "alternate"] | None = None
    batch_norm: Literal["frozen", "train", "recalibrate"] = "frozen"
    train: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    channels_last: bool = False
    amp: Literal["bf16", "fp16"] | None = None
    ema: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    threads: Count | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    patience: Count | None = None
    keep: Literal["best", "last"] | None = None
    checkpoint: str | None = None
    checkpoint_steps: Count | None = None
    checkpoint_seconds: Positive = 300.0
    restart: bool = False
    tensorboard: str | None = None


class RetrainOptions(TrainRecipe, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """One run of `onnxprune retrain`.

    Attributes:
        model: the file to retrain.
        output: the file to write; `MODEL.retrained.onnx` when None.
        masks: an `.npz` of masks; zeros of the file's weights count as pruned besides.
        encode: how pruned tensors are stored; None is `auto` where the input was encoded, else `dense`.
        check: compare the written file with torch in onnxruntime.
        json: where to write the report.
        quiet: show errors and warnings only.
        overwrite: the output may be the input itself.
    """

    model: str
    output: str | None = None
    masks: str | None = None
    encode: Literal["auto", "dense", "coo", "gaps", "bitmask", "rice", "2of4", "blocks"] | None = None
    check: bool = True
    json: str | None = None
    quiet: bool = False
    overwrite: bool = False

    @property
    def recipe(self) -> TrainRecipe:
        """The options of the training alone."""
        return TrainRecipe(**{name: getattr(self, name) for name in TrainRecipe.__struct_fields__})


FREE_IN_A_RESUME = frozenset(
    {
        *("data", "data-option", "validation-data", "threads", "device", "tensorboard"),
        *("checkpoint", "checkpoint-steps", "checkpoint-seconds", "restart"),
    }
)
"""Options that a resumed run may give otherwise: samples are told by their content, the others change no choice."""


def retrain_options_from(model: str, given: Mapping[str, Any]) -> RetrainOptions:
    """The resolved options of a run of `onnxprune retrain`.

    Args:
        model: the model's path.
        given: by option name without dashes; options that were not given are absent.

    Raises:
        SelectionError: a value is out of range, or options contradict each other; a usage error.
    """
    try:
        options = msgspec.convert({**given, "model": model}, RetrainOptions)
    except msgspec.ValidationError as error:
        raise SelectionError(_plain(str(error))) from error
    check_recipe(options)
    path = Path(model)
    output = str(path.with_name(f"{path.name.removesuffix('.onnx')}.retrained.onnx"))
    return msgspec.structs.replace(options, output=options.output or output)


def check_recipe(recipe: TrainRecipe) -> None:
    """Raise SelectionError when options contradict each other, or one has no meaning beside the others."""
    given = msgspec.to_builtins(recipe)
    for name, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise SelectionError(f"--{name} must be a finite number")
    if recipe.loss is not None and recipe.loss not in LOSSES and ":" not in recipe.loss:
        raise SelectionError(f"--loss {recipe.loss!r} is unknown: choose {', '.join(LOSSES)}, or module:function")
    if recipe.loss == "distill" and recipe.teacher is None:
        raise SelectionError("--loss distill needs --teacher, the file of the dense model to learn from")
    if recipe.lr is not None and recipe.original_lr is not None:
        raise SelectionError("--lr and --original-lr exclude each other: give one of them")
    if recipe.schedule == "rewind" and recipe.original_epochs is None:
        raise SelectionError("--schedule rewind needs --original-epochs, the length of the original training")
    _check_idle(recipe, given)
    for entry in recipe.dropout:
        split_dropout(entry)


def _check_idle(recipe: TrainRecipe, given: Mapping[str, Any]) -> None:
    """Raise SelectionError for an option that nothing would read."""
    defaults = {field.encode_name: field.default for field in msgspec.structs.fields(TrainRecipe)}
    measured = recipe.validation > 0 or recipe.validation_data is not None
    shape = recipe.original_schedule if recipe.schedule == "rewind" else recipe.schedule
    sgd, stepped = recipe.optimizer == "sgd", shape == "step"
    needs = (
        (("momentum",), sgd, "--optimizer sgd"),
        (("nesterov",), sgd and recipe.momentum != 0, "--optimizer sgd and a momentum"),
        (("teacher-in", "temperature", "distill-weight", "hard-loss"), recipe.teacher is not None, "--teacher"),
        (("teacher",), recipe.loss not in ("ce", "bce", "mse"), "--loss distill"),
        (("milestones", "gamma"), stepped, "--schedule step"),
        (("original-schedule", "original-epochs"), recipe.schedule == "rewind", "--schedule rewind"),
        (("patience", "metric"), measured, "--validation or --validation-data"),
        (("keep",), measured or recipe.keep != "best", "--validation or --validation-data"),
    )
    for names, is_read, what in needs:
        for name in names:
            if not is_read and given[name] != defaults[name]:
                raise SelectionError(f"--{name} has no meaning without {what}: leave it out, or give that too")
    if stepped and not recipe.milestones:
        raise SelectionError("--schedule step needs --milestones, the epochs at which the rate falls, such as 30,60")


def split_dropout(entry: str) -> tuple[str, float]:
    """The glob and rate of "GLOB=RATE", split at the last "=". Raises SelectionError."""
    glob, equals, text = entry.rpartition("=")
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not equals or not glob or not 0 <= rate < 1:
        raise SelectionError(f"--dropout {entry!r} is not GLOB=RATE with 0 <= RATE < 1, such as 'fc1*=0.5'")
    return glob, rate


def _plain(message: str) -> str:
    """Msgspec's message, naming the option first."""
    what, _, where = message.partition(" - at `$.")
    name = where.rstrip("`").split("[")[0]
    if not name:
        return message
    return f"--{name}: {what[0].lower()}{what[1:].replace(' | null', '')}".replace("`", "")
