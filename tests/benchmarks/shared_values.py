"""LeNets with shared values: bytes of a file that onnxruntime runs, and its error on the MNIST test set.

    python models/mnist.py --data DIR --out mnist_test.npz
    python tests/benchmarks/shared_values.py mnist_test.npz [--markdown docs/benchmarks/shared_values.md]

Every row is one run of the main command on a network of models/, verified; nothing is retrained, neither the weights
that pruning leaves nor the codebooks. The factor is against the dense file.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from datetime import date
from importlib import metadata
from pathlib import Path

from onnxprune.prune import prune_file
from onnxprune.recipe import options_from

ROOT = Path(__file__).parents[2]
NETS = ("lenet_300_100", "lenet_5")
SPARSITIES = (0.5, 0.8)
VALUES = ("f32", "shared:4", "shared:auto")


def row(net: str, sparsity: float, values: str, data: Path, folder: Path) -> str:
    """One run of the command as a line of the table."""
    source = ROOT / "models" / f"{net}.onnx"
    given = {"output": str(folder / "out.onnx"), "sparsity": sparsity, "values": values, "data": str(data)}
    report = prune_file(options_from(str(source), given, None))
    assert report.verified, report.error
    assert report.output is not None
    assert report.accuracy is not None
    nbytes, before = report.output.bytes, source.stat().st_size
    errors = f"{1 - report.accuracy.before:.2%} | {1 - report.accuracy.after:.2%}"
    return f"| {net} | {sparsity:.0%} | {values} | {nbytes:,} | {before / nbytes:.1f} | {errors} |"


def main() -> None:
    """Parse the command line, run, print, and write the Markdown file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="what models/mnist.py wrote")
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    options = parser.parse_args()
    packages = " ".join(f"{name} {metadata.version(name)}" for name in ("onnx", "onnxruntime", "onnxprune"))
    lines = [
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}",
        "",
        "| network | sparsity | values | bytes | factor | dense error | error |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for net in NETS:
            for sparsity in SPARSITIES:
                lines += [row(net, sparsity, values, options.data, Path(folder)) for values in VALUES]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.markdown:
        about = "\n".join((__doc__ or "").strip().splitlines()[5:])
        written = "Written by `python tests/benchmarks/shared_values.py mnist_test.npz`."
        options.markdown.write_text(f"# LeNets with shared values\n\n{written}\n\n{text}\n{about}\n")


if __name__ == "__main__":
    main()
