"""Whole runs of the command: killed and taken up again, and in two processes under torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import load, save

from onnxprune.torch.train.checkpoints import FILE

ROOT = Path(__file__).resolve().parents[4]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")},
    "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "passes"))),
    "OMP_NUM_THREADS": "1",
}
COMMON = ("--batch-size", "31", "--validation", "0.2", "--keep", "last", "--epochs", "4")


def command(*args: object, processes: int = 1) -> list[str]:
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone"]
    return [*start, "-m", "onnxprune", "retrain", *map(str, args)]


def done(*args: object, processes: int = 1) -> subprocess.CompletedProcess[str]:
    found = subprocess.run(
        command(*args, processes=processes), env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300
    )
    assert found.returncode == 0, found.stderr
    return found


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(6000):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError(f"{path} did not appear")


@pytest.fixture
def file(pruned: State, tmp_path: Path) -> Path:
    return save(pruned.model, tmp_path / "net.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--lr", "0.05", "--dropout", "a=0.3", "--ema", "0.9", "--batch-norm", "train"),
        ("--optimizer", "adamw", "--lr", "0.01", "--train-only", "alternate", "--amp", "fp16", "--schedule", "cosine"),
    ],
    ids=["sgd", "adamw"],
)
def test_a_killed_run_ends_with_the_bits_of_an_unbroken_one(
    file: Path, digits_file: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    options = (*COMMON, "--data", str(digits_file), "--epochs", "40", "--checkpoint-steps", "5", *options)
    whole, broken = tmp_path / "whole.onnx", tmp_path / "broken.onnx"
    done(file, *options, "-o", whole)
    kills = 0
    for _ in range(3):
        checkpoint = tmp_path / "broken.onnx.checkpoint" / FILE
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
        process = subprocess.Popen(
            command(file, *options, "-o", broken),
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(checkpoint, process)
        while process.poll() is None and checkpoint.exists() and checkpoint.stat().st_mtime_ns == before:
            time.sleep(0.001)
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        assert not broken.exists() or process.returncode == 0
    assert kills
    report = tmp_path / "report.json"
    done(file, *options, "-o", broken, "--json", report)
    assert msgspec.json.decode(report.read_bytes())["training"]["resumed_at"] > 0
    assert broken.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*checkpoint*"))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_with_a_checkpoint(
    file: Path, digits_file: Path, tmp_path: Path, number: int, code: int
) -> None:
    options = (*COMMON, "--data", str(digits_file), "--epochs", "2000", "--lr", "0.01")
    process = subprocess.Popen(
        command(file, *options), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    checkpoint = tmp_path / "net.retrained.onnx.checkpoint" / FILE
    wait_for(checkpoint, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "interrupted: stopped after" in errors
    assert "Traceback" not in errors
    assert sorted(one.name for one in checkpoint.parent.iterdir()) == [FILE]
    assert not (tmp_path / "net.retrained.onnx").exists()


def distances(one: Path, other: Path) -> dict[str, float]:
    """By tensor: the largest difference over the largest entry; a bias before batch statistics stays at about 0."""
    first, second = load(one), load(other)
    assert first.skeleton.graph.node == second.skeleton.graph.node
    found = {}
    for key in first.initializers:
        a, b = (np.asarray(model.initializers[key], np.float64) for model in (first, second))
        found[key] = float(np.abs(a - b).max() / max(np.abs(a).max(), 0.01))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("--lr", "0.02", "--batch-norm", "train", "--weight-decay", "0.01", "--clip-norm", "1", "--l1", "0.001"),
        ("--optimizer", "adamw", "--lr", "0.001", "--train-only", "alternate", "--ema", "0.5"),
        ("--lr", "0.02", "--batch-norm", "recalibrate"),
    ],
    ids=["sgd and batch statistics", "adamw in turns", "recalibrated"],
)
def test_two_processes_train_as_one(
    file: Path, digits_file: Path, tmp_path: Path, pruned: State, options: tuple[str, ...]
) -> None:
    options = (*COMMON, "--data", str(digits_file), *options)
    one, two, again = (tmp_path / f"{name}.onnx" for name in ("one", "two", "again"))
    batch = ("--batch-size", "30")  # what two processes make of 31
    done(file, *options, *batch, "-o", one)
    said = done(file, *options, "-o", two, processes=2)
    assert said.stdout.count("Training (epoch 0") == 1
    assert "batches of 30 instead of 31: 2 processes share them evenly" in said.stdout
    tolerance = 0.02 if "recalibrate" in options else 1e-4
    found = distances(one, two)
    assert max(found.values()) < tolerance, found
    for key in pruned.masks:
        assert not load(two).initializers[key][~pruned.masks[key]].any()
    done(file, *options, "-o", again, processes=2)
    assert again.read_bytes() == two.read_bytes()


@pytest.mark.slow
def test_two_processes_are_interrupted_together_and_go_on(file: Path, digits_file: Path, tmp_path: Path) -> None:
    options = (*COMMON, "--data", str(digits_file), "--lr", "0.02", "--dropout", "a=0.2", "--epochs", "60")
    whole, broken = tmp_path / "whole.onnx", tmp_path / "broken.onnx"
    done(file, *options, "-o", whole, processes=2)
    checkpoint = tmp_path / "broken.onnx.checkpoint" / FILE
    process = subprocess.Popen(
        command(file, *options, "-o", broken, processes=2),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(checkpoint, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=90)
    assert process.returncode != 0
    assert checkpoint.exists()
    done(file, *options, "-o", broken, processes=2)
    assert broken.read_bytes() == whole.read_bytes()
    other = subprocess.run(
        command(file, *options, "-o", whole, "--checkpoint", tmp_path / "kept"),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert other.returncode == 0, other.stderr
    refused = subprocess.run(
        command(file, *options, "-o", whole, "--checkpoint", tmp_path / "kept", processes=2),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode != 0
    assert "the number of processes differs (1 there, 2 now)" in refused.stderr
