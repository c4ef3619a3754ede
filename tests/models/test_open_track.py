"""The open track: its recipes, its table, and the two files that it left in models/."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import onnxruntime
import pytest

from onnxprune.recipe_yaml import read_recipe
from onnxprune.resolve import options_from
from onnxprune.rounds import targets_from
from onnxprune.rounds.schedule import epochs_from

MODELS = Path(__file__).resolve().parents[2] / "models"
FACTORS = {"lenet_300_100": (67, 80, 100, 120), "lenet_5": (167, 200, 325, 400)}


class Bound(NamedTuple):
    """What a committed file has to keep: weights at least so many times fewer, test error and bytes at most these."""

    factor: float
    error: float
    nbytes: int


COMMITTED = {"lenet_300_100": Bound(80, 0.0170, 9000), "lenet_5": Bound(200, 0.0080, 7000)}

both = pytest.mark.parametrize("network", sorted(FACTORS))


@pytest.fixture(scope="module")
def track() -> ModuleType:
    spec = importlib.util.spec_from_file_location("open_track", MODELS / "paper" / "open.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@both
def test_the_reported_rounds_of_a_recipe_have_the_factors_that_are_claimed(track: ModuleType, network: str) -> None:
    recipe = read_recipe(MODELS / "paper" / f"open_{network}.yaml")
    options = options_from("dense.onnx", {"data": "train.npz"}, recipe)
    assert options.sparsity is not None
    assert options.rounds is not None
    targets = targets_from(options.sparsity, options.rounds, str(options.rounds_schedule), unit="sparsity")
    assert len(epochs_from(options.rounds_epochs, options.rounds, 1)) == options.rounds
    weights = track.WEIGHTS[network]
    for number, factor in zip(track.REPORTED[network], FACTORS[network], strict=True):
        kept = weights - math.floor(targets[number - 1] * weights + 0.5)
        assert factor <= weights / kept < factor * 1.001
    assert options.training is not None
    assert options.training.keep == "last"
    assert options.training.teacher == "dense.onnx"


def result(seed: int, errors: int, number: int = 5) -> dict[str, object]:
    return {
        **{"network": "lenet_5", "seed": seed, "round": number, "test_errors": errors},
        **{"weights_factor": 167.0, "parameters_factor": 140.0},
    }


def test_the_table_has_mean_and_deviation_of_the_seeds_that_ran(track: ModuleType) -> None:
    first = {**result(0, 70), "shared": {"test_errors": 72, "bytes": 6000, "weights_factor": 168.0}}
    text = track.page([first, result(1, 80), result(0, 90, 6)])
    rows = [line for line in text.splitlines() if line.startswith("| 16")]
    assert rows == [
        "| 167.0x | 140.0x | float32 | 0, 1 | 0.70, 0.80 % | 0.75 ± 0.07 % |",
        "| 168.0x | 140.0x | shared, 6,000 bytes | 0 | 0.72 % | 0.72 % |",
        "| 167.0x | 140.0x | float32 | 0 | 0.90 % | 0.90 % |",
    ]
    assert "wanted: 167x, mean of 5 seeds, at most 0.80 %" in text


def test_a_result_takes_the_place_of_an_earlier_one(
    track: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(track, "RESULTS", tmp_path / "results.json")
    for entry in (result(1, 80), result(0, 70), result(1, 75)):
        track.noted(entry)
    found = json.loads((tmp_path / "results.json").read_text())
    assert [(one["seed"], one["test_errors"]) for one in found] == [(0, 70), (1, 75)]


@pytest.mark.parametrize("network", sorted(COMMITTED))
def test_the_committed_file_has_the_error_weights_and_bytes_of_its_story(
    track: ModuleType, network: str, mnist: ModuleType, data_folder: Path
) -> None:
    file = MODELS / f"{network}_pruned.onnx"
    story = json.loads(file.with_suffix(".json").read_text())
    assert file.stat().st_size == story["bytes"] <= COMMITTED[network].nbytes
    weights = track.kept_of(file)
    assert weights == story["kept"]
    assert track.WEIGHTS[network] / sum(weights.values()) >= COMMITTED[network].factor
    images, labels = mnist.load_mnist("test", data_folder)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"image": mnist.unit_images(images)})[0]
    errors = int(np.count_nonzero(logits.argmax(axis=1) != labels))
    assert abs(errors - story["test_errors"]) <= 1  # another processor may round one close image the other way
    assert errors <= COMMITTED[network].error * len(labels)
