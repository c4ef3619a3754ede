"""File size by sparsity and encoding, beside what compressors make of the dense file and beside the entropy bound.

    python tests/benchmarks/encoded_size.py [--nets lenet,mobilenet,vgg16] [--sparsities 0.5,0.9] [--vgg16 FILE.onnx]
        [--packed FILE.json] [--markdown docs/benchmarks/encoded_size.md]

Each net is pruned by LAMP scores to each sparsity (the random ones by magnitude), written dense and in every encoding,
and each file is measured. *bound* is what no code can go under that knows only how many entries of each weight are kept
and stores their values as they are: size x H(density) bits for the positions beside 32 bits for each value; the file's
other bytes are counted in it unchanged. Split floats come under it, since they also use that few exponents occur.
*shared:4* is the file with 15 shared values a weight; its bound has the entropy of the codes for the values, and the
codebooks. gzip and zstd are of the dense file; zstd needs the package zstandard and is left out without it. They take
minutes for VGG-16: --packed keeps what they made of a file, by its SHA-256, for the next run.

lenet is models/lenet_300_100.onnx (trained); mobilenet has the weights' shapes of MobileNetV2, vgg16 is made by
models/generate_vgg16.py: both with random normal weights, seeded.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import math
import os
import platform
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnxprune_passes.arrays import bits_of
from onnxprune_passes.encode import count, encode_model
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import from_proto, load, save
from onnxprune_passes.thresholds import Sparsity
from onnxprune_passes.values import ShareValues
from onnxprune_passes.weights import find_weights

ROOT = Path(__file__).parents[2]
SPARSITIES = (0.5, 2 / 3, 0.8, 0.9, 0.95, 0.98, 0.99)
PIECE = 1 << 22
"""Bytes that are compressed at a time."""
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, repeats, stride of MobileNetV2's blocks (Sandler et al. 2018, table 2)."""


def mobilenet() -> Model:
    """A chain of convolutions with the weight shapes of MobileNetV2 at width 1, random normal (He), seeded."""
    shapes: list[tuple[int, int, int, int]] = [(32, 3, 3, 3)]
    channels = 32
    for expansion, width, repeats, _ in BLOCKS:
        for _ in range(repeats):
            inner = channels * expansion
            shapes += [(inner, channels, 1, 1)] if expansion > 1 else []
            shapes += [(inner, 1, 3, 3), (width, inner, 1, 1)]
            channels = width
    shapes += [(1280, 320, 1, 1), (1000, 1280, 1, 1)]
    rng = np.random.default_rng(0)
    nodes, tensors = [], []
    for number, shape in enumerate(shapes):
        scale = math.sqrt(2 / math.prod(shape[1:]))
        weight = (rng.standard_normal(shape) * scale).astype(np.float32)
        tensors.append(numpy_helper.from_array(weight, f"features.{number}.weight"))
        group = shape[0] if shape[1] == 1 else 1
        pads = [shape[2] // 2] * 4
        made = [f"h{number + 1}" if number + 1 < len(shapes) else "y"]
        taken = ["x" if number == 0 else f"h{number}", f"features.{number}.weight"]
        nodes.append(helper.make_node("Conv", taken, made, group=group, pads=pads))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1000, 32, 32])
    graph = helper.make_graph(nodes, "mobilenet_v2_size", [x], [y], tensors)
    return from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@dataclass(frozen=True)
class Bounds:
    """Bytes of the whole file that no such code can go under, with 32 bits a value and with shared values."""

    plain: float
    shared: float


def entropy(shares: np.ndarray) -> float:
    """Bits."""
    present = shares[shares > 0]
    return float(-np.sum(present * np.log2(present)))


def bounds(pruned: Model, few: Model, dense_nbytes: int) -> Bounds:
    """A weight that does not gain stays as it is."""
    plain = shared = float(dense_nbytes)
    for weight in find_weights(pruned, embeddings=True):
        counts = count(pruned.initializers.source(weight.key))
        density = counts.kept / counts.size
        index = counts.size * entropy(np.array([density, 1 - density])) / 8
        own = few.initializers[weight.key].reshape(-1)
        values, times = np.unique(own[np.flatnonzero(bits_of(own))], return_counts=True)
        coded = counts.kept * entropy(times / max(1, times.sum())) / 8 + values.nbytes
        nbytes = 4 * counts.size
        plain -= max(0.0, nbytes - index - 4 * counts.kept)
        shared -= max(0.0, nbytes - index - coded)
    return Bounds(plain, shared)


def compressors() -> dict[str, Callable[[int], Any]]:
    """Name → from the bytes there are, what compresses them piece by piece."""
    found: dict[str, Callable[[int], Any]] = {"gzip -9": lambda _: zlib.compressobj(9, zlib.DEFLATED, 31)}
    if util.find_spec("zstandard") is not None:
        zstandard = importlib.import_module("zstandard")
        found["zstd -19"] = lambda size: zstandard.ZstdCompressor(level=19).compressobj(size=size)
    return found


def packed_nbytes(file: Path, kept: Path | None) -> dict[str, int]:
    """Name → bytes that each compressor makes of a file; `kept`: JSON of what is known already."""
    known: dict[str, dict[str, int]] = json.loads(kept.read_text()) if kept is not None and kept.exists() else {}
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    sizes = known.setdefault(digest, {})
    for name, make in compressors().items():
        if name in sizes:
            continue
        compressor = make(file.stat().st_size)
        with file.open("rb") as stream:
            sizes[name] = sum(len(compressor.compress(piece)) for piece in iter(lambda: stream.read(PIECE), b""))
        sizes[name] += len(compressor.flush())
        if kept is not None:
            kept.write_text(json.dumps(known))
    return {name: sizes[name] for name in compressors()}


def row(model: Model, sparsity: float, score: str, folder: Path, kept: Path | None) -> str:
    """One line of the table: bytes of every file, and the shares that matter."""
    threshold = Sparsity(sparsity, score="lamp" if score == "lamp" else "magnitude")
    state = MagnitudePrune(threshold)(State(model))
    few = ShareValues(4)(state)
    dense = save(state.model, folder / "dense.onnx")
    before = dense.stat().st_size
    sizes: list[float] = []
    for one in (state, few):
        sizes.append(save(encode_model(one.model).model, folder / "encoded.onnx").stat().st_size)
    for encoding in ("bitmask", "coo"):
        sizes.append(save(encode_model(state.model, encoding).model, folder / "encoded.onnx").stat().st_size)
    packed = packed_nbytes(dense, kept)
    bound = bounds(state.model, few.model, before)
    cells = [f"{size:,.0f}" for size in (before, *sizes, *packed.values(), bound.plain, bound.shared)]
    shares = [sizes[0] / before, sizes[0] / list(packed.values())[-1], sizes[0] / bound.plain, sizes[1] / bound.shared]
    print(f"{sparsity:.3f} {cells} {shares}", file=sys.stderr, flush=True)
    return f"| {100 * sparsity:.1f} % | {' | '.join((*cells, *(f'{share:.4f}' for share in shares)))} |"


def table(name: str, model: Model, sparsities: tuple[float, ...], score: str, kept: Path | None) -> str:
    """The lines of one net."""
    others = list(compressors())
    columns = ["dense", "auto", "shared:4", "bitmask", "coo", *others, "bound", "bound, shared"]
    columns += ["auto / dense", f"auto / {others[-1]}", "auto / bound", "shared / its bound"]
    lines = [f"### {name}", "", f"| sparsity | {' | '.join(columns)} |", f"|---{'|---:' * len(columns)}|"]
    with tempfile.TemporaryDirectory() as folder:
        lines += [row(model, sparsity, score, Path(folder), kept) for sparsity in sparsities]
    return "\n".join(lines) + "\n"


def deep_compression() -> str:
    """Han's SqueezeNet, of ONNXPRUNE_DATA; empty without it."""
    folder = os.environ.get("ONNXPRUNE_DATA")
    if folder is None:
        return ""
    source = Path(folder) / "models" / "squeezenet_v1.0_deepcompressed.onnx"
    encoded = encode_model(load(source))
    with tempfile.TemporaryDirectory() as place:
        nbytes = save(encoded.model, Path(place) / "encoded.onnx").stat().st_size
    return (
        "### SqueezeNet of Deep Compression\n\n"
        f"{source.stat().st_size:,} bytes of dense float32 as given (already pruned, values shared); 675,763 in Deep "
        f"Compression's own format, which only its decoder reads; **{nbytes:,}** encoded here, exact, with its graph "
        "and decoders.\n"
    )


def main() -> None:
    """Parse the command line, run the tables, print them, and write the Markdown file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="lenet,mobilenet", help="of lenet, mobilenet and vgg16")
    parser.add_argument("--sparsities", help="comma-separated; all seven when left out")
    parser.add_argument("--packed", type=Path, help="JSON of what gzip and zstd made of a file, read and added to")
    parser.add_argument("--vgg16", type=Path, help="what models/generate_vgg16.py wrote")
    parser.add_argument("--markdown", type=Path, help="write the tables here too")
    options = parser.parse_args()
    sparsities = tuple(map(float, options.sparsities.split(","))) if options.sparsities else SPARSITIES
    makers: dict[str, tuple[str, str, Callable[[], Model]]] = {
        "lenet": ("LeNet-300-100 (LAMP)", "lamp", lambda: load(ROOT / "models" / "lenet_300_100.onnx")),
        "mobilenet": ("MobileNetV2's shapes, random (magnitude)", "magnitude", mobilenet),
        "vgg16": ("VGG-16's shapes, random (magnitude)", "magnitude", lambda: load(options.vgg16)),
    }
    packages = " ".join(f"{name} {metadata.version(name)}" for name in ("onnx", "numpy", "onnxprune"))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    parts = [f"{date.today()}, {machine}, {packages}\n"]
    for net in options.nets.split(","):
        title, score, make = makers[net]
        parts.append(table(title, make(), sparsities, score, options.packed))
    parts.append(deep_compression())
    text = "\n".join(part for part in parts if part)
    print(text)
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        command = "python tests/benchmarks/encoded_size.py " + " ".join(sys.argv[1:])
        about = "\n".join((__doc__ or "").strip().splitlines()[5:])
        options.markdown.write_text(f"# Bytes by sparsity and encoding\n\nWritten by `{command}`.\n\n{text}\n{about}\n")


if __name__ == "__main__":
    main()
