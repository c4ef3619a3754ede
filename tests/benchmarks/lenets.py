"""The table of the README: the two networks in models/ through the whole command, with the MNIST test set as --data.

    python tests/benchmarks/lenets.py [--data FOLDER] [--markdown docs/benchmarks/lenets.md]

No retraining: what one shot of pruning costs. Needs MNIST (ONNXPRUNE_DATA, or --data; models/mnist.py says where from).
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
from datetime import date
from importlib import metadata
from pathlib import Path

from onnxprune.prune import prune_file
from onnxprune.resolve import options_from

ROOT = Path(__file__).parents[2]
MODELS = ("lenet_300_100", "lenet_5")
SPARSITIES = (0.5, 0.8, 0.9)


def row(model: str, sparsity: float, data: Path, folder: Path) -> str:
    """One line: bytes and test error before and after."""
    source = ROOT / "models" / f"{model}.onnx"
    given = {"sparsity": sparsity, "data": str(data), "output": str(folder / f"{model}.onnx"), "quiet": True}
    report = prune_file(options_from(str(source), given, None))
    assert report.output is not None
    assert report.accuracy is not None
    before, after = source.stat().st_size, report.output.bytes
    errors = [100 * (1 - share) for share in (report.accuracy.before, report.accuracy.after)]
    return (
        f"| {model} | {100 * sparsity:.0f} % | {before:,} | {after:,} | {before / after:.1f}x "
        f"| {errors[0]:.2f} % | {errors[1]:.2f} % |"
    )


def main() -> None:
    """Parse the command line, run the table, print it, and write the Markdown file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder with MNIST's four files, or its parent")
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    options = parser.parse_args()
    packages = " ".join(f"{name} {metadata.version(name)}" for name in ("onnx", "onnxruntime", "numpy", "onnxprune"))
    lines = [
        f"{date.today()}, {platform.machine()}, Python {platform.python_version()}, {packages}",
        "",
        "| model | weights zeroed | bytes before | bytes after | smaller | test error before | test error after |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "mnist_test.npz"
        given = ["--data", str(options.data)] if options.data else []
        subprocess.run([sys.executable, ROOT / "models" / "mnist.py", *given, "--out", data], check=True, stdout=2)
        lines += [row(model, sparsity, data, Path(folder)) for model in MODELS for sparsity in SPARSITIES]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        command = f"python tests/benchmarks/lenets.py --markdown {options.markdown}"
        options.markdown.write_text(f"# The LeNets of models/, pruned in one shot\n\nWritten by `{command}`.\n\n{text}")


if __name__ == "__main__":
    main()
