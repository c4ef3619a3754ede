"""Time and memory on a VGG-16 (138 M weights, 553 MB): prune 90 % global and write, beside onnx.load + onnx.save and
beside onnxsim.

    python tests/benchmarks/vgg16.py [--rounds 5] [--work FOLDER] [--rows load+save,dense,...] [--markdown
    docs/benchmarks/vgg16.md]

Every measurement is a process of its own; the rows take turns, so that a drift of the machine's speed meets all of
them alike. Seconds are counted inside the process from after its imports to after the last byte is on disk. Peak
memory is the largest RssAnon + RssShmem of /proc/self/status, sampled every 10 ms (pages of files that are merely
mapped do not count); VmHWM, which counts them, stands beside it. onnxsim takes part when it is installed (`pip
install onnxsim==0.8.1`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import date
from importlib import metadata, util
from pathlib import Path

SPARSITY = 0.9


class PeakMemory:
    """Samples this process every 10 ms in a thread; `peak_mb` is the largest RssAnon + RssShmem so far."""

    def __init__(self) -> None:
        self.peak_mb = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.peak_mb = max(self.peak_mb, _status_mb("RssAnon") + _status_mb("RssShmem"))
            time.sleep(0.01)


def _status_mb(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1000
    return 0.0


def load_and_save(source: Path, target: Path) -> Callable[[], None]:
    import onnx

    external = source.with_suffix(".onnx.data").exists()

    def run() -> None:
        model = onnx.load(source)
        onnx.save(model, target, save_as_external_data=external, location=target.name + ".data")

    return run


def _pruned(source: Path, score: str) -> object:
    from onnxprune.passes import MagnitudePrune, Sparsity, State, load

    threshold = Sparsity(SPARSITY, score="lamp" if score == "lamp" else "magnitude")
    return MagnitudePrune(threshold)(State(load(source))).model


def prune_dense(source: Path, target: Path, score: str = "magnitude") -> Callable[[], None]:
    from onnxprune.passes import Model, save

    def run() -> None:
        model = _pruned(source, score)
        assert isinstance(model, Model)
        save(model, target)

    return run


def prune_gaps(source: Path, target: Path) -> Callable[[], None]:
    from onnxprune.passes import Model, encode_model, save

    def run() -> None:
        model = _pruned(source, "magnitude")
        assert isinstance(model, Model)
        save(encode_model(model, "gaps").model, target)

    return run


def whole_command(source: Path, target: Path) -> Callable[[], None]:
    """`onnxprune SOURCE --sparsity 0.9 --score magnitude --encode gaps`, verification and all."""
    from onnxprune.prune import prune_file
    from onnxprune.resolve import options_from

    given = {"output": str(target), "sparsity": SPARSITY, "score": "magnitude", "encode": "gaps", "check": 1}
    options = options_from(str(source), given, None)

    def run() -> None:
        report = prune_file(options)
        assert report.verified, report.error

    return run


def onnxsim_magnitude(source: Path, target: Path) -> Callable[[], None]:
    import onnx
    import onnxsim

    def run() -> None:
        pruned = onnxsim.apply_magnitude_pruning(onnx.load(source), sparsity=SPARSITY, global_sparsity=True)
        onnx.save(pruned, target)

    return run


ROWS: dict[str, Callable[[Path, Path], Callable[[], None]]] = {
    "load+save": load_and_save,
    "dense": prune_dense,
    "dense, LAMP": lambda source, target: prune_dense(source, target, "lamp"),
    "gaps": prune_gaps,
    "whole command, verified": whole_command,
    "onnxsim": onnxsim_magnitude,
}


def measure(row: str, source: Path, target: Path) -> None:
    """Run one row in this process and print what it took as JSON."""
    run = ROWS[row](source, target)
    memory = PeakMemory()
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_mb": memory.peak_mb, "hwm_mb": _status_mb("VmHWM")}))


def _bytes_written(target: Path) -> int:
    return sum(file.stat().st_size for file in target.parent.iterdir())


def run_rows(rows: list[str], source: Path, rounds: int) -> dict[str, list[dict[str, float]]]:
    """The measurements of each row, one a round, the rows taking turns."""
    found: dict[str, list[dict[str, float]]] = {row: [] for row in rows}
    for _ in range(rounds):
        for row in rows:
            with tempfile.TemporaryDirectory(dir=source.parent) as folder:
                target = Path(folder) / "out.onnx"
                command = [sys.executable, __file__, "--row", row, str(source), str(target)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                numbers: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
                found[row].append({**numbers, "bytes": _bytes_written(target)})
            print(f"{row}: {numbers['seconds']:.2f} s", file=sys.stderr, flush=True)
    return found


def table(found: dict[str, list[dict[str, float]]], model_bytes: int) -> str:
    """The medians as a Markdown table, times as a multiple of load+save's in the same run."""
    base = statistics.median(run["seconds"] for run in found["load+save"])
    lines = [
        "| row | seconds | x load+save | peak MB | x model | VmHWM MB | bytes written |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, runs in found.items():
        seconds, peak, hwm, size = (
            statistics.median(run[key] for run in runs) for key in ("seconds", "peak_mb", "hwm_mb", "bytes")
        )
        share = peak * 1e6 / model_bytes
        lines.append(
            f"| {row} | {seconds:.2f} | {seconds / base:.2f} | {peak:,.0f} | {share:.2f} | {hwm:,.0f} | {size:,.0f} |"
        )
    return "\n".join(lines)


def generate(folder: Path) -> dict[str, Path]:
    """VGG-16 twice, made by models/generate_vgg16.py: in one file, and with external weights."""
    script = Path(__file__).parents[2] / "models" / "generate_vgg16.py"
    files = {"one file": folder / "one" / "vgg16.onnx", "external weights": folder / "external" / "vgg16.onnx"}
    for kind, file in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            external = [] if kind == "one file" else ["--external"]
            subprocess.run([sys.executable, script, "--out", file, *external], check=True)
    return files


def main() -> None:
    """Parse the command line, measure, print, and write the Markdown file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="keep the models here; default: a temporary folder")
    parser.add_argument("--rows", default=",".join(row.replace(",", ";") for row in ROWS), help="rows, comma-separated")
    parser.add_argument("--markdown", type=Path, help="write the tables here too")
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        measure(options.row[0], Path(options.row[1]), Path(options.row[2]))
        return
    rows = [row.replace(";", ",") for row in options.rows.split(",")]
    if "onnxsim" in rows and util.find_spec("onnxsim") is None:
        print("onnxsim is not installed: its row is left out (pip install onnxsim==0.8.1)", file=sys.stderr)
        rows.remove("onnxsim")
    folder = options.work or Path(tempfile.mkdtemp())
    packages = " ".join(f"{name} {metadata.version(name)}" for name in ("onnx", "onnxruntime", "numpy", "onnxprune"))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    text = f"{date.today()}, {machine}, {packages}; medians of {options.rounds} interleaved runs\n"
    for kind, file in generate(folder).items():
        wanted = [row for row in rows if row != "onnxsim" or kind == "one file"]
        text += f"\n### {kind}\n\n{table(run_rows(wanted, file, options.rounds), _bytes_written(file))}\n"
    if not options.work:
        shutil.rmtree(folder)
    print(text)
    if options.markdown:
        command = "python tests/benchmarks/vgg16.py " + " ".join(sys.argv[1:])
        options.markdown.write_text(f"# VGG-16: seconds and memory\n\nWritten by `{command}`.\n\n{text}")


if __name__ == "__main__":
    main()
