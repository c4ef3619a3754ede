"""Half of the channels of each coupled group: what `onnxprune` takes out of twelve networks, and what peers do.

    python tests/benchmarks/structured.py [--peers PYTHON] [--nets "ResNet18,LSTM"] [--markdown FILE.md]

The networks are written in torch (nets/) and exported by torch's own exporter. onnxprune prunes the file by
`onnxprune M --channels 0.5 --scope layer --round-to 1`, and in a second column with `--round-to 8`. PYTHON is an
interpreter that has onnxsim and torch-pruning: they prune the same file and the torch original (peers.py).

A row counts only if each axis of each weight keeps at least half of its size, every free group of n loses exactly
floor(n/2), onnxruntime runs the file at both levels of optimisation, and its answers are those of the dense model
whose chosen channels are masked: equal to the last bit on a copy of the network with whole numbers for weights where
its ops are exact (whole_numbers.py), within 1e-6 of the largest output otherwise.
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
from pathlib import Path

import onnx
from checks import error, halved, least_kept, removed, runs
from nets import NETS, Net, export
from whole_numbers import exact_copy

PEERS = Path(__file__).with_name("peers.py")
ROUNDINGS = (1, 8)
CLOSE = 1e-6
TITLES = ("onnxsim", "Torch-Pruning", "Torch-Pruning, rounded to 8")


@dataclass(frozen=True)
class Ours:
    """What one run of onnxprune made: percent removed, and what is wrong with it ('' when nothing is)."""

    percent: float
    error: float
    exact: bool | None
    problem: str


@dataclass(frozen=True)
class Row:
    """One network: ours by rounding, and what each of TITLES removed, in percent, or why there is no number."""

    name: str
    parameters: int
    ours: dict[int, Ours]
    peers: tuple[float | str, ...]

    @property
    def reaches(self) -> bool:
        """True when the row counts, and removes what the larger peer does, up to half a point."""
        best = max((one for one in self.peers[:2] if isinstance(one, float)), default=0.0)
        return not any(one.problem for one in self.ours.values()) and self.ours[1].percent >= max(best - 0.5, 0.01)

    def text(self) -> str:
        """Its line of the table."""
        exact = {True: "equal", False: "NOT equal", None: "-"}
        first = self.ours[1]
        cells = [
            self.name,
            f"{self.parameters:,}",
            *(f"{self.ours[one].percent:.1f}" for one in ROUNDINGS),
            *(f"{one:.1f}" if isinstance(one, float) else one for one in self.peers),
            exact[first.exact],
            f"{max(one.error for one in self.ours.values()):.0e}",
            "; ".join(dict.fromkeys(one.problem for one in self.ours.values() if one.problem))
            or ("yes" if self.reaches else "NO"),
        ]
        return f"| {' | '.join(cells)} |"


def prune(before: Path, after: Path, rounding: int, *arguments: str) -> str:
    """Run the command; what it said when it failed, '' otherwise."""
    command = [sys.executable, "-m", "onnxprune", str(before), "-o", str(after), "--channels", "0.5"]
    command += ["--scope", "layer", "--round-to", str(rounding), "--encode", "dense", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"exit {done.returncode}: {done.stderr.strip()[-200:]}"


def against_masked(net: Net, before: Path, rounding: int, *, whole: bool = False) -> tuple[float, str]:
    """How far the pruned file is from the masked dense model, and what failed ('' when nothing did)."""
    after, masked = before.with_suffix(f".{rounding}.onnx"), before.with_suffix(f".{rounding}.masked.onnx")
    unchecked = ("--check", "0")  # whole weights with clipped values magnify the rounding of inputs that are not whole
    failed = prune(before, after, rounding, *(unchecked if whole else ()))
    failed = failed or prune(before, masked, rounding, "--no-shrink", *unchecked)
    return (float("nan"), failed) if failed else (error(masked, after, net.shape, whole=whole), "")


def ours(net: Net, before: Path, rounding: int) -> Ours:
    """Prune a network by the command, and check what came out."""
    worst, problem = against_masked(net, before, rounding)
    if problem:
        return Ours(0.0, worst, None, problem)
    after, copy, exact = before.with_suffix(f".{rounding}.onnx"), exact_copy(onnx.load(str(before))), None
    if copy is not None:
        whole = before.with_suffix(".whole.onnx")
        onnx.save(copy, str(whole))
        apart, problem = against_masked(net, whole, rounding, whole=True)
        exact = apart == 0
    kept = least_kept(before, after)
    found = {
        "an axis keeps less than half": kept is None or kept < 0.5,
        "a group is not halved": rounding == 1 and not halved(before, after),
        "onnxruntime does not run it": not runs(after, net.shape),
        "the whole-number copy is not equal": exact is False,
        f"answers differ by {worst:.1e}": worst > (CLOSE if exact is None else 1e-5),
    }
    problems = [problem] if problem else [what for what, wrong in found.items() if wrong]
    return Ours(removed(before, after), worst, exact, "; ".join(problems))


def peer(python: str, net: Net, before: Path, *arguments: str) -> float | str:
    """Percent that a peer removed, or how it failed."""
    after = before.with_suffix(".peer.onnx")
    after.unlink(missing_ok=True)
    named = [str(after) if one == "AFTER" else one for one in arguments]
    done = subprocess.run([python, str(PEERS), *named], capture_output=True, text=True, check=False)
    if done.returncode or not after.exists():
        return (done.stderr.strip().splitlines() or ["failed"])[-1].split(":")[0].rpartition(".")[2]
    if not runs(after, net.shape):
        return "does not run"
    return removed(before, after)


def row(name: str, net: Net, folder: Path, python: str | None) -> Row:
    """Prune one network by everything."""
    before, module = folder / "net.onnx", net.built()
    count = sum(parameter.numel() for parameter in module.parameters())
    assert net.millions is None or round(count / 1e6, 2) == net.millions, f"{name} has {count:,} parameters"
    export(module, net.shape, before)
    found: tuple[float | str, ...] = ("not run",) * len(TITLES)
    if python:
        found = (
            peer(python, net, before, "onnxsim", str(before), "AFTER"),
            peer(python, net, before, "torch-pruning", name, "AFTER"),
            peer(python, net, before, "torch-pruning", name, "AFTER", "--round-to", "8"),
        )
    return Row(name, count, {rounding: ours(net, before, rounding) for rounding in ROUNDINGS}, found)


def head(python: str | None) -> list[str]:
    """What stands before the rows."""
    names = ("onnx", "onnxruntime", "numpy", "torch", "onnxprune")
    packages = " ".join(f"{name} {metadata.version(name)}" for name in names)
    beside = "the peers were not run"
    if python:
        done = subprocess.run([python, str(PEERS), "versions"], capture_output=True, text=True, check=True)
        beside = f"peers: {done.stdout.strip()}"
    columns = [
        "net",
        "parameters",
        "onnxprune",
        "rounded to 8",
        *TITLES,
        "whole-number copy",
        "error",
        "counts, and goal",
    ]
    return [
        f"{date.today()}, {platform.machine()}, Python {platform.python_version()}, {packages}; {beside}.",
        "",
        "Percent of the float numbers of the exported file (BatchNorm folded into convolutions) that are removed at "
        "channel sparsity 0.5, last layer, inputs and outputs kept. `parameters`: of the torch original. onnxprune "
        "rounds what stays up, Torch-Pruning down. Torch-Pruning is told where heads and halves of a split lie, and "
        "to leave the sums of the transformer block alone: without that its result does not run (peers.py). `error`: "
        "the largest difference / the largest output, pruned beside masked, real weights.",
        "",
        f"| {' | '.join(columns)} |",
        f"|---|{'--:|' * (len(columns) - 4)}---|--:|---|",
    ]


def main() -> None:
    """Parse the command line, run every network, print the table, and write the Markdown file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(NETS), help="some of the networks, by name")
    parser.add_argument("--peers", help="an interpreter that has onnxsim and torch-pruning")
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.nets.split(","):
            rows.append(row(name, NETS[name], Path(folder), options.peers))
            print(rows[-1].text(), file=sys.stderr, flush=True)
    good = sum(one.reaches for one in rows)
    text = "\n".join([*head(options.peers), *(one.text() for one in rows)])
    text += f"\n\n{good} of {len(rows)} rows count and reach the larger peer - 0.5 points.\n"
    print(text)
    if options.markdown:
        usage, _, told = (__doc__ or "").partition("\n\n")[2].partition("\n\n")
        options.markdown.write_text(
            f"# Half of the channels, by structure\n\n```\n{usage.strip()}\n```\n\n{told}\n{text}"
        )
    sys.exit(0 if good == len(rows) else 1)


if __name__ == "__main__":
    main()
