"""File size by sparsity and encoding, beside the entropy bound and gzip of the dense file.

    python tests/benchmarks/encoded_size.py [--model FILE.onnx] [--markdown docs/benchmarks/encoded_size.md]

The model is pruned by LAMP scores to each sparsity, written dense and in every encoding, and each file is measured. The
entropy bound is what no code can go under that knows only how many entries of each weight are kept and stores their
values as they are: size x H(density) bits for the positions beside the values; the file's other bytes are counted in it
unchanged. gzip comes under it at low sparsities because it also finds the regularity in the exponents of the values.
"""

from __future__ import annotations

import argparse
import gzip
import math
import os
import platform
import tempfile
from datetime import date
from importlib import metadata
from pathlib import Path

import numpy as np
from onnxprune_passes.arrays import bits_of
from onnxprune_passes.encode import encode_model
from onnxprune_passes.encode.plan import Encoding
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import load, save
from onnxprune_passes.thresholds import Sparsity
from onnxprune_passes.weights import find_weights

ROOT = Path(__file__).parents[2]
SPARSITIES = (0.5, 2 / 3, 0.8, 0.9, 0.95, 0.99)
ENCODINGS: tuple[Encoding, ...] = ("auto", "gaps", "bitmask", "coo")


def entropy_nbytes(model: Model, dense_nbytes: int) -> float:
    """Bytes of the file with every weight at its entropy bound; a weight that does not gain stays as it is."""
    total = float(dense_nbytes)
    for weight in find_weights(model, embeddings=True):
        array = model.initializers[weight.key]
        density = np.count_nonzero(bits_of(array.reshape(-1))) / array.size
        spread = sum(-share * math.log2(share) for share in (density, 1 - density) if share)
        bound = array.size * spread / 8 + density * array.nbytes
        total -= max(0.0, array.nbytes - bound)
    return total


def row(model: Model, sparsity: float, folder: Path) -> str:
    """One line of the table: bytes of every file and their share of the dense one."""
    pruned = MagnitudePrune(Sparsity(sparsity))(State(model)).model
    dense = save(pruned, folder / "dense.onnx")
    before = dense.stat().st_size
    sizes: list[float] = [
        save(encode_model(pruned, encoding).model, folder / f"{encoding}.onnx").stat().st_size for encoding in ENCODINGS
    ]
    sizes += [entropy_nbytes(pruned, before), len(gzip.compress(dense.read_bytes(), 9, mtime=0))]
    factor = sizes[0] / sizes[len(ENCODINGS)]
    cells = [f"{size:,.0f} ({size / before:.4f})" for size in sizes]
    return f"| {100 * sparsity:.1f} % | {before:,} | {' | '.join(cells)} | {factor:.3f} |"


def main() -> None:
    """Parse the command line, run the table, print it, and write the Markdown file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "lenet_300_100.onnx")
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    options = parser.parse_args()
    packages = " ".join(f"{name} {metadata.version(name)}" for name in ("onnx", "numpy", "onnxprune"))
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    lines = [
        f"{date.today()}, {machine}, {platform.system()}, Python {platform.python_version()}, {packages}",
        "",
        f"{options.model.name}: bytes of the file, and its share of the dense file.",
        "",
        f"| sparsity | dense | {' | '.join(ENCODINGS)} | entropy bound | gzip -9 of dense | auto / bound |",
        f"|---{'|---:' * (len(ENCODINGS) + 4)}|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        model = load(options.model)
        lines += [row(model, sparsity, Path(folder)) for sparsity in SPARSITIES]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        command = f"python tests/benchmarks/encoded_size.py --markdown {options.markdown}"
        about = "\n".join((__doc__ or "").strip().splitlines()[4:])
        options.markdown.write_text(f"# Bytes by sparsity and encoding\n\nWritten by `{command}`.\n\n{text}\n{about}\n")


if __name__ == "__main__":
    main()
