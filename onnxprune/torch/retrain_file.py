"""The whole job of `onnxprune retrain`: load, train, write back, encode, compare with torch, and only then the name."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from onnxprune_passes.encode import densify, encode_model
from onnxprune_passes.errors import OnnxPruneError
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Change, Skip
from onnxprune_passes.storage import Staged, load, save, stage

from onnxprune.feeds import Feeds
from onnxprune.files import check_names, file_of
from onnxprune.products import masked_state
from onnxprune.records import Left, Note, tools
from onnxprune.serialize import write_json
from onnxprune.steps import Steps
from onnxprune.torch.check import node_problems, precision_of, run_module, with_outputs
from onnxprune.torch.retrain import Retrain, Retrained, samples_for
from onnxprune.torch.train.checkpoints import Store
from onnxprune.torch.train.distributed import is_main_process
from onnxprune.torch.write import write_back
from onnxprune.train_recipe import RetrainOptions
from onnxprune.train_report import RetrainReport, Watch
from onnxprune.verify import Reference, compare_references, quantised_steps, run_all

if TYPE_CHECKING:
    from onnxprune.samples import Samples


_STEPS = 6
_COMPARED = 16
"""Samples that torch and onnxruntime are compared on."""


@dataclass(frozen=True)
class _Found:
    """What the comparison with torch showed."""

    max_error: float | None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def retrain_file(options: RetrainOptions, watch: Watch) -> RetrainReport:
    """Make `options.output` from `options.model`, retrained under its masks, and say what was done.

    Nothing is under the output's name unless the file gives what torch gives. Under torchrun every process calls this;
    the main one writes.

    Args:
        options: as `retrain_options_from` gives them.
        watch: who looks on.

    Returns:
        The report, which is also written to `options.json`. When the check failed, its status is "failed", its
        `error` says why, and there is no output.

    Raises:
        SelectionError, ModelError, DataError, PassError, EncodeError, VerifyError: it could not be done;
            `options.json` says so too.
        Stopped: `watch.stop` said so; there is a checkpoint.
    """
    written = {"--output": options.output, "--json": options.json}
    read = {"MODEL": options.model, "--masks": options.masks, "--teacher": options.teacher, "--data": options.data}
    read |= {"--validation-data": options.validation_data}
    check_names(written, read, overwrite=options.overwrite)
    try:
        report = _run(options, watch)
    except OnnxPruneError as error:
        if options.json is not None and is_main_process():
            failed = RetrainReport(status="error", error=str(error), tools=tools(), options=options)
            write_json(failed, options.json)
        raise
    if options.json is not None and is_main_process():
        write_json(report, options.json)
    return report


def _run(options: RetrainOptions, watch: Watch) -> RetrainReport:
    steps = Steps(_STEPS, watch.step)
    with steps.step("load"):
        stored = load(options.model)
        original = densify(stored)
        state = masked_state(original, options.masks)
        training, validation = samples_for(options, options.model)
    checkpoint = options.checkpoint or f"{options.output}.checkpoint"
    recipe = msgspec.structs.replace(options.recipe, checkpoint=checkpoint)
    with steps.step("train"):
        trained = Retrain(recipe, training, validation, watch).run(state)
    if not is_main_process():
        return _report(options, original, trained, _Found(None), steps)
    scheme = options.encode or ("dense" if original is stored else "auto")
    with steps.step("encode"):
        encoded = encode_model(trained.state.model, scheme)
    with _staged(encoded.model, options, steps) as staged:
        with steps.step("verify"):
            found = _compared(trained, staged, training) if options.check else _Found(None, (), (_UNCHECKED,))
        report = _report(options, original, trained, found, steps, (encoded.model, staged.nbytes), encoded.log)
        if report.status == "done":
            staged.commit()
    if report.status == "done" and options.checkpoint is None:
        Store(Path(checkpoint), {}).remove()
    return report


_UNCHECKED = "the output was not compared with torch: --no-check"


@contextmanager
def _staged(model: Model, options: RetrainOptions, steps: Steps) -> Iterator[Staged]:
    """The output under a temporary name; it goes unless it was committed."""
    with steps.step("write"):
        staged = stage(model, Path(str(options.output)), overwrite_input=options.overwrite)
    try:
        yield staged
    finally:
        if staged.temporary.exists():
            staged.discard()


def _compared(trained: Retrained, staged: Staged, samples: Samples) -> _Found:
    """The staged file beside the module: each trained value bit by bit, and the answers on some samples."""
    module, model = trained.module, trained.state.model
    stored = densify(load(staged.temporary))
    if write_back(module, stored) is not stored:
        return _Found(None, ("the file's values are not those of the module",))
    declared = (module.first_dims or (None,))[0]
    count = declared or min(_COMPARED, len(samples))
    feeds, _ = samples.batch(np.arange(count) % len(samples))
    torch_outputs = run_module(module, feeds)
    precision = precision_of(model)
    names = {value.name for value in model.graph.output}
    with _with_the_same_outputs(staged.temporary, model, tuple(torch_outputs), names) as path:
        steps = quantised_steps(path)
        errors: list[float] = []
        problems: list[str] = []
        for optimize in (False, True):
            expected = run_all(path, Feeds((feeds,), None, ""), optimize=optimize, threads=1)
            kept = tuple({name: one[name] for name in torch_outputs} for one in expected.outputs)
            found = Reference("the torch module", optimize, 1, (torch_outputs,), ())
            comparison = replace(compare_references(replace(expected, outputs=kept), found), steps=steps)
            errors.append(comparison.max_error)
            problems += comparison.failures(precision)
    if not problems:
        return _Found(max(errors))
    return _explained(trained, feeds, precision, tuple(problems), max(errors))


def _explained(
    trained: Retrained, feeds: dict[str, NDArray[Any]], precision: str, problems: tuple[str, ...], error: float
) -> _Found:
    """What differs node by node: a model that only makes rounding large passes, with a warning."""
    of_nodes = node_problems(trained.module, trained.state.model, feeds, precision)
    if of_nodes:
        return _Found(error, (*problems, *of_nodes))
    warning = f"{problems[0]}; every node by itself agrees with torch, so it is rounding that the model makes large"
    return _Found(error, (), (warning,))


@contextmanager
def _with_the_same_outputs(path: Path, model: Model, outputs: tuple[str, ...], declared: set[str]) -> Iterator[Path]:
    """A file that gives `outputs`: the staged one where they are the graph's, else a dense copy that gives them too."""
    if declared.issuperset(outputs):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        yield save(with_outputs(model, outputs), Path(folder) / "model.onnx")


def _report(
    options: RetrainOptions,
    original: Model,
    trained: Retrained,
    found: _Found,
    steps: Steps,
    written: tuple[Model, int] | None = None,
    log: tuple[Change | Skip, ...] = (),
) -> RetrainReport:
    entries = (*trained.state.log, *log)
    output = None
    if written is not None and not found.problems:
        output = file_of(written[0], str(options.output), written[1])
    more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
    return RetrainReport(
        status="failed" if found.problems else "done",
        error=f"the retrained file differs from torch: {found.problems[0]}{more}" if found.problems else None,
        tools=tools(),
        torch=str(torch.__version__),
        options=options,
        input=file_of(original, options.model),
        output=output,
        training=trained.training,
        changes=tuple(Note(one.by, one.summary) for one in entries if isinstance(one, Change)),
        skips=tuple(Left(one.by, one.name, one.reason) for one in entries if isinstance(one, Skip)),
        verified=written is not None and options.check and not found.problems,
        max_error=found.max_error,
        warnings=found.warnings,
        seconds=steps.seconds,
    )
