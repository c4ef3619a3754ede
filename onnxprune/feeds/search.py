"""Trying inputs on a model, in this process or in one that may die.

onnxruntime kernels can divide by zero when a guessed size leaves nothing of an image (seen: a pooling layer of
SqueezeNet at 2 x 2 pixels), which ends the process. So sizes are guessed in a child process; when it dies, the
trial it died in counts as failed and a new child goes on with the next one.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from onnxprune_passes.errors import DataError, VerifyError

from onnxprune.feeds.ranges import gather_rows
from onnxprune.feeds.trials import Trial, trials
from onnxprune.runtime import Array, Session, TensorSpec, is_float, open_session, run
from onnxprune.runtime.child import run_child

_CHILD = "import sys; from onnxprune.feeds.search import main; main(sys.argv[1:])"
LARGEST_FEED = 1 << 25  # elements of all inputs together; images of 16000 x 16000 are not tried


@dataclass(frozen=True)
class Request:
    """What to search: the model, how many batches must work, their seed, threads per operator (None: default)."""

    path: str
    batches: int
    seed: int
    threads: int | None

    def draw(
        self, trial: Trial, specs: Sequence[TensorSpec], bounds: Mapping[str, int]
    ) -> tuple[dict[str, Array], ...]:
        """The batches of one trial; `bounds` as `integer_bounds` finds them."""
        return tuple(trial.draw(specs, bounds, (self.seed, index)) for index in range(self.batches))


def integer_bounds(path: str | Path, specs: Sequence[TensorSpec]) -> dict[str, int]:
    """Integer input -> exclusive upper bound of its values; the file is read only when there is such an input."""
    integers = {spec.name: spec.dtype for spec in specs if spec.dtype is not None and spec.dtype.kind in "iu"}
    found = gather_rows(path, integers) if integers else {}
    return {name: min(found.get(name, 2), int(np.iinfo(dtype).max) + 1) for name, dtype in integers.items()}


def search(session: Session, request: Request, start: int) -> Iterator[tuple[int, str | None]]:
    """Run the trials from number `start` on; yields (number, None) before each and (number, problem) after it.

    The problem of a trial that works is the empty string, and the search ends there.
    """
    bounds = integer_bounds(request.path, session.inputs)
    for index, trial in islice(enumerate(trials(session.inputs)), start, None):
        yield index, None
        problem = _problem_of_trial(session, request, trial, bounds)
        yield index, problem
        if not problem:
            return


def search_in_child(request: Request) -> Iterator[tuple[int, str | None]]:
    """`search` from the first trial on, in child processes, each replaced when it dies."""
    start, pending = 0, -1
    while True:
        values = [request.path, request.batches, request.seed, request.threads, start]
        child = run_child(_CHILD, json.dumps(values))
        pending = -1
        for line in (line for line in child.stdout.decode().splitlines() if line.startswith("[")):
            index, problem = json.loads(line)
            pending = index if problem is None else -1
            yield index, problem
        if pending < 0 and child.returncode != 0:
            lines = child.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {child.returncode}"]
            raise VerifyError(f"{request.path}: the process that tries input sizes failed: {lines[-1]}; give --data")
        if pending < 0:
            return
        yield pending, f"onnxruntime ended the process (exit code {child.returncode})"
        start = pending + 1


def main(arguments: Sequence[str]) -> None:
    """The child: writes every step of `search` as one JSON line to standard output, at once."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a death that is expected leaves no core file
    path, batches, seed, threads, start = json.loads(arguments[0])
    with open_session(path, optimize=True, threads=threads) as session:
        for step in search(session, Request(path, batches, seed, threads), start):
            sys.stdout.write(json.dumps(step) + "\n")
            sys.stdout.flush()


def _problem_of_trial(session: Session, request: Request, trial: Trial, bounds: Mapping[str, int]) -> str:
    """Why a trial does not work; empty when every batch does."""
    if sum(math.prod(shape) for shape in trial.shapes(session.inputs).values()) > LARGEST_FEED:
        return f"inputs of more than {LARGEST_FEED} elements are not tried"
    problems = (_problem(session, batch) for batch in request.draw(trial, session.inputs, bounds))
    return next((problem for problem in problems if problem), "")


def _problem(session: Session, batch: Mapping[str, Array]) -> str:
    """Why a batch does not count as working; empty when it does."""
    try:
        outputs = run(session, batch)
    except (VerifyError, DataError) as error:
        return str(error).removeprefix(f"{session.source}: ")
    for name, array in outputs.items():
        if array.size == 0:
            return f"output {name} is empty"
        if is_float(array.dtype) and not np.isfinite(array).all():
            return f"output {name} is not finite"
    return "" if outputs else "it has no output that can be compared"
