"""Accuracy of a ResNet-20 with BatchNormalization after `--channels`, without and with new statistics; no retraining.

    python tests/benchmarks/recalibration.py [--samples 64,512] [--markdown docs/benchmarks/recalibration.md]

Statistics are estimated on training pictures, accuracy is that of all test pictures (models/cifar10.py says where both
come from). Of the given models it is the only one with BatchNormalization that there are labels for: in most files the
exporter folded it into convolutions.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Literal

import numpy as np
from onnxprune_passes.channels import PruneChannels
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Pass, State, chain
from onnxprune_passes.storage import load, save
from onnxprune_passes.thresholds import Sparsity

from onnxprune.feeds import Feeds
from onnxprune.recalibration import Recalibrate
from onnxprune.verification import Inputs
from onnxprune.verify import run_all

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from models.cifar10 import INPUT, MEAN, STD, Split, load_cifar10  # noqa: E402 - found by the line above

MODEL = "cifar_resnet20_op13_bn"
BATCH = 250


@dataclass(frozen=True)
class Case:
    """One way to prune: what the table calls it, and the pass."""

    name: str
    prune: Pass | None


SCOPES: tuple[Literal["layer", "global"], ...] = ("layer", "global")
CASES = (
    Case("nothing pruned", None),
    *(
        Case(f"`--channels {sparsity:g} --scope {scope}`", PruneChannels(sparsity, scope=scope))
        for sparsity in (0.1, 0.25, 0.5)
        for scope in SCOPES
        if (sparsity, scope) != (0.1, "layer")  # rounded to 8, no group loses a channel
    ),
    Case("`--channels 0.25 --scope layer --channel-score batchnorm`", PruneChannels(0.25, "layer", "batchnorm")),
    Case("`--sparsity 0.8`", MagnitudePrune(Sparsity(0.8))),
)


def feeds(split: Split, count: int | None = None) -> Feeds:
    """`count` pictures of a split, spread evenly, as the model takes them, with their labels."""
    pictures, labels = load_cifar10(split)
    rows = np.linspace(0, len(pictures) - 1, count or len(pictures)).round().astype(np.int64)
    x = ((pictures[rows] / np.float32(255) - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2)
    cuts = [slice(start, start + BATCH) for start in range(0, len(rows), BATCH)]
    batches = tuple({INPUT: np.ascontiguousarray(x[cut])} for cut in cuts)
    return Feeds(batches, tuple(labels[rows][cut] for cut in cuts), f"{len(rows)} pictures of {split}")


def accuracy(model: Model, test: Feeds) -> float:
    """Share of the test pictures whose label comes first."""
    assert test.labels is not None
    with tempfile.TemporaryDirectory() as folder:
        outputs = run_all(save(model, Path(folder) / "m.onnx"), test, optimize=True).outputs
    right = sum(
        int((next(iter(one.values())).argmax(axis=1) == labels).sum())
        for one, labels in zip(outputs, test.labels, strict=True)
    )
    return right / sum(labels.size for labels in test.labels)


def row(case: Case, model: Model, samples: list[Feeds], test: Feeds) -> str:
    """One line of the table."""
    pruned = State(model) if case.prune is None else case.prune(State(model))
    shrunk = RemoveDeadNeurons()(pruned).model
    entries = sum(shrunk.initializers.source(key).size for key in shrunk.initializers)
    cells = [case.name, f"{entries:,}", f"{100 * accuracy(shrunk, test):.2f}"]
    for one in samples:
        after = chain(Recalibrate(Inputs(one)), RemoveDeadNeurons())(pruned).model
        cells.append(f"{100 * accuracy(after, test):.2f}")
    print(" | ".join(cells), flush=True)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Parse the command line, run the table, print it, and write the Markdown file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", default="64,512", help="how many training pictures to estimate on")
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    options = parser.parse_args()
    counts = [int(count) for count in options.samples.split(",")]
    folder = Path(os.environ.get("ONNXPRUNE_DATA", ROOT.parent / "shared" / "data")) / "models"
    model, test = load(folder / f"{MODEL}.onnx"), feeds("test")
    samples = [feeds("train", count) for count in counts]
    names = ("onnx", "onnxruntime", "numpy", "onnxprune")
    packages = " ".join(f"{name} {metadata.version(name)}" for name in names)
    heads = ["pruned", "numbers", "without", *(f"from {count:,} samples" for count in counts)]
    lines = [
        f"{date.today()}, {platform.machine()}, Python {platform.python_version()}, {packages}.",
        "",
        f"Top-1 accuracy in percent of {MODEL} on all 10,000 CIFAR-10 test pictures (JPEG copies), in one shot without",
        "retraining. `numbers`: entries of all tensors. Statistics from training pictures, JPEG copies too; the first",
        "row shows what that alone does, since the model was trained on the originals.",
        "",
        f"| {' | '.join(heads)} |",
        "|---|" + "--:|" * (len(heads) - 1),
        *(row(case, model, samples, test) for case in CASES),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.markdown:
        command = f"python tests/benchmarks/recalibration.py --samples {options.samples} --markdown {options.markdown}"
        head = f"# BatchNormalization statistics estimated anew\n\nWritten by `{command}`.\n\n"
        options.markdown.write_text(head + text)


if __name__ == "__main__":
    main()
