"""What encoding costs where it is paid: writing a pruned VGG-16 (138 M weights), and loading it in onnxruntime.

    python tests/benchmarks/encoded_load.py VGG16.onnx [--rounds 3] [--markdown docs/benchmarks/encoded_load.md]

VGG16.onnx is what models/generate_vgg16.py wrote. It is pruned to the densities that Han et al. 2015 report for each
layer (table 5; 7.5 % of all weights stay), written dense, as `auto` stores it and as `--values shared` does, and each
file is loaded by an onnxruntime session in a process of its own, in turns; optimisations at their default level, one
thread. Seconds are the processor's, so that other work on the machine does not count. Peak memory is the largest
RssAnon + RssShmem of /proc/self/status above that before loading, every 5 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from importlib import metadata
from pathlib import Path

DENSITIES = (58, 22, 34, 36, 53, 24, 42, 32, 27, 34, 35, 29, 36, 4, 4, 23)
"""Percent of the weights that stay, conv1_1 to fc8."""


def resident_mb() -> float:
    """RssAnon + RssShmem of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))) / 1000


def measure_load(file: str) -> None:
    """Load `file` in this process and print what it took as JSON."""
    import onnxruntime as ort

    before, peak = resident_mb(), [0.0]

    def watch() -> None:
        while True:
            peak[0] = max(peak[0], resident_mb())
            time.sleep(0.005)

    threading.Thread(target=watch, daemon=True).start()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    start = time.process_time()
    ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    print(json.dumps({"seconds": time.process_time() - start, "peak_mb": peak[0] - before}))


def write_files(source: Path, folder: Path) -> tuple[dict[str, Path], float]:
    """The files to load, and the seconds to prune, encode and write the `auto` one over those of onnx.load + save."""
    import onnx
    from onnxprune_passes.encode import encode_model
    from onnxprune_passes.magnitude import MagnitudePrune
    from onnxprune_passes.pipeline import State
    from onnxprune_passes.storage import load, save
    from onnxprune_passes.thresholds import Sparsity
    from onnxprune_passes.values import ShareValues
    from onnxprune_passes.weights import find_weights

    start = time.perf_counter()
    onnx.save(onnx.load(source), folder / "copy.onnx")
    base = time.perf_counter() - start
    (folder / "copy.onnx").unlink()
    names = [weight.key for weight in find_weights(load(source))]
    layers = tuple((name, 1 - density / 100) for name, density in zip(names, DENSITIES, strict=True))
    start = time.perf_counter()
    pruned = MagnitudePrune(Sparsity(0.5, score="magnitude"), layers=layers)(State(load(source)))
    files = {"auto": save(encode_model(pruned.model).model, folder / "auto.onnx")}
    ours = time.perf_counter() - start
    files["dense"] = save(pruned.model, folder / "dense.onnx")
    files["shared:4"] = save(encode_model(ShareValues(4)(pruned).model).model, folder / "shared.onnx")
    return files, ours / base


def main() -> None:
    """Parse the command line, measure, print, and write the Markdown file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    parser.add_argument("--load", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        measure_load(str(options.source))
        return
    with tempfile.TemporaryDirectory(dir=options.source.parent) as folder:
        files, writing = write_files(options.source, Path(folder))
        found: dict[str, list[dict[str, float]]] = {name: [] for name in files}
        for _ in range(options.rounds):
            for name, file in files.items():
                command = [sys.executable, __file__, "--load", str(file)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
        nbytes = {name: file.stat().st_size for name, file in files.items()}
    median = {
        name: {key: statistics.median(run[key] for run in runs) for key in ("seconds", "peak_mb")}
        for name, runs in found.items()
    }
    packages = " ".join(f"{name} {metadata.version(name)}" for name in ("onnx", "onnxruntime", "numpy", "onnxprune"))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    weights_mb = nbytes["dense"] / 1e6
    table = [
        f"{date.today()}, {machine}, {packages}; medians of {options.rounds} runs in turns",
        "",
        "| file | bytes | of dense | load CPU s | x dense | peak MB | x dense's peak | x dense weights |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in ("dense", "auto", "shared:4"):
        seconds, peak = median[name]["seconds"], median[name]["peak_mb"]
        cells = [f"{nbytes[name]:,}", f"{nbytes[name] / nbytes['dense']:.4f}", f"{seconds:.2f}"]
        cells += [f"{seconds / median['dense']['seconds']:.2f}", f"{peak:,.0f}"]
        cells += [f"{peak / median['dense']['peak_mb']:.2f}", f"{peak / weights_mb:.2f}"]
        table.append(f"| {name} | {' | '.join(cells)} |")
    table += ["", f"Pruning, encoding and writing `auto` took {writing:.2f} x onnx.load + onnx.save of the dense file."]
    text = "\n".join(table) + "\n"
    print(text)
    if options.markdown:
        given = "python tests/benchmarks/encoded_load.py VGG16.onnx"
        about = "\n".join((__doc__ or "").strip().splitlines()[4:])
        options.markdown.write_text(f"# Loading encoded weights\n\nWritten by `{given}`.\n\n{text}\n{about}\n")


if __name__ == "__main__":
    main()
