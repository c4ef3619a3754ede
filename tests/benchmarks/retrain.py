"""What `onnxprune retrain` brings back: test accuracy of two networks dense, pruned, and retrained by one command each.

    python tests/benchmarks/retrain.py --work FOLDER [--only lenet_5|resnet20] [--markdown docs/benchmarks/retrain.md]
    python tests/benchmarks/retrain.py --work FOLDER --choose

Needs ONNXPRUNE_DATA, the folder with mnist/, cifar10/ and models/, and torch. FOLDER keeps what each command wrote; a
run that was cut short goes on there. `--choose` measures the candidates for resnet20 on 1000 training pictures that are
held out from training; the test pictures are scored with the chosen recipe alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib import metadata
from pathlib import Path

import numpy as np
from onnxprune_passes.encode import densify
from onnxprune_passes.storage import load
from onnxprune_passes.weights import find_weights

from onnxprune.metrics import metric_from
from onnxprune.runtime import open_session, run
from onnxprune.samples import read_samples

ROOT = Path(__file__).parents[2]
RESNET = "cifar_resnet20_jpegft_op13"
COMMON = ("--threads", "1", "--seed", "0", "--device", "cpu")
LAST = ("--validation", "0", "--keep", "last")
DISTILL = ("--temperature", "4", "--distill-weight", "0.9")
CHOSEN = "adamw 2e-3"
CANDIDATES = {
    "sgd 0.02": ("--optimizer", "sgd", "--nesterov", "--lr", "0.02", "--weight-decay", "1e-4", "--clip-norm", "1"),
    "adamw 1e-3": ("--optimizer", "adamw", "--lr", "1e-3", "--weight-decay", "0.01"),
    "adamw 2e-3": ("--optimizer", "adamw", "--lr", "2e-3", "--weight-decay", "0.01"),
    "adamw 3e-3": ("--optimizer", "adamw", "--lr", "3e-3", "--weight-decay", "0.01"),
}
RESNET_EPOCHS = 10


@dataclass(frozen=True)
class Case:
    """A model, what prunes it and what retrains it; paths are filled in for {data}, {train} and {dense}."""

    name: str
    model: Path
    prune: tuple[str, ...]
    retrain: tuple[str, ...]
    limit: float | None = None

    @property
    def file(self) -> str:
        """The stem of what is written."""
        return self.name.replace(" ", "_").replace(",", "").replace("%", "")


def cases(data: Path) -> list[Case]:
    """Every row of the table."""
    lenet, resnet = ROOT / "models" / "lenet_5.onnx", data / "models" / f"{RESNET}.onnx"
    optimizers = {
        "sgd": ("--optimizer", "sgd", "--momentum", "0.9", "--lr", "0.01"),
        "adamw": ("--optimizer", "adamw", "--lr", "5e-4"),
    }
    short = ("--data", "{train}", *LAST, "--epochs", "3", "--schedule", "cosine")
    found = [
        Case(f"lenet_5, 10 %, {optimizer}", lenet, ("--sparsity", "0.9"), (*short, *options), 0.15)
        for optimizer, options in optimizers.items()
    ]
    for density, limit in ((30, 1.5), (15, None)):
        retrain = ("--data", "models.cifar10:augmented", *LAST, *resnet_recipe(CHOSEN, RESNET_EPOCHS))
        prune = ("--sparsity", f"{1 - density / 100:.2f}")
        found.append(Case(f"resnet20, {density} %, adamw", resnet, prune, retrain, limit))
    return found


def resnet_recipe(name: str, epochs: int) -> tuple[str, ...]:
    """The options of a candidate: distilled from the dense model, the learning rate falling to 0 on a half cosine."""
    how = ("--teacher", "{dense}", *DISTILL, "--schedule", "cosine", "--warmup", "0.15")
    return (*how, "--epochs", str(epochs), *CANDIDATES[name])


def command(*args: str | Path) -> None:
    """Run `onnxprune` with these arguments, from the root of the repository."""
    print("$ onnxprune", shlex.join(map(str, args)), file=sys.stderr, flush=True)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "onnxprune", *map(str, args)], check=True, cwd=ROOT, env=environment, stdout=2
    )


def script_npz(name: str, split: str, work: Path) -> Path:
    """What models/NAME.py writes of one split."""
    path = work / f"{name}_{split}.npz"
    if not path.exists():
        script = ROOT / "models" / f"{name}.py"
        subprocess.run([sys.executable, script, "--split", split, "--out", path], check=True, stdout=2)
    return path


def accuracy(model: Path, data: Path) -> float:
    """Share of the test samples whose first class is the label, in onnxruntime."""
    metric = metric_from("accuracy")
    with open_session(model, optimize=True, threads=1) as session:
        samples = read_samples(str(data), session.inputs)
        for start in range(0, len(samples), 100):
            feeds, labels = samples.batch(np.arange(start, min(start + 100, len(samples))))
            assert labels is not None
            metric.update(run(session, feeds)[session.outputs[0].name], labels)
    return metric.value()


def density_of(path: Path, before: Path) -> float:
    """Kept weights of `path` as a share of the prunable ones of `before`."""
    kept = sum(int(np.count_nonzero(array)) for array in weights_of(path))
    return kept / sum(array.size for array in weights_of(before))


def weights_of(path: Path) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Every prunable weight of a file, encoded or not."""
    model = densify(load(path))
    return [np.asarray(model.initializers[weight.key]) for weight in find_weights(model)]


def revived(pruned: Path, retrained: Path) -> int:
    """How many entries are zero in the one file and not in the other."""
    pairs = zip(weights_of(pruned), weights_of(retrained), strict=True)
    return sum(int(np.count_nonzero(after[before == 0])) for before, after in pairs)


def retrain(case: Case, pruned: Path, work: Path, suffix: str = "") -> Path:
    """Retrain what was pruned, unless it is there."""
    out = work / f"{case.file}{suffix}.retrained.onnx"
    if not out.exists():
        command("retrain", pruned, "-o", out, *filled(case.retrain, case.model, work), *COMMON)
    return out


def filled(options: Sequence[str], dense: Path, work: Path) -> list[str]:
    """The options with paths in them."""
    places = {"{dense}": str(dense)}
    if "{train}" in options:
        places["{train}"] = str(script_npz("mnist", "train", work))
    return [places.get(option, option) for option in options]


def row(case: Case, work: Path) -> str:
    """One line of the table; fails when a pruned weight came back or a limit is missed."""
    pruned = work / f"{case.file}.pruned.onnx"
    if not pruned.exists():
        command(case.model, *case.prune, "-o", pruned, "--quiet")
    retrained = retrain(case, pruned, work)
    test = script_npz("mnist" if "lenet" in case.name else "cifar10", "test", work)
    dense, before, after = (100 * accuracy(path, test) for path in (case.model, pruned, retrained))
    back = revived(pruned, retrained)
    assert back == 0, f"{case.name}: {back} pruned weights came back"
    within = "" if case.limit is None else f"{case.limit} ({'met' if after >= dense - case.limit else 'missed'})"
    print(case.name, dense, before, after, file=sys.stderr, flush=True)
    return (
        f"| {case.name} | {100 * density_of(pruned, case.model):.1f} % | {dense:.2f} % | {before:.2f} % "
        f"| {after:.2f} % | {after - dense:+.2f} | {within} | {back} |"
    )


def same_bytes(case: Case, work: Path) -> str:
    """Whether the command, with one epoch, writes the same file twice."""
    pruned = work / f"{case.file}.pruned.onnx"
    options = list(case.retrain)
    options[options.index("--epochs") + 1] = "1"
    short = replace(case, retrain=tuple(options))
    first, second = (retrain(short, pruned, work, f".epoch.{turn}").read_bytes() for turn in ("first", "second"))
    wrote = "the same file, byte for byte" if first == second else "ANOTHER file"
    return f"- {case.name}, one epoch: a second run of the command wrote {wrote}."


def choose(data: Path, work: Path, epochs: int) -> list[str]:
    """The candidates for resnet20 at 30 %: accuracy on held-out training pictures after a few epochs."""
    case = next(case for case in cases(data) if case.name == "resnet20, 30 %, adamw")
    pruned = work / f"{case.file}.pruned.onnx"
    if not pruned.exists():
        command(case.model, *case.prune, "-o", pruned, "--quiet")
    lines = ["| candidate | epochs | accuracy on 1000 held-out training pictures, last epoch |", "|---|---|---|"]
    for name in CANDIDATES:
        report = work / f"choose_{name.replace(' ', '_')}.json"
        if not report.exists():
            options = filled(resnet_recipe(name, epochs), case.model, work)
            out = report.with_suffix(".onnx")
            given = ("--data", "models.cifar10:split", "--keep", "last", "--no-check", "--json", str(report))
            command("retrain", pruned, "-o", out, *options, *given, *COMMON, "--overwrite")
        found = json.loads(report.read_text())
        lines.append(f"| {name} | {epochs} | {100 * found['training']['epochs'][-1]['metric']:.1f} % |")
    return lines


def document(lines: Sequence[str], chosen: Sequence[Case], again: Sequence[str]) -> str:
    """The page, with the commands."""
    packages = " ".join(
        f"{name} {metadata.version(name)}" for name in ("onnx", "onnxruntime", "torch", "numpy", "onnxprune")
    )
    commands = [
        f"    # {case.name}\n    onnxprune {case.model.name} {shlex.join(case.prune)} -o pruned.onnx\n"
        f"    onnxprune retrain pruned.onnx {' '.join(case.retrain)}"
        for case in chosen
    ]
    head = (
        "| network, asked density, optimizer | density | dense | pruned | retrained | points | allowed | revived |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    return "\n".join(
        [
            f"{date.today()}, one thread of {processor()}, Python {platform.python_version()}, {packages}",
            "",
            "Accuracy on the 10,000 test images, in onnxruntime. Density is of the dense model's prunable weights.",
            "",
            head,
            *lines,
            "",
            *(["The same bits again (one machine, one thread, one seed):", "", *again, ""] if again else []),
            "resnet20 learns from the dense model, on 10,000 training pictures, cut and mirrored at random. Its rate",
            "lies between two that did equally well on training pictures held out from training (`--choose` compares",
            "such candidates); the test pictures were scored with this recipe alone.",
            "",
            "The commands; `train.npz` is what `models/mnist.py --split train` writes, `dense.onnx` the file before",
            "pruning:",
            "",
            "\n\n".join(commands).replace("{", "").replace("}", ".npz").replace("dense.npz", "dense.onnx"),
            "",
        ]
    )


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    """Parse the command line, run what is asked for, print the page, and write the Markdown file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where files are kept between runs")
    parser.add_argument("--only", action="append", default=[], help="only the rows whose name begins so; repeatable")
    parser.add_argument("--choose", action="store_true", help="measure the candidates for resnet20 instead")
    parser.add_argument("--epochs", type=int, default=4, help="of each candidate")
    parser.add_argument("--markdown", type=Path, help="write the page here too")
    options = parser.parse_args()
    data = Path(os.environ["ONNXPRUNE_DATA"]).resolve()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if options.choose:
        print("\n".join(choose(data, work, options.epochs)))
        return
    chosen = [case for case in cases(data) if case.name.startswith(tuple(options.only) or "")]
    lines = [row(case, work) for case in chosen]
    text = document(lines, chosen, [same_bytes(case, work) for case in chosen if case.name == "lenet_5, 10 %, sgd"])
    print(text)
    if options.markdown:
        call = f"python tests/benchmarks/retrain.py --work FOLDER --markdown {options.markdown}" + "".join(
            f" --only {shlex.quote(one)}" for one in options.only
        )
        options.markdown.write_text(f"# What retraining brings back\n\nWritten by `{call}`.\n\n{text}")


if __name__ == "__main__":
    main()
