"""A pruned file beside its unpruned and its masked one: what it lost, and whether its answers are the same."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnxprune_passes.channel_groups import find_channels
from onnxprune_passes.storage import load

BATCHES = 4
LEVELS = {
    "off": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "default": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
Floats = npt.NDArray[np.float32]


def numbers(path: Path) -> int:
    """How many float numbers the nodes of a file read: weights, biases, statistics."""
    graph = onnx.load(str(path)).graph
    read = {name for node in graph.node for name in node.input}
    floats = [one for one in graph.initializer if one.name in read and one.data_type == onnx.TensorProto.FLOAT]
    return sum(math.prod(tensor.dims) for tensor in floats)


def removed(before: Path, after: Path) -> float:
    """Percent of the numbers of `before` that `after` does not have."""
    return 100 * (1 - numbers(after) / numbers(before))


def least_kept(before: Path, after: Path) -> float | None:
    """The smallest share of an axis of a weight that stays; None when the weights are not the same ones in number."""
    one, other = _weights(before), _weights(after)
    if [len(dims) for dims in one] != [len(dims) for dims in other]:
        return None
    pairs = [pair for dims, left in zip(one, other, strict=True) for pair in zip(dims, left, strict=True)]
    return min(left / size for size, left in pairs)


def _weights(path: Path) -> list[list[int]]:
    """The dims of each tensor of two or more axes that a node reads, in the order of the graph."""
    graph = onnx.load(str(path)).graph
    tensors = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    found = [tensors[name] for node in graph.node for name in node.input if name in tensors]
    return [dims for dims in found if len(dims) > 1]


def halved(before: Path, after: Path) -> bool:
    """True when every coupled group of n channels that nothing pins has n - floor(n/2) left."""
    wanted = [size - size // 2 for size in _free(before)]
    return [size for size in wanted if size > 1] == [size for size in _free(after) if size > 1]


def _free(path: Path) -> list[int]:
    return [group.size for group in find_channels(load(path)) if group.pinned_by is None]


def answers(path: Path, level: str, inputs: list[Floats]) -> list[Floats]:
    """The first output for each input, at a level of onnxruntime's optimisations."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = LEVELS[level]
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [np.asarray(session.run(None, {name: x})[0]) for x in inputs]


def error(masked: Path, shrunk: Path, shape: tuple[int, ...], *, whole: bool = False) -> float:
    """The largest difference / the largest absolute output of `masked`, over both levels and seeded inputs.

    `whole`: the inputs are whole numbers from -2 to 2. Exactly 0 means that all outputs are equal.
    """
    rng = np.random.default_rng(0)
    draw = (lambda: rng.integers(-2, 3, shape)) if whole else (lambda: rng.standard_normal(shape))
    inputs = [draw().astype(np.float32) for _ in range(BATCHES)]
    worst = 0.0
    for level in LEVELS:
        pairs = zip(answers(masked, level, inputs), answers(shrunk, level, inputs), strict=True)
        for one, other in pairs:
            if not np.array_equal(one, other):
                worst = max(worst, float(np.abs(one - other).max() / np.abs(one).max()))
    return worst


def runs(path: Path, shape: tuple[int, ...]) -> bool:
    """True when onnxruntime runs a file at both levels."""
    try:
        for level in LEVELS:
            answers(path, level, [np.zeros(shape, np.float32)])
    except Exception as error:  # noqa: BLE001 - onnxruntime raises its own types, all of which mean that it does not
        print(f"{path.name}: {str(error)[:200]}")
        return False
    return True
