"""What the scripts of this folder share: how they run the command, and what they measure of a pruned LeNet."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np
from onnxprune_passes.encode import densify
from onnxprune_passes.storage import load
from onnxprune_passes.weights import find_weights

from onnxprune.metrics import metric_from
from onnxprune.runtime import open_session, run
from onnxprune.samples import read_samples

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
WEIGHTS: Final = {"lenet_300_100": 266_200, "lenet_5": 430_500}
"""Of the dense networks."""
BIASES: Final = {"lenet_300_100": 410, "lenet_5": 580}
_AT_ONCE: Final = 500


def command(*args: str | Path) -> None:
    """Run `onnxprune` with these arguments, on one thread, from the root of the repository; it prints to stderr."""
    print("$ onnxprune", shlex.join(map(str, args)), file=sys.stderr, flush=True)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "onnxprune", *map(str, args)], check=True, cwd=ROOT, env=environment, stdout=2
    )


def errors_of(model: Path, data: str | Path) -> int:
    """How many samples of `data` onnxruntime puts into another class than their label."""
    metric = metric_from("accuracy")
    with open_session(model, optimize=True, threads=1) as session:
        samples = read_samples(str(data), session.inputs)
        for start in range(0, len(samples), _AT_ONCE):
            feeds, labels = samples.batch(np.arange(start, min(start + _AT_ONCE, len(samples))))
            assert labels is not None
            metric.update(run(session, feeds)[session.outputs[0].name], labels)
    return round((1 - metric.value()) * len(samples))


def kept_of(model: Path) -> dict[str, int]:
    """Weight → entries that are not zero, of a file that may be encoded."""
    dense = densify(load(model))
    return {
        weight.key: int(np.count_nonzero(np.asarray(dense.initializers[weight.key]))) for weight in find_weights(dense)
    }


def biases_of(model: Path) -> int:
    """Entries of all tensors that are no weights and no shapes: the biases that are left."""
    dense = densify(load(model))
    weights = {weight.key for weight in find_weights(dense)}
    sources = (dense.initializers.source(key) for key in dense.initializers if key not in weights)
    return sum(source.size for source in sources if source.dtype.kind == "f")
