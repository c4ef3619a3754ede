"""The faithful track: LeNet-300-100 and LeNet-5 pruned 12 times as Han, Pool, Tran and Dally did it in 2015.

    python models/paper/faithful.py choose NETWORK --dense FILE --work FOLDER
    python models/paper/faithful.py run NETWORK --seed S --dense FILE --work FOLDER [--publish]
    python models/paper/faithful.py table [--markdown docs/benchmarks/paper_faithful.md]

Thresholds are quality parameters times the standard deviation of each layer's weights; the parameters come from our
sensitivity curves. What is left is retrained from its trained values at a tenth of the learning rate, with an L2
penalty and dropout that weakens with the connections (section 3.2 of the paper), and pruned again, round after round.

`choose` takes a network that `train_lenets.py --validate --out` trained on the first 50,000 training images, and
measures on the last 10,000: it writes the sensitivity curves, prints the parameters that `faithful.json` holds beside
those that the curves give, and the error of a run with that file. `run` takes a network trained on all 60,000, trains
on the same, scores the last epoch on the test images once, and writes NETWORK.S.json. With `--publish` the file and
how it came go to models/, and the result to `faithful_results.json`, which `table` reads.

All need MNIST in the folder that ONNXPRUNE_DATA names; an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from models.paper.measures import BIASES, HERE, ROOT, WEIGHTS, biases_of, command, errors_of, kept_of

RESULTS: Final = HERE / "faithful_results.json"
PUBLISHED: Final = {"lenet_300_100": (1.64, 1.59), "lenet_5": (0.80, 0.77)}
SEEDS: Final = range(5)
DENSITIES: Final = "1,0.8,0.6,0.5,0.4,0.3,0.25,0.2,0.15,0.12,0.1,0.08,0.06,0.05,0.04,0.03,0.02"


@dataclass(frozen=True)
class Config:
    """How one network is pruned.

    Attributes:
        max_drop: what a layer alone may cost without retraining; the sensitivity curves give its parameter for it.
        samples: how many of the held-out images the curves are measured on.
        scale: all parameters times this, so that the network as a whole has 12 times fewer weights.
        quality: weight → parameter, that of the curves (rounded) before `scale`.
        options: the options of `onnxprune MODEL --retrain`, by name.
    """

    max_drop: float
    samples: int
    scale: float
    quality: dict[str, float]
    options: dict[str, Any]

    def arguments(self) -> list[str]:
        """Everything that `onnxprune MODEL` is told about pruning and training."""
        layers = [f"--layer={name}={quality * self.scale:.4f}" for name, quality in self.quality.items()]
        return ["--quality", "0", *layers, "--retrain", *_arguments(self.options)]


def _arguments(options: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        found += [f"--{name}" if one is True else f"--{name}={one}" for one in values]
    return found


def config_of(network: str) -> Config:
    """What `faithful.json` says of a network."""
    return Config(**json.loads((HERE / "faithful.json").read_text())[network])


def pruned(network: str, dense: Path, data: str, work: Path, seed: int, *extra: str) -> Path:
    """The file that one run with the config writes, unless it is there."""
    out = work / f"{network}.{seed}.onnx"
    if not out.exists():
        fixed = ("--keep", "last", "--threads", "1", "--device", "cpu", "--seed", str(seed))
        files = ("-o", out, "--json", out.with_suffix(".report.json"), "--save-masks", out.with_suffix(".masks.npz"))
        command(dense, *config_of(network).arguments(), "--data", data, *extra, *fixed, *files)
    return out


@click.group()
def main() -> None:
    """Prune the LeNets as the paper did."""


_network = click.argument("network", type=click.Choice(list(WEIGHTS)))
_dense = click.option("--dense", type=click.Path(path_type=Path, exists=True), required=True, help="The dense file.")
_work = click.option("--work", type=click.Path(path_type=Path), required=True, help="The folder to write to.")


@main.command()
@_network
@_dense
@_work
def choose(network: str, dense: Path, work: Path) -> None:
    """Sensitivity curves, the parameters they give, and the held-out error with `faithful.json`."""
    config, work, dense = config_of(network), work.resolve(), dense.resolve()
    work.mkdir(parents=True, exist_ok=True)
    curves = work / f"{network}.sensitivity.json"
    if not curves.exists():
        given = ("--data", "models.mnist:split", "--densities", DENSITIES, "--max-drop", str(config.max_drop))
        how = ("--samples", str(config.samples), "--batch", "250", "--jobs", "1", "--json", curves)
        command("sensitivity", dense, *given, *how)
    for curve in json.loads(curves.read_text())["curves"]:
        found = curve["suggestion"]["quality"]
        print(f"{curve['name']}: {found:.3f} by the curve, {config.quality[curve['name']]:.3f} in faithful.json")
    out = pruned(network, dense, "models.mnist:split", work, 0)
    report = json.loads(out.with_suffix(".report.json").read_text())
    last = report["rounds"]["rounds"][-1]
    kept = sum(kept_of(out).values())
    print(
        f"{network}: {100 * (1 - report['rounds']['dense']['value']):.2f} % dense, {100 * (1 - last['metric']):.2f} % "
        f"with {kept:,} weights, {WEIGHTS[network] / kept:.2f} times fewer"
    )


@main.command("run")
@_network
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@_dense
@_work
@click.option("--publish", is_flag=True, help="Write the result, and of seed 0 the file, to models/.")
def run_seed(network: str, seed: int, dense: Path, work: Path, publish: bool) -> None:
    """Prune and retrain on all training images, and score the last epoch on the test images, once."""
    work, dense = work.resolve(), dense.resolve()
    work.mkdir(parents=True, exist_ok=True)
    result = work / f"{network}.{seed}.json"
    out = pruned(network, dense, "models.mnist:training", work, seed, "--validation", "0")
    if not result.exists():
        result.write_text(json.dumps(measured(network, seed, dense, out), indent=2) + "\n")
    found = json.loads(result.read_text())
    print(f"{network}, seed {seed}: {found['test_errors']} errors, {found['weights_kept']:,} weights")
    if publish:
        _publish(found, out)


def measured(network: str, seed: int, dense: Path, out: Path) -> dict[str, Any]:
    """What `faithful_results.json` holds of one run."""
    report = json.loads(out.with_suffix(".report.json").read_text())
    kept = kept_of(out)
    weights, parameters = sum(kept.values()), sum(kept.values()) + biases_of(out)
    return {
        "network": network,
        "seed": seed,
        "dense_test_errors": errors_of(dense, "models.mnist:test"),
        "test_errors": errors_of(out, "models.mnist:test"),
        "kept": kept,
        "weights_kept": weights,
        "weights_factor": WEIGHTS[network] / weights,
        "parameters_kept": parameters,
        "parameters_factor": (WEIGHTS[network] + BIASES[network]) / parameters,
        "bytes": out.stat().st_size,
        "bytes_dense": dense.stat().st_size,
        "rounds": [{key: one[key] for key in ("number", "density", "epochs")} for one in report["rounds"]["rounds"]],
        "arguments": config_of(network).arguments(),
        "tools": {**report["tools"], "torch": metadata.version("torch"), "machine": platform.machine()},
        "date": str(date.today()),
    }


def _publish(found: dict[str, Any], out: Path) -> None:
    """Put one run among the results; of seed 0, which is fixed in advance, the file and how it came into models/."""
    name, seed = found["network"], found["seed"]
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    others = [one for one in results if (one["network"], one["seed"]) != (name, seed)]
    order = list(WEIGHTS)
    results = sorted([*others, found], key=lambda one: (order.index(one["network"]), one["seed"]))
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    if seed == 0:
        file = ROOT / "models" / f"{name}_faithful.onnx"
        file.write_bytes(out.read_bytes())
        script = (
            f"python models/paper/faithful.py run {name} --seed 0 --dense models/{name}.onnx --work FOLDER --publish"
        )
        how = {"script": script, "dense": f"models/{name}.onnx", "trained_on": "60,000 training images", **found}
        file.with_suffix(".json").write_text(json.dumps(how, indent=2) + "\n")


@main.command()
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the page here too.")
def table(markdown: Path | None) -> None:
    """The results of all seeds, and tables 2 and 3 of the paper from the two files in models/."""
    text = page(json.loads(RESULTS.read_text()))
    print(text)
    if markdown:
        markdown.write_text(text)


def page(results: list[dict[str, Any]]) -> str:
    """The page of the faithful track as Markdown."""
    tools = results[0]["tools"]
    used = ", ".join(f"{name} {tools[name]}" for name in ("onnxprune", "onnx", "onnxruntime", "torch", "python"))
    lines = [
        "# The paper's LeNets, pruned as the paper did",
        "",
        "Written by `python models/paper/faithful.py table --markdown docs/benchmarks/paper_faithful.md` from",
        "`models/paper/faithful_results.json`, which `faithful.py run` wrote, and from the two files in `models/`.",
        f"{results[0]['date']}, {tools['machine']}, one thread; {used}.",
        "",
        "Thresholds are quality parameters times the standard deviation of each layer, from our sensitivity curves;",
        "L2, a tenth of the learning rate, dropout that weakens with the connections (`models/paper/faithful.json`).",
        "All of it was chosen on 10,000 held-out training images. Each seed is a dense network of its own, trained and",
        "pruned on all 60,000; the last epoch was scored on the 10,000 test images once. Bytes: encoded anew since.",
        "",
        "| network | seed | dense error | pruned error | weights kept | fewer weights | fewer parameters | bytes |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    networks = [network for network in WEIGHTS if any(one["network"] == network for one in results)]
    for network in networks:
        lines += _lines_of(network, [one for one in results if one["network"] == network])
    lines += ["", "± is the standard deviation over the seeds. Parameters count the biases too.", ""]
    return "\n".join(lines + [_layers(network) for network in networks])


def _lines_of(network: str, found: list[dict[str, Any]]) -> list[str]:
    lines = [
        f"| {network} | {one['seed']} "
        f"| {one['dense_test_errors'] / 100:.2f} % | {one['test_errors'] / 100:.2f} % "
        f"| {one['weights_kept']:,} | {one['weights_factor']:.2f}x | {one['parameters_factor']:.2f}x "
        f"| {one['bytes']:,} |"
        for one in found
    ]

    def spread(key: str, unit: float = 1) -> str:
        values = [one[key] / unit for one in found]
        return f"{statistics.mean(values):.2f} ± {statistics.stdev(values) if len(values) > 1 else 0:.2f}"

    lines.append(
        f"| {network} | mean | {spread('dense_test_errors', 100)} % | **{spread('test_errors', 100)} %** | "
        f"| **{spread('weights_factor')}x** | {spread('parameters_factor')}x | |"
    )
    before, after = PUBLISHED[network]
    lines.append(f"| the paper's | | {before:.2f} % | {after:.2f} % | | 12x | | |")
    return lines


def _layers(network: str) -> str:
    """`onnxprune inspect` of the file in models/, beside the paper's own columns."""
    from onnxprune.cli.render_layers import markdown_layers
    from onnxprune.layers import DataSource, layer_table

    file, dense = ROOT / "models" / f"{network}_faithful.onnx", ROOT / "models" / f"{network}.onnx"
    found = layer_table(file, DataSource("models.mnist:test"), dense=dense)
    published = json.loads((HERE / "published.json").read_text())[network]
    number = {"lenet_300_100": 2, "lenet_5": 3}[network]
    call = f"onnxprune inspect models/{file.name} --dense models/{dense.name} --data models.mnist:test --markdown FILE"
    theirs = [
        "| the paper's | Act % | Weights % | FLOP % |",
        "|---|---:|---:|---:|",
        *(f"| {name} | {' | '.join(map(str, row))} |" for name, row in published.items()),
    ]
    text = markdown_layers(found).replace(f"{ROOT}/", "")
    return "\n".join([f"## Table {number}: {network}", "", f"`{call}`", "", text, *theirs, ""])


if __name__ == "__main__":
    main()
