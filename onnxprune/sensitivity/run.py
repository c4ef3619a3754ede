"""The whole measurement: units × densities, resumable, in parallel, and what it suggests."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from onnxprune_passes.encode import densify
from onnxprune_passes.storage import load

from ..files import temporary_folder
from ..metrics import metric_from
from ..records import tools
from ..serialize import write_json
from ..steps import Progress, silent
from .evaluate import Evaluator, Task
from .journal import Journal, fingerprint
from .records import Curve, Point, Sensitivity, SensitivityOptions
from .suggest import suggest
from .units import Unit, find_units
from .workers import Setup, measured

_ALL_CORES = os.cpu_count() or 1


def measure_sensitivity(options: SensitivityOptions, progress: Progress = silent) -> Sensitivity:
    """The metric of a model with one prunable weight (or group) after the other pruned, at each density.

    Han et al. 2015, section 4 and figure 6. Everything else stays dense, nothing is retrained, and the model is run in
    onnxruntime. What is measured is kept beside the results' file while the run lasts, so that the same call goes on
    where an interrupted one stopped.

    Args:
        options: see `SensitivityOptions`.
        progress: told of each measurement.

    Returns:
        The result, which is also written to `options.json`.

    Raises:
        SelectionError: a glob matches nothing, no such metric, or nothing to measure.
        DataError: the samples do not fit the model.
        ModelError, VerifyError: a file cannot be read or written, or onnxruntime does not run a model.
    """
    start = time.perf_counter()
    target = Path(options.json or default_json(options.model))
    task = Task(options.data, options.data_option, options.metric, options.output, options.samples, options.batch)
    metric = metric_from(options.metric)
    progress("dense model", 0, 1)
    model = densify(load(options.model))
    units = find_units(model, options.only, options.skip, groups=options.groups)
    with temporary_folder(target) as folder:
        evaluator = Evaluator(task, Path(options.model))
        dense = evaluator(Path(options.model))
        key = fingerprint({"model": options.model, "data": options.data}, repr(task))
        with Journal(target.with_name(f".{target.name}.journal"), key, anew=options.overwrite) as journal:
            _measure(units, options, Setup(Path(options.model), task, folder), journal, progress)
            result = Sensitivity(
                options=msgspec.structs.replace(options, json=str(target)),
                metric=metric.name,
                larger_is_better=metric.larger_is_better,
                dense=dense,
                samples=evaluator.count,
                note=evaluator.note,
                curves=tuple(_curve(unit, journal.known, options, dense, metric.larger_is_better) for unit in units),
                tools=tools(),
                seconds=time.perf_counter() - start,
            )
            write_json(result, target)
            journal.remove()
    return result


def default_json(model: str) -> str:
    """`MODEL.sensitivity.json` for `MODEL.onnx`, beside it."""
    path = Path(model)
    return str(path.with_name(f"{path.name.removesuffix('.onnx')}.sensitivity.json"))


def _measure(
    units: Sequence[Unit], options: SensitivityOptions, setup: Setup, journal: Journal, progress: Progress
) -> None:
    """Fill the journal with every point that is not in it yet."""
    densities = sorted(set(options.densities), reverse=True)
    tasks = [(unit, density) for unit in units for density in densities if (unit.name, density) not in journal.known]
    total = len(units) * len(densities)
    progress("measure", total - len(tasks), total)
    for unit, point in measured(setup, tasks, options.jobs or _ALL_CORES) if tasks else ():
        journal.add((unit.name, point.wanted), point)
        done = len(journal.known)
        progress(f"{unit.name} at {point.density:.3g}: {point.metric:.4g}", done, max(done, total))


def _curve(
    unit: Unit,
    known: Mapping[tuple[str, float], Point],
    options: SensitivityOptions,
    dense: float,
    larger_is_better: bool,
) -> Curve:
    points = tuple(known[unit.name, density] for density in sorted(set(options.densities), reverse=True))
    return Curve(
        name=unit.name,
        kind=unit.kind,
        size=unit.size,
        points=points,
        suggestion=suggest(points, dense, options.max_drop, larger_is_better=larger_is_better),
    )
