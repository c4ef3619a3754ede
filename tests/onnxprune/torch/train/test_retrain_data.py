"""`onnxprune retrain` on pictures, held-out samples and samples that change at random."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import save

from onnxprune.cli import interrupt
from onnxprune.cli.main import cli

FAST = ("--epochs", "2", "--lr", "0.05", "--batch-size", "32", "--keep", "last", "--threads", "1")


@pytest.fixture
def file(pruned: State, tmp_path: Path) -> Path:
    return save(pruned.model, tmp_path / "net.onnx")


def retrain(file: Path, out: str, *args: str, code: int = 0) -> Any:
    """The report of a run; the file is `out` beside `file`."""
    report = file.with_name(f"{out}.json")
    given = ["retrain", str(file), "-o", str(file.with_name(out)), "--json", str(report), *FAST, *args]
    result = CliRunner().invoke(cli, given)
    assert result.exit_code == code, result.output
    return msgspec.json.decode(report.read_bytes()) if report.exists() else None


@pytest.fixture
def pictures(tmp_path: Path, digits_file: Path) -> Path:
    """180 digits to train on and 60 to measure on, as PNG files in class folders."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed (extra images)")
    with np.load(digits_file) as arrays:
        x, labels = arrays["x"], arrays["labels"]
    for index, (digit, label) in enumerate(zip(x[:, 0], labels, strict=True)):
        folder = tmp_path / "digits" / ("train" if index < 180 else "val") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        image.fromarray((digit * 240).astype(np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "digits"


def test_pictures_are_read_as_the_options_say_and_measured_on_the_held_out_ones(file: Path, pictures: Path) -> None:
    found = {}
    for scale in ("0.004", "0"):
        options = ("--data", str(pictures), "--data-option", f"scale={scale}", "--epochs", "8")
        found[scale] = retrain(file, f"{scale}.onnx", *options)
    best, blind = (max(epoch["metric"] for epoch in found[scale]["training"]["epochs"]) for scale in found)
    assert best > 0.5
    assert blind < 0.25
    assert all(round(60 * epoch["metric"], 9) % 1 == 0 for epoch in found["0.004"]["training"]["epochs"])
    unmeasured = retrain(file, "0.onnx", "--data", str(pictures), "--validation", "0", "--overwrite")
    assert [epoch["metric"] for epoch in unmeasured["training"]["epochs"]][1:] == [None, None]


AUGMENTED = """
import numpy as np

class Shifted:
    note = "digits, shifted at random"
    def __init__(self):
        with np.load({path!r}) as arrays:
            self.x, self.labels = arrays["x"], arrays["labels"]
    def __len__(self):
        return len(self.x)
    def batch(self, rows):
        shifts = np.random.randint(-1, 2, len(rows))
        x = np.stack([np.roll(one, shift, 2) for one, shift in zip(self.x[rows], shifts)])
        return {{"x": x}}, self.labels[rows]
"""


def test_samples_that_change_at_random_are_repeated_by_the_seed_and_by_a_resumed_run(
    file: Path, digits_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.with_name("shifted_digits.py").write_text(AUGMENTED.format(path=str(digits_file)))
    monkeypatch.chdir(file.parent)
    monkeypatch.syspath_prepend(str(file.parent))
    monkeypatch.delitem(sys.modules, "shifted_digits", raising=False)
    data = ("--data", "shifted_digits:Shifted", "--validation", "0")
    for out in ("first.onnx", "second.onnx"):
        retrain(file, out, *data)
    first = file.with_name("first.onnx").read_bytes()
    assert first == file.with_name("second.onnx").read_bytes()
    retrain(file, "plain.onnx", "--data", str(digits_file), "--validation", "0")
    assert first != file.with_name("plain.onnx").read_bytes()
    with monkeypatch.context() as patch:
        answers = iter([False] * 10 + [True])
        patch.setattr(interrupt, "was_received", lambda: next(answers))
        retrain(file, "third.onnx", *data, code=130)
    retrain(file, "third.onnx", *data)
    assert first == file.with_name("third.onnx").read_bytes()


def test_options_that_the_data_does_not_read(file: Path, digits_file: Path) -> None:
    retrain(file, "out.onnx", "--data", str(digits_file), "--data-option", "mean=1", code=2)
    assert not file.with_name("out.onnx").exists()
