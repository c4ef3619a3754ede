"""BatchNormalization statistics estimated anew, by what reaches each node once the model is pruned.

Pruned channels leave sums with other means and variances than those that training stored. The statistics are taken in
the order of the graph, each over all samples (Ioffe and Szegedy 2015, "Batch normalization", algorithm 2, lines 8 to
11, with the whole data for one batch), and each is in place before any node behind it is measured. So in the result
every node stores just what reaches it: the mean, and the unbiased variance, over samples and positions.

The part of the model before the nodes runs in onnxruntime, batch by batch. Nodes that do not depend on each other are
measured in one run over the data; a chain of n needs n runs over a part of the model that grows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Change, Skip, State
from onnxprune_passes.storage import save
from onnxprune_passes.weights import find_weights

from .batch_norms import in_levels, name_of, part_before, replaceable
from .feeds import Feeds
from .runtime import Array, open_session, run
from .steps import Steps
from .verification import Inputs, Source, cast_to_float32, inputs_for

FEWEST, MOST = 32, 4096
"""Fewer samples say too little of a mean and a variance: then everything stays as it is. More change little."""
_CHUNK = 1 << 20  # elements that are summed at a time, in float64


@dataclass(frozen=True)
class Recalibrate:
    """Replace the mean and variance of every BatchNormalization by those of what reaches it.

    Channels that are the same in all samples keep their statistics: a variance of 0 says nothing of other samples.
    Scales and biases are not touched, and neither are nodes inside bodies and functions, nodes whose statistics are
    computed or shared with other nodes, or which train: a Skip names them.

    Attributes:
        inputs: what to run the model on; labels are not read.
        folder: where a part of the model lies while it runs; the system's temporary folder when None.
        steps: told of each run over the data.

    Raises (when called):
        ModelError, DataError, VerifyError: onnxruntime does not load or run the model on the inputs.
    """

    inputs: Inputs
    folder: Path | None = None
    steps: Steps | None = field(default=None, compare=False)
    name: str = "recalibrate"

    def __call__(self, state: State) -> State:
        """`state` with new statistics; the same object when there is no BatchNormalization and nothing to say."""
        nodes, skips = replaceable(state.model, self.name)
        if not nodes:
            return state.noted(*skips) if skips else self._nothing(state)
        model, steps = state.model, self.steps or Steps(1)
        levels = in_levels(model, nodes)
        done = samples = 0
        for level, wanted in enumerate(levels, start=1):
            with steps.step("recalibrate", f"BatchNormalization {level} of {len(levels)}"):
                found = _measured(model, wanted, self.inputs, self.folder)
            for node, moments in zip(wanted, found, strict=True):
                samples = moments.samples
                if samples < FEWEST:
                    why = f"only {samples} samples reach it, and {FEWEST} are needed: give more; nothing was changed"
                    return state.noted(Skip(self.name, name_of(node), why))
                new = _statistics(model, node, moments)
                if new is None:
                    skips.append(Skip(self.name, name_of(node), "what reaches it holds NaN or infinity"))
                else:
                    model, done = model.with_initializers(new), done + 1
        if not done:
            return state.noted(*skips)
        summary = f"statistics of {done} BatchNormalizations from {samples:,} samples, {self.inputs.feeds.note}"
        return replace(state, model=model).noted(Change(self.name, summary), *skips)

    def _nothing(self, state: State) -> State:
        if any(weight.kind == "conv" for weight in find_weights(state.model)):
            why = "no BatchNormalization with statistics is in it, as where an exporter folded them into convolutions"
            return state.noted(Skip(self.name, "the graph", f"{why}; retraining can make up for what was pruned"))
        return state


def inputs_to_recalibrate(model: str | Path, source: Source) -> Inputs:
    """What to run the file `model` on: at most about 4096 samples to train on of what `source.data` names.

    Raises DataError when nothing fits, and what onnxruntime says of a model it does not load.
    """
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as temporary:
        inputs = inputs_for(model, Path(temporary), replace(source, training=True))
    return replace(inputs, feeds=_fewer(inputs.feeds))


def _fewer(feeds: Feeds) -> Feeds:
    """Some of the batches, spread evenly, where all of them hold more than `MOST` samples."""
    size = max(1, *(array.shape[0] for array in feeds.batches[0].values() if array.ndim))
    every = len(feeds.batches)
    if every * size <= MOST:
        return feeds
    places = np.linspace(0, every - 1, max(1, MOST // size)).round().astype(int).tolist()
    note = f"{feeds.note}, {len(places)} of them, spread evenly"
    return Feeds(tuple(feeds.batches[place] for place in places), None, note)


class _Moments:
    """Mean and sum of squared differences from it, float64 [C], of everything added so far.

    Two parts are merged as Chan, Golub, LeVeque 1983 do ("Algorithms for computing the sample variance", eq. 2.1).
    """

    def __init__(self) -> None:
        self.samples = self.count = 0
        self.mean: npt.NDArray[np.float64] = np.zeros(1)
        self.squares: npt.NDArray[np.float64] = np.zeros(1)

    def add(self, values: Array) -> None:
        """Values [N, C, …]."""
        wide = values.reshape(*values.shape[:2], -1)
        self.samples += len(wide)
        step = max(1, _CHUNK // max(1, wide[0].size if len(wide) else 1))
        for start in range(0, len(wide), step):
            block = wide[start : start + step].astype(np.float64)
            if block.size:
                self._merge(block)

    @np.errstate(all="ignore")
    def _merge(self, block: npt.NDArray[np.float64]) -> None:
        count, mean = block.shape[0] * block.shape[2], block.mean(axis=(0, 2))
        squares = np.square(block - mean[:, None]).sum(axis=(0, 2))
        total, apart = self.count + count, mean - self.mean
        self.mean = self.mean + apart * (count / total)
        self.squares = self.squares + squares + np.square(apart) * (self.count * count / total)
        self.count = total


def _statistics(model: Model, node: onnx.NodeProto, moments: _Moments) -> dict[str, Array] | None:
    """The new mean and variance of `node` by key; None when they are no numbers of its type."""
    if not np.isfinite(moments.mean).all() or not np.isfinite(moments.squares).all():
        return None
    old = [model.initializers[key] for key in node.input[3:5]]
    varies = moments.squares > 0
    variance = moments.squares / max(1, moments.count - 1)
    with np.errstate(over="ignore"):
        pairs = zip((moments.mean, variance), old, strict=True)
        new = [np.where(varies, found.astype(was.dtype), was) for found, was in pairs]
    if not all(np.isfinite(array.astype(np.float64)).all() for array in new):
        return None
    return dict(zip(node.input[3:5], new, strict=True))


def _measured(model: Model, nodes: Sequence[onnx.NodeProto], inputs: Inputs, parent: Path | None) -> list[_Moments]:
    """What reaches each of `nodes`, over all batches."""
    found = [_Moments() for _ in nodes]
    with tempfile.TemporaryDirectory(prefix=".onnxprune-", dir=parent) as temporary:
        folder = Path(temporary)
        names = [f"onnxprune_reaches_{index}" for index in range(len(nodes))]
        file = save(
            part_before(model, dict(zip(names, (node.input[0] for node in nodes), strict=True))), folder / "m.onnx"
        )
        if inputs.float32:
            file = cast_to_float32(file, folder)
        with open_session(file, optimize=True) as session:
            for batch in inputs.feeds.batches:
                outputs = run(session, batch)
                for name, moments in zip(names, found, strict=True):
                    moments.add(outputs[name])
    return found
