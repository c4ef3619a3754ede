"""Whether a chain of models, each made from the one before, gives the same answers: which runs, what has to hold.

Every model is loaded once for each level of graph optimisation, one session after the other:

    original ── measured ──> output          what pruning did to the answers, and to the accuracy
    original ── measured ──> pruned
    pruned ── within tolerance ──> folded    with --fold only
    folded ── within tolerance ──> shrunk
    shrunk ── measured ──> rounded           with --values only: what that did to the answers
    rounded ── within tolerance ──> dense    only where encoding changed the graph (another opset, fewer inputs)
    dense ── equal ──> encoded               with optimisations off within tolerance: nothing is prepacked there

A link between two names for one and the same file is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from onnxprune_passes.errors import OnnxPruneError, VerifyError
from onnxprune_passes.model import Model
from onnxprune_passes.storage import load
from onnxprune_passes.weights import find_weights

from .feeds import Feeds, synthesize_feeds
from .records import Accuracy, Comparison, OutputDifference, Wanted, finite, tools
from .report import VerifyReport
from .runtime import NoKernelError, input_specs
from .samples import feeds_from_data
from .steps import Progress, Steps, silent
from .verify import Comparison as Found
from .verify import Reference, compare_references, float32_copy, run_all
from .verify.quantised import quantised_steps
from .verify.scores import correct, scored_output

_COARSENESS = ("float64", "float32", "float16", "bfloat16", "int8")


@dataclass(frozen=True)
class Link:
    """Two models to compare, by name. `exact`: equal at the default level; `checked` False: only measured."""

    before: str
    after: str
    checked: bool = True
    exact: bool = False


@dataclass(frozen=True)
class Source:
    """Where inputs come from: what `data` names, read as `data_options` say, or `check` batches drawn with `seed`.

    `training`: of data that has samples to train on and others to validate on, those to train on.
    """

    data: str | None
    data_options: tuple[str, ...] = ()
    check: int = 2
    seed: int = 0
    training: bool = False


@dataclass(frozen=True)
class Inputs:
    """What models are run on, and as what.

    `float32` says that copies cast to float32 run instead, because onnxruntime has no kernels for the models' own type.
    """

    feeds: Feeds
    float32: bool = False


@dataclass(frozen=True)
class Outcome:
    """What the runs showed. `problems` is empty when everything that had to hold holds."""

    comparisons: tuple[Comparison, ...]
    problems: tuple[str, ...]
    accuracy: Accuracy | None
    notes: tuple[str, ...]


def inputs_for(model: str | Path, folder: Path, source: Source) -> Inputs:
    """What to run `model` and its successors on.

    `folder` takes a copy of the model cast to float32, where one is needed.
    Raises DataError when nothing fits, and what onnxruntime says of a model it does not load.
    """
    try:
        return Inputs(_feeds(model, source))
    except NoKernelError:
        return Inputs(_feeds(cast_to_float32(model, folder), source), float32=True)


def cast_to_float32(model: str | Path, folder: Path) -> Path:
    """A copy of the file `model` that computes in float32, in the place of the one before it."""
    copy = folder / "float32.onnx"
    copy.with_name(f"{copy.name}.data").unlink(missing_ok=True)
    float32_copy(model, copy)
    return copy


def _feeds(model: str | Path, source: Source) -> Feeds:
    if source.data:
        return feeds_from_data(source.data, input_specs(model), source.data_options, training=source.training)
    return synthesize_feeds(model, source.check, source.seed)


def precision_of(model: Model) -> str:
    """The coarsest number type among the weights of `model`; "int8" when they are quantised."""
    weights = find_weights(model, embeddings=True)
    names = {"int8" if weight.quantised else weight.dtype.name for weight in weights}
    return max((name for name in names if name in _COARSENESS), key=_COARSENESS.index, default="float32")


def check_links(
    files: Mapping[str, Path],
    links: tuple[Link, ...],
    inputs: Inputs,
    precision: str,
    steps: Steps,
    *,
    measured: tuple[str, str],
    folder: Path,
) -> Outcome:
    """Run every model of `files` (name → file) at both levels and compare along `links`.

    Args:
        precision: of the weights; tolerances depend on it.
        measured: the two models whose accuracy is taken, where the feeds have labels.
        folder: for copies cast to float32.

    Raises:
        VerifyError: a model does not load or run, though the first one does; names it.
    """
    precision = "float32" if inputs.float32 else precision
    grid = quantised_steps(next(iter(files.values()))) if precision == "int8" else {}
    runs = {optimize: _runs(files, inputs, optimize, steps, folder) for optimize in (False, True)}
    comparisons: list[Comparison] = []
    problems: list[str] = []
    notes: dict[str, None] = {}
    own = {link.before: compare_references(runs[False][link.before], runs[True][link.before]) for link in links}
    for optimize, references in runs.items():
        for link in links:
            found = replace(compare_references(references[link.before], references[link.after]), steps=grid)
            exact = link.exact and optimize
            lines = found.failures(precision, exact=exact) if link.checked else ()
            comparisons.append(_comparison(link, found, own[link.before], exact, lines))
            amplified = f"; the {link.before} model is {own[link.before].max_error:.2g} off itself between the levels"
            problems += [f"{link.before} -> {link.after}: {line}{'' if exact else amplified}" for line in lines]
            notes.update(dict.fromkeys(found.notes))
    accuracy = _accuracy(runs[True][measured[0]], runs[True][measured[1]], inputs.feeds)
    return Outcome(tuple(comparisons), tuple(problems), accuracy, tuple(notes))


def _comparison(link: Link, found: Found, own: Found, exact: bool, problems: tuple[str, ...]) -> Comparison:
    """The report's form of what was found along `link`; `own` is its first model at one level against the other."""
    wanted: Wanted = "measured" if not link.checked else "equal" if exact else "within tolerance"
    rounding = {output.name: finite(output.max_error) for output in own.outputs}
    outputs = tuple(
        OutputDifference(
            output=output.name,
            dtype=output.dtype,
            max_error=finite(output.max_error),
            mean_error=finite(output.mean_error),
            rounding=rounding.get(output.name),
            equal=output.equal,
            agreement=output.agreement,
        )
        for output in found.outputs
    )
    return Comparison(link.before, link.after, "default" if found.optimize else "off", wanted, outputs, problems)


def _runs(
    files: Mapping[str, Path], inputs: Inputs, optimize: bool, steps: Steps, folder: Path
) -> dict[str, Reference]:
    """The outputs of each model; a file that has two names runs once."""
    done: dict[Path, Reference] = {}
    level = "default optimisations" if optimize else "optimisations off"
    for name, file in files.items():
        if file in done:
            continue
        with steps.step("verify", f"{name} model, {level}"):
            try:
                done[file] = _run(file, inputs, optimize, folder)
            except OnnxPruneError as error:
                raise VerifyError(f"the {name} model cannot be run: {str(error).removeprefix(f'{file}: ')}") from error
    return {name: done[file] for name, file in files.items()}


def _run(file: Path, inputs: Inputs, optimize: bool, folder: Path) -> Reference:
    if not inputs.float32:
        return run_all(file, inputs.feeds, optimize=optimize)
    return run_all(cast_to_float32(file, folder), inputs.feeds, optimize=optimize)


def _accuracy(before: Reference, after: Reference, feeds: Feeds) -> Accuracy | None:
    if not feeds.labels:
        return None
    name = scored_output(before.outputs[0], feeds.labels[0])
    samples = sum(labels.size for labels in feeds.labels)
    if name is None or not samples:
        return None
    right = [
        sum(correct(batch[name], labels) for batch, labels in zip(run.outputs, feeds.labels, strict=True))
        for run in (before, after)
    ]
    return Accuracy(name, samples, right[0] / samples, right[1] / samples)


def accuracy_note(data: str | None, feeds: Feeds, accuracy: Accuracy | None) -> str | None:
    """Why accuracy was not measured; None when it was."""
    if accuracy is not None:
        return None
    if data is None:
        return "accuracy was not measured: no --data was given"
    if not feeds.labels:
        return f"accuracy was not measured: {data} has no class labels"
    return "accuracy was not measured: no output has one row of class scores for each label"


def verify_files(
    before: str,
    after: str,
    *,
    data: str | None = None,
    data_options: tuple[str, ...] = (),
    check: int = 2,
    seed: int = 0,
    progress: Progress = silent,
) -> VerifyReport:
    """Run two model files on the same inputs and compare their outputs, optimisations off and on.

    Args:
        before: the model that says what is right, and how large its outputs are.
        after: the model to check.
        data: where inputs come from (`onnxprune.samples.read_pair`); else `check` batches are drawn with `seed`.
        data_options: "KEY=VALUE" each: how `data` is read.

    Raises:
        ModelError, DataError, VerifyError: one of the models, or `data`, cannot be read or run.
        SelectionError: options that `data` does not read.
    """
    import tempfile

    steps = Steps(6, progress)
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as temporary:
        folder = Path(temporary)
        model = load(before)
        load(after)
        with steps.step("choose inputs"):
            inputs = inputs_for(before, folder, Source(data, data_options, check, seed))
        files = {before: Path(before), after: Path(after)}
        outcome = check_links(
            files, (Link(before, after),), inputs, precision_of(model), steps, measured=(before, after), folder=folder
        )
    return VerifyReport(
        verified=not outcome.problems,
        tools=tools(),
        before=before,
        after=after,
        inputs_from=described(inputs),
        comparisons=outcome.comparisons,
        problems=outcome.problems,
        accuracy=outcome.accuracy,
        accuracy_note=accuracy_note(data, inputs.feeds, outcome.accuracy),
        notes=outcome.notes,
    )


def described(inputs: Inputs) -> str:
    """Where the inputs came from, and in what type the models ran."""
    cast = "; models cast to float32, onnxruntime has no kernels for their own type" if inputs.float32 else ""
    return inputs.feeds.note + cast
