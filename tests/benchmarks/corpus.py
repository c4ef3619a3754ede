"""The table of all given models through `onnxprune MODEL --sparsity 0.5`, with their own inputs and with seeded ones.

    python tests/benchmarks/corpus.py [--sparsity 0.5] [--markdown docs/benchmarks/corpus.md]

Needs the folder of real models that ONNXPRUNE_DATA names (or ../shared/data). Each model is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Report = dict[str, Any]


def models() -> list[Path]:
    """Every model of the corpus, in order of name."""
    folder = Path(os.environ.get("ONNXPRUNE_DATA", ROOT.parent / "shared" / "data")) / "models"
    return sorted([*folder.glob("*.onnx"), *folder.glob("*/model.onnx")])


def inputs_of(model: Path) -> Path:
    """The `.inputs.npz` that comes with a model."""
    named = model.parent if model.name == "model.onnx" else model.with_suffix("")
    return named.with_name(f"{named.name}.inputs.npz")


def run(model: Path, folder: Path, *arguments: str) -> tuple[int, Report, str]:
    """The exit code, the JSON report and standard error of one run of the command."""
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "onnxprune", str(model), "-o", str(folder / "out.onnx"), *arguments]
    done = subprocess.run([*command, "--json", str(report), "--quiet"], capture_output=True, text=True, check=False)
    return done.returncode, json.loads(report.read_text()) if report.exists() else {}, done.stderr.strip()


def worst(report: Report, before: str, after: str) -> str:
    """The largest scaled error between two models of a run, over outputs and levels."""
    errors = [
        output["max_error"]
        for comparison in report.get("comparisons", ())
        if (comparison["before"], comparison["after"]) == (before, after)
        for output in comparison["outputs"]
    ]
    return "-" if not errors else "nan" if None in errors else f"{max(errors):.1e}"


def line(model: Path, sparsity: float, folder: Path) -> tuple[str, bool, bool]:
    """One row, and whether the model verified with its own inputs and with seeded ones."""
    with_data = run(model, folder, "--sparsity", str(sparsity), "--data", str(inputs_of(model)))
    without = run(model, folder, "--sparsity", str(sparsity))
    said = [
        "ok" if code == 0 and report.get("verified") else f"exit {code}: {error}"
        for code, report, error in (with_data, without)
    ]
    report = with_data[1]
    before, after = (report.get(side) or {"bytes": 0, "opset": 0} for side in ("input", "output"))
    layers = report.get("layers", ())
    parameters = [sum(layer[f"parameters_{side}"] for layer in layers) for side in ("before", "after")]
    skips = [skip for skip in report.get("skips", ()) if "fixed transform" in skip["reason"]]
    name = model.parent.name if model.name == "model.onnx" else model.stem
    errors = [worst(report, *pair) for pair in (("original", "encoded"), ("pruned", "shrunk"), ("dense", "encoded"))]
    row = (
        f"| {name} | {before['opset']} | {before['bytes']:,} | {after['bytes']:,} | {parameters[0]:,} "
        f"| {parameters[1]:,} | {len(skips)} | {' | '.join(errors)} | {' | '.join(said)} |"
    )
    return row, said[0] == "ok", said[1] == "ok"


def main() -> None:
    """Parse the command line, run every model, print the table, and write the Markdown file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    options = parser.parse_args()
    packages = " ".join(f"{name} {metadata.version(name)}" for name in ("onnx", "onnxruntime", "numpy", "onnxprune"))
    lines = [
        f"{date.today()}, {platform.machine()}, Python {platform.python_version()}, {packages}; "
        f"sparsity {options.sparsity}, default encoding.",
        "Errors are the largest, scaled by the largest output, over both optimisation levels. "
        "`fixed`: weights left alone as fixed transforms.",
        "",
        "| model | opset | bytes before | after | weights before | after | fixed "
        "| original → output | shrinking | encoding | own inputs | seeded inputs |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    verified = [0, 0]
    with tempfile.TemporaryDirectory() as folder:
        for model in models():
            row, own, seeded = line(model, options.sparsity, Path(folder))
            verified = [verified[0] + own, verified[1] + seeded]
            lines.append(row)
            print(row, file=sys.stderr, flush=True)
    lines += ["", f"Verified: {verified[0]} of {len(models())} with their own inputs, {verified[1]} with seeded ones."]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.markdown:
        options.markdown.parent.mkdir(parents=True, exist_ok=True)
        command = f"python tests/benchmarks/corpus.py --sparsity {options.sparsity} --markdown {options.markdown}"
        options.markdown.write_text(f"# Models from the wild, pruned in one shot\n\nWritten by `{command}`.\n\n{text}")


if __name__ == "__main__":
    main()
