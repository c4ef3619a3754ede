"""Samples as the batches that verification runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxprune.feeds import BATCH_SIZE, Feeds, feeds_from_npz
from onnxprune.feeds.npz import class_labels
from onnxprune.runtime import TensorSpec
from onnxprune.samples.base import Samples, batch_size_of, spread
from onnxprune.samples.options import data_options_from
from onnxprune.samples.read import pair_from

COUNT = 1024
"""How many samples of a folder, data set or function are taken unless `count=` says it."""


def feeds_from_data(
    spec: str, specs: Sequence[TensorSpec], options: Sequence[str] = (), *, training: bool = False
) -> Feeds:
    """What `--data` names, as batches: all of an `.npz` file, `count` samples of anything else.

    Where the data has samples to validate on, those are taken, unless `training` asks for the others. Raises what
    `read_pair` and `feeds_from_npz` raise.
    """
    parsed = data_options_from(options)
    if Path(spec).is_file():
        parsed.require_only("an .npz file", ())
        return feeds_from_npz(spec, specs)
    samples, held_out = pair_from(spec, specs, replace(parsed, count=None))
    return feeds_from_samples(samples if training else held_out or samples, specs, parsed.count or COUNT)


def first_sample(spec: str, specs: Sequence[TensorSpec], options: Sequence[str] = ()) -> Feeds:
    """One batch of what `--data` names, of one sample where the model takes one. Raises as `feeds_from_data`."""
    parsed = data_options_from(options)
    if not Path(spec).is_file():
        return feeds_from_samples(pair_from(spec, specs, parsed)[0], specs, 1)
    parsed.require_only("an .npz file", ())
    feeds = feeds_from_npz(spec, specs, batch_size=1)
    return Feeds(feeds.batches[:1], None, f"the first of {feeds.note}")


def feeds_from_samples(samples: Samples, specs: Sequence[TensorSpec], count: int) -> Feeds:
    """At most `count` samples, spread evenly, in batches of the size that the model takes; repeated to fill one."""
    fixed = batch_size_of(specs)
    size = fixed or min(BATCH_SIZE, count)
    rows = spread(len(samples), count)
    if fixed is not None:
        rows = np.resize(rows, max(len(rows) - len(rows) % size, size))
    cuts = [rows[start : start + size] for start in range(0, len(rows), size)]
    batches, labels = zip(*(samples.batch(cut) for cut in cuts), strict=True)
    classes = [class_labels(one) for one in labels]
    known = tuple(one for one in classes if one is not None)
    which = "all" if len(rows) == len(samples) else f"{len(rows)} of them, spread evenly,"
    return Feeds(
        tuple(batches),
        known if len(known) == len(classes) else None,
        f"{samples.note}; {which} in {len(cuts)} batches of {size}",
    )
