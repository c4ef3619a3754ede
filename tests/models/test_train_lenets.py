from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="training needs torch: install the dev extra")

TinyMnist = Callable[[Path, int, int], None]
MODELS = Path(__file__).resolve().parents[2] / "models"

both = pytest.mark.parametrize("name", ["lenet_300_100", "lenet_5"])


@pytest.fixture
def trainer(load_script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script with short recipes; torch's global settings are put back."""
    module = load_script("train_lenets")
    short = {
        name: dataclasses.replace(recipe, epochs=2, batch=16, learning_rate=0.02, dropout=0.1, input_dropout=0.0)
        for name, recipe in module.RECIPES.items()
    }
    monkeypatch.setattr(module, "RECIPES", short)
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield module
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def run_command(trainer: ModuleType, *options: str) -> str:
    result = CliRunner().invoke(trainer.main, list(options))
    assert result.exit_code == 0, result.output
    return result.output


def properties(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


@both
def test_the_onnx_model_computes_what_the_network_computes_without_dropout(trainer: ModuleType, name: str) -> None:
    torch.manual_seed(1)
    recipe = dataclasses.replace(trainer.RECIPES[name], dropout=0.9, input_dropout=0.9)
    network = trainer.build(name, recipe).eval()
    model = trainer.model_from_network(name, network, {"key": "value"})
    onnx.checker.check_model(model, full_check=True)
    images = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"image": images})[0]
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    assert [(entry.key, entry.value) for entry in model.metadata_props] == [("key", "value")]


def test_a_layer_without_a_rule_is_refused(trainer: ModuleType) -> None:
    with pytest.raises(TypeError, match="layer odd: no ONNX node is known for Tanh"):
        trainer.node_from_layer("odd", torch.nn.Tanh(), "a", "b")


@both
def test_training_learns_and_the_written_file_scores_as_its_metadata_says(
    trainer: ModuleType, name: str, tmp_path: Path, write_tiny_mnist: TinyMnist, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = dataclasses.replace(trainer.RECIPES[name], epochs=8)
    monkeypatch.setitem(trainer.RECIPES, name, longer)
    write_tiny_mnist(tmp_path / "mnist", 203, 30)  # the last batch is smaller
    output = run_command(trainer, "--data", str(tmp_path), "--only", name, "--out", str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.onnx", "mnist"]
    path = tmp_path / f"{name}.onnx"
    assert properties(path) == {
        "script": "models/train_lenets.py",
        "seed": "0",
        "recipe": str(longer),
        "torch": torch.__version__,
        "test_error": "0.00 % (0 of 30)",
    }
    assert "epoch   8/8" in output
    assert f"{path}: {path.stat().st_size} bytes, test error 0.00 % (0 of 30)" in output


def test_the_seed_decides_the_weights(trainer: ModuleType, tmp_path: Path, write_tiny_mnist: TinyMnist) -> None:
    write_tiny_mnist(tmp_path / "mnist", 64, 10)
    contents: list[bytes] = []
    for folder, seed in (("first", "3"), ("again", "3"), ("other", "4")):
        out = tmp_path / folder
        out.mkdir()
        run_command(trainer, "--data", str(tmp_path), "--only", "lenet_300_100", "--out", str(out), "--seed", seed)
        assert properties(out / "lenet_300_100.onnx")["seed"] == seed
        contents.append(onnx.load(out / "lenet_300_100.onnx").graph.SerializeToString())
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_without_only_both_are_written(trainer: ModuleType, tmp_path: Path, write_tiny_mnist: TinyMnist) -> None:
    write_tiny_mnist(tmp_path / "mnist", 32, 10)
    run_command(trainer, "--data", str(tmp_path), "--out", str(tmp_path))
    assert sorted(path.name for path in tmp_path.glob("*.onnx")) == ["lenet_300_100.onnx", "lenet_5.onnx"]


@pytest.mark.parametrize("folder", [True, False], ids=["out", "no-out"])
def test_validate_holds_out_the_last_training_images_and_writes_only_where_told(
    trainer: ModuleType, tmp_path: Path, write_tiny_mnist: TinyMnist, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    write_tiny_mnist(tmp_path / "mnist", 60, 10)
    monkeypatch.setattr(trainer, "VALIDATION_COUNT", 20)
    seen: list[int] = []

    def keep_count(*arguments: Sequence[object]) -> None:
        seen.append(len(arguments[3]))

    monkeypatch.setattr(trainer, "train", keep_count)
    committed = (MODELS / "lenet_5.onnx").read_bytes()
    out = ("--out", str(tmp_path)) if folder else ()
    output = run_command(trainer, "--data", str(tmp_path), "--only", "lenet_5", *out, "--validate")
    assert seen == [40]
    assert " of 20)" in output
    assert "validation error" in output
    assert [path.name for path in tmp_path.glob("*.onnx")] == (["lenet_5.onnx"] if folder else [])
    assert (MODELS / "lenet_5.onnx").read_bytes() == committed


def test_missing_data_is_one_line_and_exit_1(trainer: ModuleType, tmp_path: Path) -> None:
    result = CliRunner().invoke(trainer.main, ["--data", str(tmp_path), "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert result.output.startswith("Error: --data: ")
    assert list(tmp_path.iterdir()) == []
