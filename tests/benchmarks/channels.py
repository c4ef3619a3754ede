"""What `onnxprune MODEL --channels 0.5` takes from the given models, and what keeps the rest where it is.

    python tests/benchmarks/channels.py [--channels 0.5] [--round-to 8] [--models dtln_1,…] [--markdown FILE]

Needs the folder of real models that ONNXPRUNE_DATA names (or ../shared/data). Each run is a process of its own. Where
onnxsim is installed, it gets the same model with the same channels zeroed (--no-shrink).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from datetime import date
from importlib import metadata, util
from pathlib import Path
from typing import Any

import onnx
from onnxprune_passes.errors import OnnxPruneError
from onnxprune_passes.storage import load

from onnxprune.analysis import analyze_file

ROOT = Path(__file__).resolve().parents[2]
SIMPLIFY = "import onnx, onnxsim, sys; onnx.save(onnxsim.simplify(sys.argv[1])[0], sys.argv[2])"
Report = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One model: its line of the table, and whether it shrank, verified, and kept its interface."""

    text: str
    shrank: bool
    verified: bool
    same_interface: bool


def models() -> list[Path]:
    """Every model of the corpus, in order of name."""
    folder = Path(os.environ.get("ONNXPRUNE_DATA", ROOT.parent / "shared" / "data")) / "models"
    return sorted([*folder.glob("*.onnx"), *folder.glob("*/model.onnx")])


def name_of(model: Path) -> str:
    """The model's name."""
    return model.parent.name if model.name == "model.onnx" else model.stem


def run(model: Path, output: Path, *arguments: str) -> tuple[int, Report, str]:
    """The exit code, the JSON report and standard error of one run of the command, on the model's own inputs."""
    report = output.with_suffix(".json")
    report.unlink(missing_ok=True)
    data = (model.parent if model.name == "model.onnx" else model).with_name(f"{name_of(model)}.inputs.npz")
    command = [sys.executable, "-m", "onnxprune", str(model), "-o", str(output), "--encode", "dense", *arguments]
    command += ["--data", str(data), "--json", str(report), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(report.read_text()) if report.exists() else {}, done.stderr.strip()


def entries(model: Path) -> int | None:
    """How many numbers the model's tensors hold; None when there is no such file."""
    try:
        initializers = load(model).initializers
    except OnnxPruneError:
        return None
    return sum(initializers.source(key).size for key in initializers)


def interface(model: Path) -> list[bytes]:
    """The inputs and outputs, as the file states them; not the weights, which old files list among the inputs."""
    graph = onnx.load(str(model), load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    values = [value for value in (*graph.input, *graph.output) if value.name not in weights]
    return [value.SerializeToString(deterministic=True) for value in values]


def share(part: float | None, whole: float | None) -> str:
    """A percentage, or a dash when there is none."""
    return "-" if part is None or not whole else f"{100 * part / whole:.1f}"


def pinned(model: Path, report: Report) -> tuple[int, int, str]:
    """All channels, those that stay whatever their weights are, and how many by which op (the worst four).

    Channels of weights that the walk does not reach count too; the report's skips tell of them.
    """
    by_op: Counter[str] = Counter()
    unpinned = sum(group.channels for group in analyze_file(model).channels if group.pinned_by is None)
    for skip in report.get("skips", ()):
        found = re.match(r"([\d,]+) channels? stays?: (.*)", skip["reason"])
        if skip["by"] == "prune-channels" and found:
            by_op[_op(found[2])] += int(found[1])
    total = unpinned + sum(count for op, count in by_op.items() if op != "fixed transform")
    said = ", ".join(f"{op} {share(count, total)}" for op, count in by_op.most_common(4))
    return total, sum(by_op.values()), said


def _op(reason: str) -> str:
    blocked = re.match(r"blocked by (graph output|\w+)", reason)
    where = " in a body" if "inside a body" in reason else ""
    return f"{blocked[1]}{where}" if blocked else "fixed transform" if "fixed transform" in reason else "other"


def in_a_cell(text: str) -> str:
    """What a run said went wrong, on one line and without warnings."""
    lines = [line for line in text.splitlines() if line.startswith("error:")] or text.splitlines()
    return " ".join(lines).replace("|", "/")


def simplified(model: Path, folder: Path, *arguments: str) -> str:
    """Share of the numbers that onnxsim removes from the model with its channels zeroed."""
    if util.find_spec("onnxsim") is None:
        return "-"
    masked, output = folder / "masked.onnx", folder / "simplified.onnx"
    output.unlink(missing_ok=True)
    if run(model, masked, *arguments, "--no-shrink", "--check", "0")[0]:
        return "-"
    subprocess.run([sys.executable, "-c", SIMPLIFY, str(masked), str(output)], capture_output=True, check=False)
    before, after = entries(model), entries(output)
    return "failed" if after is None or before is None else share(before - after, before)


def row(model: Path, folder: Path, *arguments: str) -> Row:
    """Run one model."""
    output = folder / "out.onnx"
    output.unlink(missing_ok=True)
    code, report, error = run(model, output, *arguments)
    before, after = entries(model), entries(output)
    same = code == 0 and interface(model) == interface(output)
    verified = code == 0 and bool(report.get("verified"))
    removed = None if before is None or after is None else before - after
    total, stay, said = pinned(model, report)
    cells = [
        name_of(model),
        "-" if before is None else f"{before:,}",
        "-" if after is None else f"{after:,}",
        share(removed, before),
        simplified(model, folder, *arguments),
        f"{total:,}",
        share(stay, total),
        said,
        "ok" if verified else f"exit {code}: {in_a_cell(error)}",
    ]
    return Row(f"| {' | '.join(cells)} |", bool(removed and removed > 0), verified, same)


def head(options: argparse.Namespace) -> list[str]:
    """What stands before the rows."""
    names = ["onnx", "onnxruntime", "numpy", "onnxprune", *(["onnxsim"] if util.find_spec("onnxsim") else [])]
    packages = " ".join(f"{name} {metadata.version(name)}" for name in names)
    return [
        f"{date.today()}, {platform.machine()}, Python {platform.python_version()}, {packages}; "
        f"channels {options.channels}, scope {options.scope}, rounded to {options.round_to}, stored dense.",
        "",
        "Numbers are entries of all tensors of the file, biases and constants too. `onnxsim`: what it removes from the "
        "same model with the same channels zeroed; less than 0 where it writes constants out. `pinned`: share of the "
        "channels that stay whatever their weights are, and the ops that keep most of them, each in percent of all "
        "channels. `verified`: exit 0, with the masked and the shrunk model compared in onnxruntime at both levels of "
        "optimisation on the model's own inputs.",
        "",
        "| model | numbers before | after | removed % | onnxsim % | channels | pinned % | by | verified |",
        "|---|--:|--:|--:|--:|--:|--:|---|---|",
    ]


def main() -> None:
    """Parse the command line, run every model, print the table, and write the Markdown file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=float, default=0.5)
    parser.add_argument("--round-to", default="8")
    parser.add_argument("--scope", default="global")
    parser.add_argument("--models", help="only these, by name, with commas between")
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    options = parser.parse_args()
    chosen = ["--channels", str(options.channels), "--round-to", options.round_to, "--scope", options.scope]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model in models():
            if options.models and name_of(model) not in options.models.split(","):
                continue
            rows.append(row(model, Path(folder), *chosen))
            print(rows[-1].text, file=sys.stderr, flush=True)
    counts = [sum(getattr(one, what) for one in rows) for what in ("shrank", "verified", "same_interface")]
    both = sum(one.shrank and one.verified for one in rows)
    lines = [*head(options), *(one.text for one in rows), ""]
    lines.append(
        f"Of {len(rows)} models {counts[0]} shrink, {counts[1]} verify, {both} do both; {counts[2]} keep every input "
        "and output as it was."
    )
    text = "\n".join(lines) + "\n"
    print(text)
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        command = f"python tests/benchmarks/channels.py {' '.join(chosen)} --markdown {options.markdown}"
        options.markdown.write_text(f"# Whole channels of models from the wild\n\nWritten by `{command}`.\n\n{text}")


if __name__ == "__main__":
    main()
