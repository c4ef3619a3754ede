"""Time of one run in onnxruntime on a CPU: the original, the pruned file, and Torch-Pruning's at equal MACs.

    python tests/benchmarks/latency.py [--peers PYTHON] [--pairs 60] [--threads 1,2] [--nets LeNet-5]
        [--scopes global,layer] [--round-to 8] [--markdown FILE]

Pruned is what `onnxprune M --channels 0.5 --encode dense` makes: channels ranked over all layers (global, its default)
or the same share of each (layer, as Torch-Pruning has it by default), rounded to 8. PYTHON is an interpreter that has
torch-pruning: its pruning ratio is adjusted until the MACs of its file agree with ours, rounded alike (peers.py); "not
equal" marks a network of so few channels that no ratio comes within 2 %. Two files at a time take turns in one
process, each first in turn, so that each runs as often behind itself as behind the other (behind a larger model caches
are cold), in sessions that are made anew in four rounds; denormals are flushed, threads of the waiting sessions rest,
and a sample lasts at least 1 ms (fast models run several times). Quotients are medians over the turns with a 95 %
bootstrap interval: "faster" means that the whole interval lies below 1.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from itertools import product
from pathlib import Path

import numpy as np
from nets import TIMED, export
from timed import Floats, machine, models_in_turn, quotient

from onnxprune.analysis import analyze_file

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TRAINED = {"LeNet-5": ROOT / "models" / "lenet_5.onnx"}
"""Networks that are in the repository as trained files; the others get seeded weights."""
CLOSE = 0.02


@dataclass(frozen=True)
class Files:
    """One network: original, pruned, and the peer's file, or why there is none."""

    name: str
    scope: str
    original: Path
    pruned: Path
    peer: Path | str

    @property
    def paths(self) -> list[Path]:
        """Those that are there."""
        return [self.original, self.pruned, *([self.peer] if isinstance(self.peer, Path) else [])]


def macs(path: Path) -> int:
    """Multiplications of one run, batch 1."""
    found = analyze_file(path).dense_macs
    assert found is not None, f"{path.name}: MACs are not known"
    return found


def files(name: str, scope: str, folder: Path, options: argparse.Namespace) -> Files:
    """Make the files of one network."""
    original, pruned, peer = (folder / f"{name}.{scope}.{what}.onnx" for what in ("original", "pruned", "peer"))
    rounding = ["--round-to", options.round_to]
    if name in TRAINED:
        original = TRAINED[name]
    else:
        export(TIMED[name].built(), TIMED[name].shape, original)
    command = [sys.executable, "-m", "onnxprune", str(original), "-o", str(pruned), "--channels", "0.5"]
    subprocess.run([*command, "--scope", scope, *rounding, "--encode", "dense", "--quiet"], check=True)
    if not options.peers:
        return Files(name, scope, original, pruned, "not run")
    command = [options.peers, str(HERE / "peers.py"), "torch-pruning", name, str(peer), "--macs", str(macs(pruned))]
    done = subprocess.run([*command, *rounding], capture_output=True, text=True, check=False)
    return Files(name, scope, original, pruned, peer if done.returncode == 0 else done.stderr.strip().splitlines()[-1])


def row(found: Files, threads: int, times: Floats, beside: Floats | None) -> str:
    """A line of the table from seconds [turns, 2]: of original and pruned, and of pruned and the peer's."""
    pruned = quotient(times[:, 1], times[:, 0])
    spent = [macs(path) for path in found.paths]
    cells = [found.name, found.scope, str(threads), f"{spent[0] / 1e6:.2f} → {spent[1] / 1e6:.2f}"]
    cells += [" → ".join(f"{one * 1e3:.3f}" for one in np.median(times[:, :2], axis=0)), str(pruned), pruned.verdict]
    if beside is not None:
        against, apart = quotient(beside[:, 0], beside[:, 1]), spent[2] / spent[1] - 1
        fair = "" if abs(apart) <= CLOSE else " (not equal)"
        cells += [f"{apart:+.1%}{fair}", f"{np.median(beside[:, 1]) * 1e3:.3f}", str(against), against.verdict]
    else:
        cells += [str(found.peer), "-", "-", "-"]
    return f"| {' | '.join(cells)} | {times.shape[0]} |"


def head() -> list[str]:
    """What stands before the rows."""
    packages = " ".join(f"{name} {metadata.version(name)}" for name in ("onnxruntime", "torch", "numpy", "onnxprune"))
    columns = [
        "net",
        "scope",
        "threads",
        "MACs, millions",
        "ms",
        "pruned / original",
        "",
        "Torch-Pruning's MACs beside ours",
    ]
    columns += ["its ms", "ours / its", "", "turns"]
    return [
        f"{date.today()}, {machine()}, Python {platform.python_version()}, {packages}.",
        "",
        f"| {' | '.join(columns)} |",
        "|---|---|--:|--:|--:|--:|---|--:|--:|--:|---|--:|",
    ]


def main() -> None:
    """Parse the command line, time every network, print the table, and write the Markdown file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=60, help="turns of each file, at least")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--nets", default=",".join(TIMED), help="some of the networks, by name")
    parser.add_argument("--scopes", default="global,layer")
    parser.add_argument("--round-to", default="8")
    parser.add_argument("--peers", help="an interpreter that has torch-pruning")
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        pairs = product(options.nets.split(","), options.scopes.split(","))
        for found in [files(name, scope, Path(folder), options) for name, scope in pairs]:
            for threads in map(int, options.threads.split(",")):
                two = models_in_turn([found.original, found.pruned], threads, options.pairs)
                peer = None
                if isinstance(found.peer, Path):
                    peer = models_in_turn([found.pruned, found.peer], threads, options.pairs)
                rows.append(row(found, threads, two, peer))
                print(rows[-1], file=sys.stderr, flush=True)
    text = "\n".join([*head(), *rows]) + "\n"
    print(text)
    if options.markdown:
        usage, _, told = (__doc__ or "").partition("\n\n")[2].partition("\n\n")
        options.markdown.write_text(f"# Time of pruned models\n\n```\n{usage.strip()}\n```\n\n{told}\n{text}")


if __name__ == "__main__":
    main()
