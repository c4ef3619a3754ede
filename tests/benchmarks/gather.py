"""When a Gather in front of a layer costs more than the layer saves; and dtln_1, whose channels go unread.

    python tests/benchmarks/gather.py [--pairs 60] [--markdown FILE]

A value of n channels is read by a MatMul or a Conv with `outputs` outputs; beside it the same network with a Gather of
half of the channels, and the smaller weight. Both take turns in onnxruntime (timed.py), one thread, denormals flushed;
the quotient is with Gather / without. "saved": multiplications saved for each number copied. `GatherLiveInputs` and
`PruneChannels` ask for 400 where numbers are copied one by one, 256 in one row of them, and 16 in runs.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from timed import Quotient, machine, models_in_turn, quotient

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = (16, 64, 256, 384, 512, 1024)
CASES = (("MatMul", 128, 1), ("MatMul", 512, 1), ("MatMul", 512, 16), ("MatMul", 256, 128))
_MORE = 50
"""So many times the pairs for dtln_1, whose runs of 0.1 ms differ by more than what is gained."""
PICTURES = (("Conv 1x1", 64, 28), ("Conv 1x1", 256, 14), ("Conv 3x3", 64, 28))


def network(op: str, channels: int, size: int, outputs: int, live: int) -> onnx.ModelProto:
    """A Relu of the input, and a layer that reads `live` of its channels; `size`: rows, or the side of a picture."""
    rng = np.random.default_rng(0)
    kernel = int(op[-1]) if op.startswith("Conv") else 0
    shape = [1, channels, size, size] if kernel else [size, channels]
    weight = (outputs, live, kernel, kernel) if kernel else (live, outputs)
    tensors: dict[str, NDArray[np.generic]] = {"w": rng.standard_normal(weight).astype(np.float32)}
    nodes, read = [helper.make_node("Relu", ["x"], ["r"])], "r"
    if live < channels:
        tensors["live"] = np.sort(rng.permutation(channels)[:live]).astype(np.int32)
        nodes.append(helper.make_node("Gather", ["r", "live"], ["g"], axis=1))
        read = "g"
    if kernel:
        nodes.append(helper.make_node("Conv", [read, "w"], ["y"], pads=[kernel // 2] * 4))
    else:
        nodes.append(helper.make_node("MatMul", [read, "w"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def layer_rows(folder: Path, pairs: int) -> Iterator[str]:
    """One line a layer: the quotient for each number of outputs."""
    for op, channels, size in (*CASES, *PICTURES):
        cells = []
        for outputs in OUTPUTS if op == "MatMul" else OUTPUTS[:3]:
            paths = [folder / "before.onnx", folder / "after.onnx"]
            for path, live in zip(paths, (channels, channels // 2), strict=True):
                onnx.save(network(op, channels, size, outputs, live), str(path))
            saved = outputs * (int(op[-1]) ** 2 if op != "MatMul" else 1)
            found = measured(paths[1], paths[0], 1, pairs)
            cells.append(f"{found.median:.2f} (saved {saved})")
        where = f"{size} rows" if op == "MatMul" else f"{size} x {size}"
        yield f"| {op} of {channels}, {where} | {' | '.join([*cells, *['-'] * (len(OUTPUTS) - len(cells))])} |"


def measured(after: Path, before: Path, threads: int, pairs: int) -> Quotient:
    """Time of `after` / time of `before`."""
    times = models_in_turn([before, after], threads, pairs)
    return quotient(times[:, 1], times[:, 0])


def dtln_rows(folder: Path, pairs: int) -> Iterator[str]:
    """One line a number of threads; none without the model."""
    data = Path(os.environ.get("ONNXPRUNE_DATA", ROOT.parent / "shared" / "data"))
    model, output = data / "models" / "dtln_1.onnx", folder / "dtln_1.onnx"
    if not model.exists():
        return
    command = [sys.executable, "-m", "onnxprune", str(model), "--channels", "0.5", "--encode", "dense", "--quiet"]
    subprocess.run([*command, "-o", str(output)], check=True)
    for threads in (1, 2):
        found = measured(output, model, threads, _MORE * pairs)
        yield f"| {threads} | {found} | {found.verdict} |"


def main() -> None:
    """Parse the command line, measure, print the tables, and write the Markdown file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--markdown", type=Path, help="write the tables here too")
    options = parser.parse_args()
    versions = " ".join(f"{name} {metadata.version(name)}" for name in ("onnxruntime", "onnx", "numpy", "onnxprune"))
    with tempfile.TemporaryDirectory() as made:
        layers, whole = (list(rows(Path(made), options.pairs)) for rows in (layer_rows, dtln_rows))
    text = "\n".join(
        [
            str(__doc__).strip(),
            "",
            f"{date.today()}, {machine()}, Python {platform.python_version()}, {versions}; {options.pairs} pairs.",
            "",
            f"| layer | {' | '.join(f'{outputs} outputs' for outputs in OUTPUTS)} |",
            f"|---|{'--:|' * len(OUTPUTS)}",
            *layers,
            "",
            f"`onnxprune dtln_1.onnx --channels 0.5`, median and 95 % interval of {_MORE * options.pairs:,} pairs:",
            "",
            "| threads | pruned / original | |",
            "|--:|--:|---|",
            *whole,
            "",
        ]
    )
    print(text)
    if options.markdown:
        options.markdown.write_text(f"# What a Gather in front of a layer costs\n\n{text}")


if __name__ == "__main__":
    main()
