"""Figure 5 of Han et al. 2015 on LeNet-300-100: what pruning costs with L1 and L2, retrained or not, and in rounds.

    python models/paper/trade_off.py --dense FILE --work FOLDER [--output docs/figures/trade_off.png]

FILE is a LeNet-300-100 trained on the first 50,000 training images (`train_lenets.py --validate --out`); all curves
are measured on the last 10,000. It is trained on for some epochs with an L1 or an L2 penalty; both results are pruned
to each sparsity and retrained under the same penalty, with the metric taken before and after; one is pruned in rounds.
Every step is a
command of the project, needs ONNXPRUNE_DATA, and is left out where its report is there already.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from models.paper.measures import command

SPARSITIES: Final = (0.5, 0.8, 0.9, 0.95, 0.98)
PENALTIES: Final = {"L1": ("--l1", "1e-5"), "L2": ("--l2", "5e-5")}
DATA: Final = ("--data", "models.mnist:split")
TRAINING: Final = ("--batch-size", "128", "--nesterov", "--schedule", "cosine", "--keep", "last", "--threads", "1")
BASE: Final = ("--epochs", "3", "--lr", "0.05")
RETRAIN: Final = ("--retrain", "--epochs", "2", "--lr", "0.01")
FILE: Final = ("--no-shrink", "--encode", "dense", "--quiet")


def base(dense: Path, penalty: str, work: Path) -> Path:
    """The dense network after some epochs with a penalty."""
    out = work / f"{penalty}.onnx"
    if not out.exists():
        command("retrain", dense, "-o", out, *DATA, *TRAINING, *BASE, *PENALTIES[penalty])
    return out


def pruned(source: Path, name: str, penalty: str, sparsity: float, work: Path, *more: str) -> Path:
    """The report of pruning `source` to `sparsity` and retraining it."""
    report = work / f"{name}.json"
    if not report.exists():
        files = ("-o", work / f"{name}.onnx", "--json", report)
        training = (*TRAINING, *RETRAIN, *PENALTIES[penalty])
        command(source, "--sparsity", str(sparsity), *DATA, *training, *more, *FILE, *files)
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
        reports = [pruned(source, f"{penalty}.{one}", penalty, one, work) for one in SPARSITIES]
        files = ",".join(map(str, reports))
        curves += ["--untrained", f"{penalty}, not retrained={files}", "--curve", f"{penalty}, retrained={files}"]
    rounds = ("--rounds", str(len(SPARSITIES)), "--rounds-schedule", ",".join(map(str, SPARSITIES)))
    report = pruned(work / "L2.onnx", "L2.rounds", "L2", SPARSITIES[-1], work, *rounds)
    curves += ["--curve", f"L2, in rounds={report}"]
    target = output.resolve() if output else work / "trade_off.png"
    command("plot", "trade-off", *curves, "--floor", "-0.08", "-o", target)


if __name__ == "__main__":
    main()
