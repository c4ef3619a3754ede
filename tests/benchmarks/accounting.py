"""Tables 4 and 5 of Han et al. 2015 counted in files: AlexNet and VGG-16 at full size, each layer pruned to the paper's
density, with what the files weigh and what the command takes.

    python tests/benchmarks/accounting.py [--work FOLDER] [--only alexnet|vgg16] [--markdown
    docs/benchmarks/paper_accounting.md]

The weights are random (models/generate_alexnet.py, models/generate_vgg16.py): this is accounting, and no accuracy is
claimed. What each layer's activations are cannot come from random weights either: FLOP % is computed from the density
that the file has and the paper's own Act %. Each run of the command is a process of its own; seconds and peak memory
(RssAnon + RssShmem) are counted as in tests/benchmarks/vgg16.py, without the verification in onnxruntime. With --work,
what was measured already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from vgg16 import PeakMemory

from onnxprune.layers import LayerCost, layer_cost, layer_table, total_of
from onnxprune.prune import prune_file
from onnxprune.resolve import options_from

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "models" / "paper" / "published.json"
TABLES = {"alexnet": 4, "vgg16": 5}
VALUES = {"f32": "values as they are", "shared:4": "15 shared values a layer"}


@dataclass(frozen=True)
class Run:
    """One run of the command: the file it wrote, and what it took."""

    values: str
    bytes: int
    seconds: float
    peak_mb: float


def densities(network: str) -> dict[str, float]:
    """Weight → the share that the paper keeps of it."""
    rows = json.loads(PUBLISHED.read_text())[network]
    return {f"{name}.weight": row[1] / 100 for name, row in rows.items() if name != "total"}


def arguments(network: str) -> dict[str, Any]:
    """What `onnxprune MODEL` is told: every layer to a sparsity of its own."""
    layers = [f"{name}={round(1 - kept, 4)}" for name, kept in densities(network).items()]
    return {"sparsity": 0.0, "scope": "layer", "score": "magnitude", "layer": layers}


def measure(network: str, source: Path, target: Path, values: str) -> None:
    """Run the command in this process and print what it took as JSON."""
    given = {**arguments(network), "output": str(target), "values": values, "check": 0, "quiet": True}
    options = options_from(str(source), given)
    memory = PeakMemory()
    start = time.perf_counter()
    report = prune_file(options)
    seconds = time.perf_counter() - start
    if report.status != "done":
        raise SystemExit(f"{network}, {values}: {report.error}")
    print(json.dumps({"seconds": seconds, "peak_mb": memory.peak_mb}))


def run(network: str, source: Path, values: str) -> Run:
    """The same in a process of its own."""
    target = source.with_name(f"{network}.{values.replace(':', '')}.onnx")
    measured = target.with_suffix(".json")
    if not measured.exists():
        command = [sys.executable, __file__, "--measure", network, str(source), str(target), values]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        measured.write_text(done.stdout.splitlines()[-1])
    numbers = json.loads(measured.read_text())
    print(f"{network}, {values}: {numbers['seconds']:.1f} s", file=sys.stderr, flush=True)
    return Run(values, target.stat().st_size, numbers["seconds"], numbers["peak_mb"])


def generate(network: str, folder: Path) -> Path:
    """The dense network, unless it is there."""
    path = folder / f"{network}.onnx"
    if not path.exists():
        script = ROOT / "models" / f"generate_{network}.py"
        subprocess.run([sys.executable, script, "--out", path], check=True, stdout=2)
    return path


def costs(network: str, source: Path, file: Path) -> list[LayerCost]:
    """The layers of `file` against those of `source`, with the paper's activations."""
    published = json.loads(PUBLISHED.read_text())[network]
    found, reads = [], 1.0
    for layer in layer_table(file, dense=source).layers:
        act = published[layer.name.removesuffix(".weight")][0] / 100
        found.append(
            layer_cost(layer.name, layer.weights, layer.kept, layer.flops, activations=act, reads=reads, neurons=1)
        )
        reads = act
    return found


def layer_lines(network: str, found: list[LayerCost]) -> list[str]:
    """The paper's table beside its own numbers in brackets."""
    published = json.loads(PUBLISHED.read_text())[network]
    lines = [
        "| layer | weights | FLOP | Act % (the paper's) | Weights % | FLOP % |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for layer in found:
        name = layer.name.removesuffix(".weight")
        act, kept, flop = published[name]
        assert layer.flop_share is not None
        lines.append(
            f"| {name} | {layer.weights:,} | {layer.flops:,} | {act} | {100 * layer.density:.1f} ({kept}) "
            f"| {100 * layer.flop_share:.1f} ({flop}) |"
        )
    end, (act, kept, flop) = total_of(found), published["total"]
    assert end.flop_share is not None
    lines.append(
        f"| total | {end.weights:,} | {end.flops:,} | {act} | {100 * end.density:.1f} ({kept}) "
        f"| {100 * end.flop_share:.1f} ({flop}) |"
    )
    fewer = f"{end.weights / end.kept:.1f} times fewer weights, {1 / end.flop_share:.1f} times fewer FLOPs"
    return [*lines, "", f"{fewer}; in brackets the paper's own numbers.", ""]


def run_lines(source: Path, runs: list[Run]) -> list[str]:
    """Bytes, seconds and memory."""
    dense = source.stat().st_size
    lines = [
        "| file | bytes | smaller | seconds | peak memory, MB | x the dense file |",
        "|---|---:|---:|---:|---:|---:|",
        f"| dense | {dense:,} | | | | |",
    ]
    lines += [
        f"| pruned, {VALUES[one.values]} | {one.bytes:,} | {dense / one.bytes:.1f}x | {one.seconds:.1f} "
        f"| {one.peak_mb:,.0f} | {one.peak_mb * 1e6 / dense:.2f} |"
        for one in runs
    ]
    return [*lines, ""]


def section(network: str, folder: Path) -> list[str]:
    """One network's part of the page."""
    source = generate(network, folder)
    runs = [run(network, source, values) for values in VALUES]
    found = costs(network, source, source.with_name(f"{network}.f32.onnx"))
    return [f"## Table {TABLES[network]}: {network}", "", *layer_lines(network, found), *run_lines(source, runs)]


def main() -> None:
    """Parse the command line, measure, print, and write the Markdown file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="keep the models here; default: a temporary folder")
    parser.add_argument("--only", choices=list(TABLES), help="this network; default: both")
    parser.add_argument("--markdown", type=Path, help="write the page here too")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        network, source, target, values = options.measure
        measure(network, Path(source), Path(target), values)
        return
    packages = " ".join(f"{name} {metadata.version(name)}" for name in ("onnx", "onnxruntime", "numpy", "onnxprune"))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    lines = [f"{date.today()}, {machine}, {packages}; one run each", ""]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for network in [options.only] if options.only else TABLES:
            lines += section(network, folder)
    text = "\n".join(lines)
    print(text)
    if options.markdown:
        about = " ".join((__doc__ or "").split("\n\n")[2].split())
        command = f"python tests/benchmarks/accounting.py --markdown {options.markdown}"
        options.markdown.write_text(
            f"# AlexNet and VGG-16 at the paper's densities\n\nWritten by `{command}`.\n\n{about}\n\n{text}"
        )


if __name__ == "__main__":
    main()
