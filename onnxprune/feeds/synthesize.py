"""Seeded random feeds that fit a model nobody gave data for.

Floats are drawn from N(0, 1). Integers are uniform over the rows of the Gather they index, otherwise over {0, 1};
booleans too. Fixed axes keep their size, axes of one symbol get one size. Dynamic first axes are 2, all other dynamic
axes take the sizes of `trials.SIZES` in turn until the model runs and every output is non-empty and finite; if none
does, scalar integers (a sample rate, a switch) take the values of `trials.SCALARS` in turn, each with every size.

Some models need axes told apart that no symbol tells apart. For those the search runs again with the first dynamic
axis of every input as its batch axis (a recurrent state is [layers, batch, units]), then with batches of 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from onnxprune_passes.errors import DataError

from onnxprune.feeds.batches import Feeds
from onnxprune.feeds.search import Request, integer_bounds, search, search_in_child
from onnxprune.feeds.trials import trials
from onnxprune.runtime import is_float, open_session


def synthesize_feeds(path: str | Path, batches: int, seed: int, *, threads: int | None = None) -> Feeds:
    """Find random feeds with which a model runs and gives non-empty, finite outputs.

    Args:
        path: the model file; it is loaded once, and again in another process where sizes have to be guessed.
        batches: how many batches to draw, at least 1; all have the same shapes and other values.
        seed: of `numpy.random.default_rng`, not negative; equal seeds give equal feeds.
        threads: threads inside one operator, None for onnxruntime's default.

    Returns:
        The feeds; their note names the shapes that were chosen.

    Raises:
        DataError: nothing tried works; names the inputs and asks for `--data`.
        ModelError, NoKernelError: onnxruntime does not load the model.
    """
    request = Request(str(path), batches, seed, threads)
    with open_session(path, optimize=True, threads=threads) as session:
        specs = session.inputs
        for spec in specs:
            if spec.dtype is None or not (spec.dtype.kind in "iub" or is_float(spec.dtype)):
                raise DataError(f"{path}: input {spec} cannot be made up; give real ones with --data FILE.npz")
        has_open_sizes = len({trial.size for trial in trials(specs)}) > 1
        found = None if has_open_sizes else _first_that_works(search(session, request, 0))
    if found is None:
        found = _first_that_works(search_in_child(request))
    number, problem = found
    if problem:
        inputs = ", ".join(str(spec) for spec in specs)
        raise DataError(
            f"{path}: no random inputs were found with which it gives finite outputs; inputs: {inputs}; last attempt: "
            f"{problem}; give real ones with --data FILE.npz"
        )
    trial = next(islice(trials(specs), number, None))
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in trial.shapes(specs).items())
    scalar = "" if trial.scalar is None else f", scalar integers {trial.scalar}"
    note = f"{batches} seeded batches (seed {seed}): {shapes}{scalar}"
    return Feeds(request.draw(trial, specs, integer_bounds(path, specs)), None, note)


def _first_that_works(steps: Iterator[tuple[int, str | None]]) -> tuple[int, str]:
    """The number of the first trial that works, with an empty problem; the last trial and its problem if none does."""
    last = (-1, "nothing was tried")
    for number, problem in steps:
        if problem is not None:
            last = (number, problem)
            if not problem:
                break
    return last
