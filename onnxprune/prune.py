"""The whole job: load, prune, fold, shrink, encode, stage, verify, and only then the file gets its name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from onnxprune_passes.encode import densify
from onnxprune_passes.errors import ModelError, OnnxPruneError, SelectionError
from onnxprune_passes.pipeline import Change, Skip
from onnxprune_passes.storage import Staged, load, save, stage

from .analysis import weight_rows
from .checks import Checked, verify_products
from .files import check_paths, file_of, nbytes_dense, nbytes_on_disk, pending_file, temporary_folder
from .products import Products, make, smaller_model
from .recalibration import Recalibrate
from .recipe import ROUNDINGS, PruneOptions
from .records import Left, Note, Rounding, tools
from .report import Report
from .resolve import resolved
from .rounding import settled
from .rounds import MaxDropError
from .rows import layers_from, totals_from
from .serialize import write_json
from .steps import Progress, Steps, silent
from .train_report import Watch

if TYPE_CHECKING:
    from .torch.rounds import RoundsPrune

_MAY_GROW = 0.01
_MOST_STEPS = 23
"""Load, prune, fold, shrink, round, encode, write, choose inputs, decode three times; seven models at two levels less
two.
"""


_FIXES = {"-> folded": "--no-fold", "-> shrunk": "--no-shrink"}
"""What leaves out a step that missed its tolerance; --encode dense the one that is not named."""


def prune_file(options: PruneOptions, progress: Progress = silent, watch: Watch | None = None) -> Report:
    """Make `options.output` from `options.model`, checked, and say what was done.

    Nothing is under the output's name unless all checks pass; a run that is interrupted leaves nothing behind.

    Args:
        options: see `PruneOptions`; what is None takes its default.
        progress: told of each step.
        watch: with `retrain`: who looks on while it trains; None: `progress` alone.

    Returns:
        The report, which is also written to `options.json`. When a check failed, its status is "failed", its `error`
        says why, and there is no output.

    Raises:
        SelectionError: options that contradict each other, a glob that matches nothing, or `retrain` without torch.
        Stopped: `watch.stop` said so while it trained; the same call goes on from there.
        ModelError, DataError, PassError, EncodeError, VerifyError: it could not be done; `options.json` says so too.
    """
    options = resolved(options)
    check_paths(options)
    try:
        more = len(ROUNDINGS) + 1 if options.round_to == "auto" else 0
        report = _run(options, Steps(_MOST_STEPS + more, progress), watch or Watch(step=progress))
    except MaxDropError as error:
        report = Report(status="failed", error=str(error), tools=tools(), recipe=options.recipe, rounds=error.rounds)
    except OnnxPruneError as error:
        if options.json is not None:
            failed = Report(status="error", error=str(error), tools=tools(), recipe=options.recipe)
            write_json(failed, options.json)
        raise
    if options.json is not None:
        write_json(report, options.json)
    return report


def _run(options: PruneOptions, steps: Steps, watch: Watch) -> Report:
    options, rounding = _settled(options, steps)
    in_rounds = _in_rounds(options, watch) if options.retrain else None
    products = make(options, steps, in_rounds)
    output = Path(str(options.output))
    with _staged(products, output, options, steps) as staged, pending_file(options.save_masks) as masks_file:
        _check_size(options, products, staged)
        with temporary_folder(output) as folder:
            checked = verify_products(_checked_on(options), products, staged.temporary, folder, steps)
        report = msgspec.structs.replace(
            _report(options, products, staged, checked, steps),
            rounding=rounding,
            shared_values=products.shared_values,
            rounds=None if in_rounds is None else in_rounds.rounds,
        )
        if report.status == "done":
            if masks_file is not None:
                products.pruned.masks.save(masks_file)
            staged.commit()
    if in_rounds is not None and report.status == "done":
        in_rounds.finish()
    return report


def _in_rounds(options: PruneOptions, watch: Watch) -> RoundsPrune:
    """What prunes and trains. Raises SelectionError without torch."""
    try:
        from .torch.rounds import RoundsPrune
    except ImportError as error:
        raise SelectionError(f"--retrain cannot be done: {error}") from error
    return RoundsPrune(options, watch)


def _checked_on(options: PruneOptions) -> PruneOptions:
    """The options to verify with: of a training's two data, what it was measured on."""
    held_out = None if options.training is None else options.training.validation_data
    return options if held_out is None else msgspec.structs.replace(options, data=held_out)


def _settled(options: PruneOptions, steps: Steps) -> tuple[PruneOptions, Rounding | None]:
    """`options` with a rounding that was measured, where that was asked for."""
    if options.round_to != "auto":
        return options, None
    original = densify(load(options.model))
    return settled(options, lambda one: smaller_model(original, one), steps)


@contextmanager
def _staged(products: Products, output: Path, options: PruneOptions, steps: Steps) -> Iterator[Staged]:
    """The output under a temporary name; it goes unless it was committed."""
    with steps.step("write"):
        staged = stage(products.encoded.model, output, overwrite_input=options.overwrite)
    try:
        yield staged
    finally:
        if staged.temporary.exists():
            staged.discard()


def _check_size(options: PruneOptions, products: Products, staged: Staged) -> None:
    """Raise ModelError when the output would be larger than the input plus 1 %."""
    before = nbytes_on_disk(options.model)
    if products.was_encoded and options.encode != "auto":
        before = max(before, nbytes_dense(products.original))
    if staged.nbytes > before * (1 + _MAY_GROW):
        raise ModelError(
            f"{options.output} would take {staged.nbytes:,} bytes, more than the input's {before:,}: "
            f"use --encode auto, or prune more"
        )


def _report(options: PruneOptions, products: Products, staged: Staged, checked: Checked, steps: Steps) -> Report:
    with steps.step("report"):
        before = weight_rows(products.original)
        after = weight_rows(products.rounded.model)
    bytes_before = nbytes_on_disk(options.model)
    log = (*products.rounded.log, *products.encoded.log)
    failed = bool(checked.problems)
    return Report(
        status="failed" if failed else "done",
        error=_summed_up(checked.problems) if failed else None,
        verified=checked.verified,
        tools=tools(),
        recipe=options.recipe,
        input=file_of(products.original, options.model, bytes_before),
        output=None if failed else file_of(products.encoded.model, str(options.output), staged.nbytes),
        layers=layers_from(before, after, products.encoded.tensors),
        totals=totals_from(before, after, bytes_before, staged.nbytes),
        changes=tuple(Note(entry.by, entry.summary) for entry in log if isinstance(entry, Change)),
        skips=tuple(Left(entry.by, entry.name, entry.reason) for entry in log if isinstance(entry, Skip)),
        inputs_from=checked.inputs_from,
        comparisons=checked.comparisons,
        decoded=checked.decoded,
        accuracy=checked.accuracy,
        accuracy_note=checked.accuracy_note,
        warnings=(*_not_recalibrated(log), *checked.warnings),
        seconds=steps.seconds,
    )


def _not_recalibrated(log: Iterable[Change | Skip]) -> list[str]:
    """What was asked for and not done: accuracy may be lower than it could be."""
    left = [entry for entry in log if isinstance(entry, Skip) and entry.by == Recalibrate.name]
    return [f"{entry.by}: left {entry.name} alone: {entry.reason}" for entry in left]


def _summed_up(problems: tuple[str, ...]) -> str:
    """One line for what a check found, with what can be done about it."""
    first = problems[0]
    option = next((fix for step, fix in _FIXES.items() if step in first.partition(":")[0]), "--encode dense")
    more = f" (and {len(problems) - 1} more, see --json)" if len(problems) > 1 else ""
    return f"{first}{more}; {option} leaves that step out"


@dataclass(frozen=True)
class Densified:
    """What `densify_file` did: how many tensors it decoded, and the bytes of the new file."""

    tensors: int
    nbytes: int


def densify_file(model: str, output: str, *, overwrite: bool = False) -> Densified:
    """Write `model` to `output` with every encoded tensor as a plain initializer, byte for byte what was encoded.

    Raises:
        ModelError: `model` cannot be read, or `output` cannot be written or is `model` itself without `overwrite`.
        EncodeError: a stored tensor cannot be decoded.
    """
    stored = load(model)
    dense = densify(stored)
    before = set(stored.initializers)
    save(dense, output, overwrite_input=overwrite)
    return Densified(len(set(dense.initializers) - before), nbytes_on_disk(output))
