"""Bits that a kept entry's position takes in several index schemes, beside its entropy.

    python tests/benchmarks/index_schemes.py [--markdown docs/benchmarks/index_schemes.md]

In the first table parts of the stored index alone are counted, without names, functions and values. *rice*, *gaps*
(the best width), *bitmask* and *int32* are schemes of the package; *live* is the Rice code without rows, or without
columns, that are wholly zero, where those are enough, with a bit for each. The others were measured and left out,
since these take less: *two-level* has the number of entries of each row, and within the row column gaps of a fixed
width with an escape, or plain column numbers, whichever is best; *without zero rows and columns* leaves out both and
has a bit for each row and column, but does not turn the matrix. *rice of blocks* has a Rice code over blocks of 4
entries of a row, of which every entry is then stored, so that values cost more: its bits are those of the position and
of the zeros among the values, at 4 bits each.

In the second table all that a matrix takes in the file is counted: positions, values (in their smallest form), names
and nodes, but for the functions, of which `2of4` takes 187 and blocks 113 bytes more than a bitmask. The
schemes of the package for patterns, *2of4* and *blocks* (the best length), store zeros among the values where the
pattern does not hold. *shared:4*: the entries have 15 values.

The random matrices are 1024 x 1024, kept independently; lenet_300_100 is the trained model, pruned by LAMP scores, or
2:4 as `--nm 2:4` does it; *2 of 4* keeps the two largest of each four neighbours in a row, or in a column, as `--nm`
does where the input axis is the first; *blocks* keeps those runs of entries in a row whose largest entry is largest.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
from collections.abc import Callable, Iterator
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnxprune_passes.arrays import Array
from onnxprune_passes.encode import CODINGS, Bitmask, Coding, Gaps, Rice, count
from onnxprune_passes.encode.bound import entropy
from onnxprune_passes.encode.choose import priced
from onnxprune_passes.encode.live import SPREADS, live_coding
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.nm import nm_keep
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import load
from onnxprune_passes.thresholds import NM, Sparsity

ROOT = Path(__file__).parents[2]
NDArray = npt.NDArray[Any]
_BLOCK = 4
_CODE = 4
"""Bits that a value takes, for what zeros among values cost."""


def stored_bits(scheme: Rice | Gaps | Bitmask, kept: NDArray) -> float:
    """Bits of the index parts of a matrix of bool."""
    parts = zip(scheme.suffixes, scheme.layout(count(Array(kept.astype(np.int8)))), strict=True)
    return float(sum(8 * math.prod(part.shape) for suffix, part in parts if suffix not in ("values", "shape")))


def live_bits(kept: NDArray) -> float:
    """Rice code, without the wholly zero rows or columns where those are enough to be left out."""
    counts = count(Array(kept.astype(np.int8)))
    codings = (Coding(Rice()), *(live_coding(Coding(Rice()), spread) for spread in SPREADS))
    return min(8.0 * coding.index_nbytes(counts) for coding in codings if coding.supports(counts, 17))


def two_level_bits(kept: NDArray) -> float:
    """The best of fixed-width column gaps and plain column numbers, and the number of entries of each row."""
    counts: NDArray = kept.sum(axis=1)
    columns = np.nonzero(kept)[1]
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))[counts > 0]
    gaps = np.diff(columns, prepend=-1) - 1
    gaps[starts] = columns[starts]
    widths = [bits * (gaps.size + int(np.sum(gaps // (2**bits - 1)))) for bits in range(2, 9)]
    plain = gaps.size * math.ceil(math.log2(kept.shape[1]))
    return float(min(*widths, plain)) + counts.size * max(1, math.ceil(math.log2(counts.max() + 1)))


def without_zeros_bits(kept: NDArray) -> float:
    """Rice code without the rows and columns that are wholly zero, and a bit for each of all."""
    inner = kept[kept.any(axis=1)][:, kept.any(axis=0)]
    return stored_bits(Rice(), inner) + sum(kept.shape)


def blocks_bits(kept: NDArray) -> float:
    """Rice code over blocks of a row; zeros among the values cost as much as values."""
    blocks = kept[:, : kept.shape[1] // _BLOCK * _BLOCK].reshape(kept.shape[0], -1, _BLOCK)
    taken = np.asarray(blocks.any(axis=2))
    zeros = int(taken.sum()) * _BLOCK - int(blocks.sum())
    return stored_bits(Rice(), taken) + _CODE * zeros


SCHEMES: dict[str, Callable[[NDArray], float]] = {
    "rice": lambda kept: stored_bits(Rice(), kept),
    "gaps": lambda kept: min(stored_bits(Gaps(bits), kept) for bits in (2, 3, 4, 6, 8)),
    "bitmask": lambda kept: stored_bits(Bitmask(), kept),
    "live": live_bits,
    "two-level": two_level_bits,
    "int32": lambda kept: 32.0 * float(kept.sum()),
    "without zero rows and columns": without_zeros_bits,
    "rice of blocks": blocks_bits,
}


def matrices() -> Iterator[tuple[str, NDArray]]:
    """(name, bool [rows, columns]): random ones, the weights of a trained net, a 2:4 pattern."""
    rng = np.random.default_rng(0)
    for density in (0.5, 0.2, 0.1, 0.05, 0.02, 0.005):
        yield f"random, {100 * density:g} % kept", rng.random((1024, 1024)) < density
    for sparsity in (0.9, 0.95, 0.98):
        state = MagnitudePrune(Sparsity(sparsity, score="lamp"))(State(load(ROOT / "models" / "lenet_300_100.onnx")))
        for key in ("fc1.weight", "fc2.weight"):
            weight = state.model.initializers[key]
            yield f"lenet_300_100 {key}, {100 * sparsity:g} % sparse", weight != 0
    order = np.argsort(rng.random((1024, 256, 4)), axis=2)
    yield "2 of 4", (order < 2).reshape(1024, 1024)


def pruned() -> Iterator[tuple[str, NDArray]]:
    """(name, float32 [rows, columns]): pruned in patterns, and not."""
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((1024, 1024), dtype=np.float32)
    size = np.abs(whole)

    def where(kept: NDArray) -> NDArray:
        return np.where(kept, whole, np.float32(0))

    yield "2 of 4", where(nm_keep(size, 1, 2, 4))
    yield "2 of 4 in columns", where(nm_keep(size, 0, 2, 4))
    for length, density in ((4, 0.5), (4, 0.2), (16, 0.2), (16, 0.05)):
        largest = size.reshape(1024, -1, length).max(axis=2)
        kept = largest > np.quantile(largest, 1 - density)
        yield f"blocks of 1 x {length}, {100 * density:g} % kept", where(np.repeat(kept, length, axis=1))
    for density in (0.5, 0.1):
        yield f"random, {100 * density:g} % kept", where(rng.random(whole.shape) < density)
    state = MagnitudePrune(NM(2, 4))(State(load(ROOT / "models" / "lenet_300_100.onnx")))
    yield "lenet_300_100 fc1.weight, 2 of 4", state.model.initializers["fc1.weight"]


def shared(weight: NDArray) -> NDArray:
    """`weight` with 15 values beside 0."""
    values = np.random.default_rng(1).choice(np.arange(1, 16, dtype=np.float32), weight.shape)
    return np.where(weight == 0, np.float32(0), values)


def whole_bits(weight: NDArray) -> tuple[dict[str, float], str]:
    """Scheme → bits for each kept entry of all that the weight takes in a file; the smallest coding."""
    found = priced("weight", count(Array(np.ascontiguousarray(weight))), 17, CODINGS, inline=False)
    smallest = min(found.nbytes_by_coding, key=lambda name: found.nbytes_by_coding[name])
    bits = {
        start: 8 * min(size for name, size in found.nbytes_by_coding.items() if name.startswith(start))
        for start in ("rice", "gaps", "bitmask", "2of4", "blocks")
    }
    return {name: size / found.counts.kept for name, size in bits.items()}, smallest


def second_table() -> list[str]:
    """The lines of the table of whole weights."""
    lines = ["| matrix | values | kept | rice | gaps | bitmask | 2of4 | blocks | smallest |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|---:|---|"]
    for name, weight in pruned():
        for values, array in (("float32", weight), ("shared:4", shared(weight))):
            bits, smallest = whole_bits(array)
            cells = " | ".join(f"{each:.2f}" for each in bits.values())
            lines.append(f"| {name} | {values} | {np.count_nonzero(array):,} | {cells} | {smallest} |")
    return lines


def main() -> None:
    """Print the tables, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", type=Path, help="write the tables here too")
    options = parser.parse_args()
    packages = " ".join(f"{name} {metadata.version(name)}" for name in ("numpy", "onnxprune"))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    lines = [f"{date.today()}, {machine}, {packages}; bits for each kept entry", ""]
    lines += [f"| matrix | kept | entropy | {' | '.join(SCHEMES)} |", f"|---|---:|---:|{'---:|' * len(SCHEMES)}"]
    for name, kept in matrices():
        number = int(kept.sum())
        bound = kept.size * entropy((number, kept.size - number)) / number
        cells = [f"{scheme(kept) / number:.2f}" for scheme in SCHEMES.values()]
        lines.append(f"| {name} | {number:,} | {bound:.2f} | {' | '.join(cells)} |")
    lines += ["", "Bits for each kept entry of all that the weight takes:", "", *second_table()]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.markdown:
        about = "\n".join((__doc__ or "").strip().splitlines()[4:])
        command = "python tests/benchmarks/index_schemes.py --markdown docs/benchmarks/index_schemes.md"
        options.markdown.write_text(f"# Bits of positions\n\nWritten by `{command}`.\n\n{text}\n{about}\n")


if __name__ == "__main__":
    main()
