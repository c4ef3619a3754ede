"""The tables of docs/torch.md: onnx's operator tests, and the real models.

    python tests/onnxprune/torch/tables.py [--models FOLDER]

FOLDER is the folder `models` of ONNXPRUNE_DATA, which is also looked for in `../shared/data`; without it the second
table is left out.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from onnxprune_passes.storage import load
from onnxprune_passes.weights import find_weights

from onnxprune.feeds import Feeds
from onnxprune.torch import known_ops, name_from_key
from onnxprune.torch.check import tensors_from_feeds
from onnxprune.verify import compare_references, run_all

HERE = Path(__file__).resolve().parent


def operators(suite: Any) -> str:
    """Counts of onnx's operator tests by what became of them."""
    counts = Counter((one.group, one.result) for one in suite.outcomes())
    groups = ("plain", "expanded", "other domains")
    results = (suite.PASSED, suite.WRONG, suite.REFUSED, suite.NO_TYPE)
    lines = ["| | " + " | ".join(groups) + " |", "|---" * 4 + "|"]
    for result in results:
        shown = "random numbers, so other values" if result == suite.WRONG else result
        lines.append(f"| {shown} | " + " | ".join(str(counts[group, result]) for group in groups) + " |")
    lines.append(f"\n{len(known_ops())} operators of ai.onnx, {len(known_ops('com.microsoft'))} of com.microsoft.")
    refused = Counter(one.reason.split("::")[1].split(" ")[0] for one in suite.outcomes() if "::" in one.reason)
    return "\n".join([*lines, "Refused: " + ", ".join(sorted(refused)) + "."])


def models(corpus: Any, folder: Path) -> str:
    """One line a model: how far it is from onnxruntime, and how many weights gradients reach."""
    lines = [
        "| model | opset | trained tensors | weights with a gradient | off onnxruntime | its levels apart | batch |",
        "|---|---|---|---|---|---|---|",
    ]
    for path in sorted({*folder.glob("*.onnx"), *folder.glob("*/model.onnx")}, key=corpus.name_of):
        model = load(path)
        module, batches = corpus.module_of(path, model)
        for feeds in batches:
            found = [one for one in module(*tensors_from_feeds(module, feeds)) if one.requires_grad]
            torch.autograd.backward([one.square().sum() for one in found])
        weights = find_weights(model, embeddings=True)
        reached = sum(module.get_parameter(name_from_key(one.key)).grad is not None for one in weights)
        given = Feeds((batches[0],), None, "")
        levels = [run_all(path, given, optimize=level, threads=1) for level in (False, True)]
        own = compare_references(*levels).max_error
        batch = "as in the file" if module.batch_problem else "any"
        note = " (every node within 1e-5)" if module.check.amplified else ""
        lines.append(
            f"| {corpus.name_of(path)} | {model.opset} | {sum(row.trained for row in module.rows)} "
            f"| {reached} of {len(weights)} | {module.check.max_error:.1e}{note} | {own:.1e} | {batch} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print both tables."""
    data = os.environ.get("ONNXPRUNE_DATA", str(HERE.parents[3] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=Path, default=Path(data) / "models")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(HERE))
    versions = f"torch {torch.__version__}, onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}"
    print(operators(importlib.import_module("test_torch_node_suite")))
    if arguments.models.is_dir():
        print("\n" + models(importlib.import_module("test_torch_corpus"), arguments.models))
    print(f"\n{versions}, Python {platform.python_version()}, {date.today()}")


if __name__ == "__main__":
    main()
