"""LeNets with fewer bits a value: bytes of a file that onnxruntime runs, and its error on the MNIST test set.

    python models/mnist.py --data DIR --out mnist_test.npz
    python models/mnist.py --data DIR --split train --count 3000 --out mnist_train.npz
    python tests/benchmarks/shared_values.py mnist_test.npz mnist_train.npz [--markdown FILE.md]

Every row is one run of the main command on a network of models/, verified; nothing is retrained, neither the weights
that pruning leaves nor the codebooks. shared:auto without more is the rule that needs no data (5 % of a weight's root
mean square); with a drop it chooses bits on 3,000 training images, and so does its verification; the errors are all
of the 10,000 test images. The factor is against the dense file.
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

from onnxprune.prune import prune_file
from onnxprune.resolve import options_from
from onnxprune.verification import verify_files

ROOT = Path(__file__).parents[2]
NETS = ("lenet_300_100", "lenet_5")
SPARSITIES = (0.8, 0.9)
VALUES: tuple[tuple[str, float | None], ...] = (
    ("f32", None),
    ("int8", None),
    ("shared:4", None),
    ("shared:auto", None),
    ("shared:auto", 0.001),
)
"""Values, and the drop that is allowed where they are chosen by measuring."""


@dataclass(frozen=True)
class Data:
    """Images with labels: `test` to say how good a file is, `train` to choose bits on."""

    test: Path
    train: Path


def row(net: str, sparsity: float, values: str, drop: float | None, data: Data, folder: Path) -> str:
    """One run of the command as a line of the table."""
    source = ROOT / "models" / f"{net}.onnx"
    given: dict[str, object] = {"output": str(folder / "out.onnx"), "sparsity": sparsity, "values": values}
    if drop is not None:
        given |= {"data": str(data.train), "values-max-drop": drop}
    report = prune_file(options_from(str(source), given, None))
    assert report.verified, report.error
    assert report.output is not None
    accuracy = verify_files(str(source), report.output.path, data=str(data.test)).accuracy
    assert accuracy is not None
    nbytes, before = report.output.bytes, source.stat().st_size
    allowed = "" if drop is None else f", a drop of {drop:.1%} at most"
    bits = {} if report.shared_values is None else {one.name: one.values for one in report.shared_values.tensors}
    chosen = " ".join(bits.get(layer.name, "f32").removeprefix("shared:") for layer in report.layers) if bits else ""
    errors = f"{1 - accuracy.before:.2%} | {1 - accuracy.after:.2%}"
    return f"| {net} | {sparsity:.0%} | {values}{allowed} | {chosen} | {nbytes:,} | {before / nbytes:.1f} | {errors} |"


def main() -> None:
    """Parse the command line, run, print, and write the Markdown file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("test", type=Path, help="what models/mnist.py wrote")
    parser.add_argument("train", type=Path, help="the same of training images")
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    options = parser.parse_args()
    packages = " ".join(f"{name} {metadata.version(name)}" for name in ("onnx", "onnxruntime", "onnxprune"))
    lines = [
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}",
        "",
        "| network | sparsity | values | bits by layer | bytes | factor | dense error | error |",
        "|---|---:|---|---|---:|---:|---:|---:|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for net in NETS:
            for sparsity in SPARSITIES:
                data = Data(options.test, options.train)
                lines += [row(net, sparsity, values, drop, data, Path(folder)) for values, drop in VALUES]
                print(*lines[-len(VALUES) :], sep="\n", file=sys.stderr, flush=True)
    text = "\n".join(lines) + "\n"
    print(text)
    if options.markdown:
        about = "\n".join((__doc__ or "").strip().splitlines()[6:])
        written = "Written by `python tests/benchmarks/shared_values.py mnist_test.npz mnist_train.npz`."
        options.markdown.write_text(f"# LeNets with fewer bits a value\n\n{written}\n\n{text}\n{about}\n")


if __name__ == "__main__":
    main()
