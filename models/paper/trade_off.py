"""Figure 5 of Han et al. 2015 on LeNet-300-100: what pruning costs with L1 and L2, retrained or not, and in rounds.

    python models/paper/trade_off.py --dense FILE --work FOLDER [--output docs/figures/trade_off.png]

FILE is a LeNet-300-100 trained on the first 50,000 training images (`train_lenets.py --validate --out`); all curves
are measured on the last 10,000. It is trained on for some epochs with an L1 or an L2 penalty; both results are pruned
to each sparsity, as they are or with retraining under the same penalty; one is pruned in rounds. Every step is a
command of the project, needs ONNXPRUNE_DATA, and is left out where its report is there already.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from models.paper.faithful import command
else:
    from faithful import command  # the neighbour: Python puts a script's own folder on its path

SPARSITIES: Final = (0.5, 0.67, 0.8, 0.88, 0.92, 0.95, 0.97, 0.98)
PENALTIES: Final = {"L1": ("--l1", "1e-5"), "L2": ("--l2", "5e-5")}
DATA: Final = ("--data", "models.mnist:split")
HELD_OUT: Final = ("--data-option", "count=10000")
TRAINING: Final = ("--batch-size", "128", "--nesterov", "--schedule", "cosine", "--keep", "last", "--threads", "1")
BASE: Final = ("--epochs", "5", "--lr", "0.05")
RETRAIN: Final = ("--epochs", "2", "--lr", "0.01")
FILE: Final = ("--no-shrink", "--encode", "dense", "--quiet")


def base(dense: Path, penalty: str, work: Path) -> Path:
    """The dense network after some epochs with a penalty."""
    out = work / f"{penalty}.onnx"
    if not out.exists():
        command("retrain", dense, "-o", out, *DATA, *TRAINING, *BASE, *PENALTIES[penalty])
    return out


def one_shot(source: Path, penalty: str, sparsity: float, work: Path, *, retrain: bool) -> Path:
    """The report of pruning `source` to `sparsity` at once."""
    name = f"{penalty}.{sparsity}.{'retrained' if retrain else 'pruned'}"
    report = work / f"{name}.json"
    if not report.exists():
        more = ("--retrain", *TRAINING, *RETRAIN, *PENALTIES[penalty]) if retrain else HELD_OUT
        files = ("-o", work / f"{name}.onnx", "--json", report)
        command(source, "--sparsity", str(sparsity), *DATA, *more, *FILE, *files)
    return report


def in_rounds(source: Path, penalty: str, work: Path) -> Path:
    """The report of pruning `source` to all sparsities, one after the other."""
    report = work / f"{penalty}.rounds.json"
    if not report.exists():
        schedule = ("--rounds", str(len(SPARSITIES)), "--rounds-schedule", ",".join(map(str, SPARSITIES)))
        files = ("-o", work / f"{penalty}.rounds.onnx", "--json", report)
        training = ("--retrain", *schedule, *TRAINING, *RETRAIN, *PENALTIES[penalty])
        command(source, "--sparsity", str(SPARSITIES[-1]), *DATA, *training, *FILE, *files)
    return report


@click.command()
@click.option(
    "--dense", type=click.Path(path_type=Path, exists=True), required=True, help="The network, of 50,000 images."
)
@click.option("--work", type=click.Path(path_type=Path), required=True, help="The folder to write to.")
@click.option("--output", type=click.Path(path_type=Path), help="The figure; default: trade_off.png in the folder.")
def main(dense: Path, work: Path, output: Path | None) -> None:
    """Run all commands and draw the five curves."""
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    curves: list[str] = []
    for penalty in PENALTIES:
        source = base(dense.resolve(), penalty, work)
        for retrain in (False, True):
            reports = [one_shot(source, penalty, sparsity, work, retrain=retrain) for sparsity in SPARSITIES]
            label = f"{penalty}, {'retrained' if retrain else 'not retrained'}"
            curves += ["--curve", f"{label}={','.join(map(str, reports))}"]
    rounds = in_rounds(base(dense.resolve(), "L2", work), "L2", work)
    curves += ["--curve", f"L2, in rounds={rounds}"]
    command(
        "plot", "trade-off", *curves, "--floor", "-0.08", "-o", output.resolve() if output else work / "trade_off.png"
    )


if __name__ == "__main__":
    main()
