"""`onnxprune MODEL --retrain`: rounds of pruning and training, and then the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper
from onnxprune_passes.encode import densify
from onnxprune_passes.errors import DataError
from onnxprune_passes.masks import Masks
from onnxprune_passes.storage import load

from onnxprune.cli import interrupt
from onnxprune.cli.main import cli
from onnxprune.report import Report

FAST = ("--retrain", "--epochs", "2", "--lr", "0.02", "--batch-size", "20", "--keep", "last", "--threads", "1")


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


@pytest.fixture
def data(net: Path) -> Path:
    """300 samples, labelled by the net."""
    rng = np.random.default_rng(1)
    arrays = {one.name: numpy_helper.to_array(one) for one in onnx.load(net).graph.initializer}
    x = inputs = rng.standard_normal((300, 64)).astype(np.float32)
    for index in (1, 2, 3):
        x = x @ arrays[f"fc{index}.weight"].T + arrays[f"fc{index}.bias"]
        x = np.maximum(x, 0) if index < 3 else x
    path = net.with_name("data.npz")
    np.savez(path, x=inputs, labels=x.argmax(axis=1))
    return path


def report_of(net: Path, data: Path, *args: object, code: int = 0) -> Report:
    file = net.with_name("report.json")
    result = run(net, *FAST, "--data", data, "--json", file, *args)
    assert result.exit_code == code, result.output
    return msgspec.json.decode(file.read_bytes(), type=Report)


def test_rounds_reach_the_target_and_better_answers(net: Path, data: Path) -> None:
    longer = ("--sparsity", "0.9", "--no-shrink", "--validation-data", data, "--epochs", "8", "--lr", "0.005")
    report = report_of(net, data, *longer, "--rounds", "3")
    assert report.verified
    rounds = report.rounds
    assert rounds is not None
    assert [one.density for one in rounds.rounds] == pytest.approx([0.1 ** (k / 3) for k in (1, 2, 3)], abs=1e-3)
    assert rounds.dense is not None
    assert rounds.dense.value == 1
    last = rounds.rounds[-1]
    assert last.metric is not None
    assert last.metric_before is not None
    once = report_of(net, data, *longer).rounds
    assert once is not None
    assert once.rounds[0].metric_before is not None
    assert last.metric > once.rounds[0].metric_before + 0.1
    written = densify(load(net.with_name("net.pruned.onnx")))
    kept = sum(np.count_nonzero(written.initializers[f"fc{i}.weight"]) for i in (1, 2, 3))
    assert kept == round(0.1 * sum(written.initializers[f"fc{i}.weight"].size for i in (1, 2, 3)))
    assert not list(net.parent.glob("*.rounds"))


def test_the_table_of_rounds_is_printed(net: Path, data: Path) -> None:
    result = run(net, *FAST, "--data", data, "--rounds", "2")
    assert result.exit_code == 0, result.output
    assert "accuracy of the model as it came: 1.0000" in result.stdout
    assert "taken" in result.stdout


def test_options_of_the_training_are_read(net: Path, data: Path) -> None:
    report = report_of(net, data, "--epochs", "3", "--validation", "0.5", "--optimizer", "adamw")
    assert report.recipe.training is not None
    assert report.recipe.training.optimizer == "adamw"
    assert report.rounds is not None
    assert report.rounds.rounds[0].epochs == 3


def test_options_of_the_data_reach_the_training(net: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def spy(spec: str, _specs: Any, options: Any) -> Any:
        asked.append((spec, options))
        raise DataError("read enough")

    monkeypatch.setattr("onnxprune.torch.retrain.read_pair", spy)
    result = run(net, *FAST, "--data", data, "--data-option", "mean=0.5")
    assert "read enough" in result.stderr
    assert asked == [(str(data), ("mean=0.5",))]


def test_a_drop_that_no_round_keeps_exits_1_with_the_table(net: Path, data: Path) -> None:
    args = ("--sparsity", "0.98", "--rounds", "2", "--max-drop", "0.001", "--lr", "1e-6")
    report = report_of(net, data, *args, code=1)
    assert report.status == "failed"
    assert report.error is not None
    assert "no round is within --max-drop 0.001" in report.error
    assert report.rounds is not None
    assert len(report.rounds.rounds) == 2
    assert not net.with_name("net.pruned.onnx").exists()


def test_the_smallest_round_within_the_drop_is_written(net: Path, data: Path) -> None:
    args = (
        "--sparsity",
        "0.98",
        "--rounds",
        "2",
        "--rounds-schedule",
        "0.05,0.98",
        "--max-drop",
        "0.1",
        "--lr",
        "1e-6",
    )
    report = report_of(net, data, *args, "--no-shrink")
    assert report.rounds is not None
    assert report.rounds.taken == 1
    written = densify(load(net.with_name("net.pruned.onnx")))
    kept = sum(np.count_nonzero(written.initializers[f"fc{i}.weight"]) for i in (1, 2, 3))
    assert kept == round(0.95 * sum(written.initializers[f"fc{i}.weight"].size for i in (1, 2, 3)))


def test_rounds_shrink_and_have_their_own_epochs(net: Path, data: Path) -> None:
    folder = net.parent / "kept"
    args = ("--sparsity", "0.97", "--rounds", "2", "--rounds-epochs", "1,3", "--checkpoint", folder)
    rounds = report_of(net, data, *args, "--rounds-shrink", "--loss", "distill").rounds
    assert rounds is not None
    assert [one.epochs for one in rounds.rounds] == [1, 3]
    dense, last = load(net), load(folder / "02.onnx")
    sizes = [sum(model.initializers[f"fc{i}.weight"].size for i in (1, 2, 3)) for model in (dense, last)]
    assert sizes[1] < sizes[0]
    assert rounds.rounds[1].density == pytest.approx(0.03, abs=1 / sizes[0])
    assert np.array_equal(last.initializers["fc1.weight"] != 0, Masks.load(folder / "02.masks.npz")["fc1.weight"])


@pytest.mark.parametrize("option", [("--epochs", "3"), ("--rounds", "2"), ("--tensorboard", "logs"), ("--restart",)])
def test_options_of_a_training_need_retrain(net: Path, option: tuple[str, ...]) -> None:
    result = run(net, *option, "--data", "d.npz")
    assert result.exit_code == 2
    assert "to --retrain" in result.stderr


def test_an_interrupted_run_goes_on_and_ends_the_same(net: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args: tuple[Any, ...] = (net, *FAST, "--data", data, "--sparsity", "0.8", "--rounds", "2")
    assert run(*args, "-o", net.with_name("whole.onnx")).exit_code == 0
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > 35  # in the second round

    monkeypatch.setattr(interrupt, "was_received", stop)
    stopped = run(*args, "-o", net.with_name("broken.onnx"))
    assert stopped.exit_code != 0
    assert "the same command goes on from there" in stopped.stderr
    assert (net.parent / "broken.onnx.rounds" / "01.onnx").exists()
    monkeypatch.undo()
    report_file = net.with_name("again.json")
    again = run(*args, "-o", net.with_name("broken.onnx"), "--json", report_file)
    assert again.exit_code == 0, again.output
    report = msgspec.json.decode(report_file.read_bytes(), type=Report)
    assert report.rounds is not None
    assert report.rounds.resumed == 1
    assert net.with_name("broken.onnx").read_bytes() == net.with_name("whole.onnx").read_bytes()
    assert not (net.parent / "broken.onnx.rounds").exists()


def test_other_options_do_not_go_on_with_rounds_that_are_there(net: Path, data: Path) -> None:
    folder = net.parent / "kept"
    args = (net, *FAST, "--data", data, "--checkpoint", folder)
    assert run(*args, "--sparsity", "0.5").exit_code == 0
    assert (folder / "rounds.json").exists()
    other = run(*args, "--sparsity", "0.6")
    assert other.exit_code == 1
    assert "rounds of another model or other options" in other.stderr
    assert run(*args, "--sparsity", "0.6", "--restart").exit_code == 0
