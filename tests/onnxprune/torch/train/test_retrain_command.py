"""`onnxprune retrain`: the file it writes, its options, its errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnxprune_passes.encode import EncodedModel
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import load, save

from onnxprune.cli import interrupt
from onnxprune.cli.main import cli
from onnxprune.runtime import open_session, run

FAST = ("--epochs", "2", "--lr", "0.05", "--batch-size", "32", "--validation", "0.2", "--keep", "last")


def retrain(*args: object) -> Result:
    return CliRunner().invoke(cli, ["retrain", *map(str, args)])


@pytest.fixture
def file(pruned: State, tmp_path: Path) -> Path:
    """The pruned network, alone in its folder."""
    (tmp_path / "run").mkdir()
    return save(pruned.model, tmp_path / "run" / "net.onnx")


def test_lenet_5_pruned_stored_sparsely_and_retrained(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = np.kron(found.images[:200] / 16, np.ones((3, 3)))
    images = np.pad(pixels, ((0, 0), (2, 2), (2, 2)))[:, None].astype(np.float32)
    np.savez(tmp_path / "digits.npz", image=images, labels=found.target[:200])
    small = tmp_path / "small.onnx"
    CliRunner().invoke(cli, ["models/lenet_5.onnx", "--sparsity", "0.9", "-o", str(small), "--check", "0"])
    report_file = tmp_path / "report.json"
    result = retrain(small, "--data", tmp_path / "digits.npz", "--epochs", 2, "--lr", 0.01, "--json", report_file)
    assert result.exit_code == 0, result.stderr
    report = msgspec.json.decode(report_file.read_bytes())
    jsonschema.validate(report, msgspec.json.decode(CliRunner().invoke(cli, ["schema", "retrain"]).stdout))
    assert report["verified"]
    assert report["max_error"] < 1e-5
    epochs = report["training"]["epochs"]
    assert epochs[2]["metric"] > epochs[0]["metric"] + 0.05
    assert "accuracy" in result.stdout
    assert "epoch 2/2" in result.stderr
    written = tmp_path / "small.retrained.onnx"
    assert written.stat().st_size == pytest.approx(small.stat().st_size, rel=0.03)  # values are coded by frequency
    with open_session(written, optimize=True) as session:
        scores = run(session, {"image": images})["logits"]
    assert (scores.argmax(1) == found.target[:200]).mean() > epochs[0]["metric"]
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "digits.npz",
        "report.json",
        "small.onnx",
        "small.retrained.onnx",
    ]


def test_the_file_keeps_everything_but_values(file: Path, digits_file: Path) -> None:
    model = onnx.load(str(file))
    model.doc_string = "kept"
    model.metadata_props.add(key="a", value="b")
    onnx.save(model, str(file))
    assert retrain(file, "--data", digits_file, *FAST, "--quiet").stdout == ""
    after = onnx.load(str(file.with_name("net.retrained.onnx")))
    for one, other in zip(model.graph.initializer, after.graph.initializer, strict=True):
        assert one.raw_data != other.raw_data or one.name in ("mean", "var")
        zeros = np.frombuffer(one.raw_data, np.float32) == 0
        if one.name.endswith("weight"):
            assert not np.frombuffer(other.raw_data, np.uint32)[zeros].any()
        other.raw_data = one.raw_data
    assert after == model


def test_masks_encoding_and_output(file: Path, digits_file: Path, tmp_path: Path) -> None:
    from onnxprune_passes.masks import Masks

    keep = np.ones((10, 16), np.bool_)
    keep[:, 3] = False
    Masks({"fc2.weight": keep}).save(tmp_path / "masks.npz")
    out = tmp_path / "out.onnx"
    result = retrain(
        file, "--data", digits_file, *FAST, "--masks", tmp_path / "masks.npz", "-o", out, "--encode", "bitmask"
    )
    assert result.exit_code == 0, result.stderr
    assert any("bitmask" in function.name.lower() for function in load(out).skeleton.functions)
    from onnxprune_passes.encode import densify

    assert not densify(load(out)).initializers["fc2.weight"][:, 3].any()


def test_external_data_stays_external(pruned: State, digits_file: Path, tmp_path: Path) -> None:
    file = save(pruned.model, tmp_path / "net.onnx", external=True)
    assert retrain(file, "--data", digits_file, *FAST).exit_code == 0
    data = [one.name for one in tmp_path.iterdir() if one.suffix == ".data"]
    assert len(data) == 2
    assert any(name.startswith("net.retrained.") for name in data)


def test_overwrite(file: Path, digits_file: Path) -> None:
    before = file.read_bytes()
    refused = retrain(file, "--data", digits_file, *FAST, "-o", file)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    assert file.read_bytes() == before
    assert retrain(file, "--data", digits_file, *FAST, "-o", file, "--overwrite").exit_code == 0
    assert file.read_bytes() != before


def test_a_file_that_differs_from_torch_is_not_written(
    file: Path, digits_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from onnxprune.torch import retrain_file

    def other(model: Model, *_: Any) -> Any:
        changed = model.initializers["fc2.bias"] + np.float32(1)
        return EncodedModel(model.with_initializers({"fc2.bias": changed}))

    monkeypatch.setattr(retrain_file, "encode_model", other)
    report = tmp_path / "report.json"
    result = retrain(file, "--data", digits_file, *FAST, "--json", report)
    assert result.exit_code == 1
    assert "differs from torch" in result.stderr
    assert msgspec.json.decode(report.read_bytes())["status"] == "failed"
    assert not file.with_name("net.retrained.onnx").exists()
    unchecked = retrain(file, "--data", digits_file, *FAST, "--no-check")
    assert unchecked.exit_code == 0
    assert "was not compared" in unchecked.stderr


def test_interrupted_and_taken_up_again(file: Path, digits_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = file.with_name("whole.onnx")
    assert retrain(file, "--data", digits_file, *FAST, "-o", whole).exit_code == 0
    answers = iter([False] * 8 + [True])
    monkeypatch.setattr(interrupt, "was_received", lambda: next(answers))
    stopped = retrain(file, "--data", digits_file, *FAST)
    assert stopped.exit_code == 130
    assert "interrupted: stopped after 3 of 6 steps of epoch 2; checkpoint in" in stopped.stderr
    assert "same command" in stopped.stderr
    assert not file.with_name("net.retrained.onnx").exists()
    monkeypatch.setattr(interrupt, "was_received", lambda: False)
    other = retrain(file, "--data", digits_file, *FAST, "--momentum", "0.8")
    assert other.exit_code == 2
    assert "momentum differs (None there, 0.8 now)" in other.stderr
    resumed = retrain(file, "--data", digits_file, *FAST)
    assert resumed.exit_code == 0
    assert "went on from the checkpoint at step 9" in resumed.stdout
    assert file.with_name("net.retrained.onnx").read_bytes() == whole.read_bytes()
    assert not list(file.parent.glob("*checkpoint*"))


def test_a_checkpoint_folder_that_was_named_stays(file: Path, digits_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    options = (file, "--data", digits_file, *FAST, "--checkpoint", folder)
    assert retrain(*options).exit_code == 0
    first = file.with_name("net.retrained.onnx").read_bytes()
    again = retrain(*options)
    assert "went on from the checkpoint at step 12" in again.stdout
    assert file.with_name("net.retrained.onnx").read_bytes() == first
    anew = retrain(*options, "--restart")
    assert "went on" not in anew.stdout
    assert file.with_name("net.retrained.onnx").read_bytes() == first


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--data", "missing.npz"), 1, "missing.npz"),
        (("--epochs", "0"), 2, "--epochs"),
        (("--milestones", "x", "--schedule", "step"), 2, "no list of epochs"),
        (("--loss", "huber"), 2, "is unknown"),
        (("--batch-norm", "other"), 2, "--batch-norm"),
    ],
)
def test_errors_are_one_line(file: Path, digits_file: Path, args: tuple[str, ...], code: int, message: str) -> None:
    given = args if "--data" in args else ("--data", str(digits_file), *args)
    result = retrain(file, *given)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not file.with_name("net.retrained.onnx").exists()


def test_a_function_may_give_what_to_measure_on(
    file: Path, digits_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loaders.py").write_text(
        "import numpy as np\n"
        f"found = np.load({str(digits_file)!r})\n"
        "def batches(first, last):\n"
        "    return [({'x': found['x'][first:last]}, found['labels'][first:last])]\n"
        "def both():\n"
        "    return batches(0, 160), batches(160, 240)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    seen = {}
    for name, share in (("pair", "0.2"), ("unmeasured", "0")):
        extra = ("--epochs", 1, "--batch-size", 32, "--validation", share, "--json", tmp_path / "report.json")
        result = retrain(file, "--data", "loaders:both", *extra)
        assert result.exit_code == 0, result.stderr
        seen[name] = msgspec.json.decode((tmp_path / "report.json").read_bytes())["training"]["epochs"][-1]
    assert seen["pair"]["steps"] == 5  # 160 samples, none of them kept
    assert seen["pair"]["metric"] is not None
    assert seen["unmeasured"]["metric"] is None
