from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from onnxprune_passes.errors import DataError

from onnxprune.runtime import TensorSpec
from onnxprune.samples import read_pair, read_samples


@pytest.fixture
def cifar10(load_script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load_script("cifar10")
    monkeypatch.setattr(module, "HELD_OUT", 5)
    monkeypatch.delenv("ONNXPRUNE_DATA", raising=False)
    return module


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """20 training pictures and 8 test pictures of random bytes."""
    rng = np.random.default_rng(0)
    (tmp_path / "cifar10").mkdir()
    for name, count in (("train_10k", 20), ("test", 8)):
        pictures = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        np.savez(tmp_path / "cifar10" / f"{name}.npz", x=pictures, y=np.arange(count, dtype=np.uint8) % 10)
    return tmp_path


SPEC = TensorSpec("input", "tensor(float)", np.dtype(np.float32), ("N", 3, 32, 32))


def batch(samples: Any, *rows: int) -> tuple[Any, list[int]]:
    feeds, labels = samples.batch(np.array(rows, np.int64))
    return feeds["input"], labels.tolist()


def test_pictures_are_scaled_as_the_models_take_them(cifar10: ModuleType) -> None:
    pictures = np.zeros((1, 32, 32, 3), np.uint8)
    pictures[0, 3, 4] = (255, 0, 51)
    expected = (np.array([1, 0, 0.2], np.float32) - cifar10.MEAN) / cifar10.STD
    np.testing.assert_array_equal(cifar10.scaled(pictures)[0, :, 3, 4], expected)


@pytest.mark.parametrize(
    ("options", "split", "count"), [([], "test", 8), (["--split", "train", "--count", "3"], "train", 3)]
)
def test_the_command_writes_what_data_takes(
    cifar10: ModuleType, tiny: Path, options: list[str], split: str, count: int
) -> None:
    out = tiny / "out.npz"
    result = CliRunner().invoke(cifar10.main, ["--data", str(tiny), "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    pictures, labels = cifar10.load_cifar10(split, tiny / "cifar10")
    samples = read_samples(str(out), [SPEC])
    assert len(samples) == count
    found, classes = batch(samples, *range(count))
    np.testing.assert_array_equal(found, cifar10.scaled(pictures[:count]))
    assert classes == labels[:count].tolist()


def test_augmentation_cuts_and_mirrors_and_follows_the_seed(
    cifar10: ModuleType, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNXPRUNE_DATA", str(tiny))
    samples = cifar10.augmented()
    (picture, *_), _ = cifar10.load_cifar10("train")
    padded = np.pad(cifar10.scaled(picture[None])[0], ((0, 0), (4, 4), (4, 4)))
    cuts = [padded[:, i : i + 32, j : j + 32] for i in range(9) for j in range(9)]
    allowed = {cut.tobytes() for cut in cuts} | {np.ascontiguousarray(cut[:, :, ::-1]).tobytes() for cut in cuts}
    np.random.seed(0)
    found, labels = batch(samples, *[0] * 200)
    drawn = {one.tobytes() for one in found}
    assert drawn <= allowed
    assert len(drawn) > 80
    assert set(labels) == {0}
    np.random.seed(0)
    assert np.array_equal(batch(samples, *[0] * 200)[0], found)
    assert not np.array_equal(batch(samples, *[0] * 200)[0], found)


def test_the_split_holds_pictures_out_that_are_not_moved(
    cifar10: ModuleType, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNXPRUNE_DATA", str(tiny))
    train, held_out = read_pair("cifar10:split", [SPEC])
    assert held_out is not None
    assert (len(train), len(held_out)) == (15, 5)
    inner = cifar10.split()
    together = np.concatenate([one.pictures for one in inner])
    assert len(np.unique(together.reshape(20, -1), axis=0)) == 20
    np.testing.assert_array_equal(batch(held_out, 3)[0], cifar10.scaled(inner[1].pictures[[3]]))


def test_errors_name_the_folder(cifar10: ModuleType, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder named; give the one that holds cifar10/"):
        cifar10.load_cifar10("test")
    with pytest.raises(DataError, match=r"holds no test\.npz"):
        cifar10.load_cifar10("test", tmp_path / "nothing")
    np.savez(tiny / "cifar10" / "test.npz", x=np.zeros((3, 28, 28)), y=np.zeros(3))
    with pytest.raises(DataError, match=r"expected uint8\[N, 32, 32, 3\] and"):
        cifar10.load_cifar10("test", tiny)
    np.savez(tiny / "cifar10" / "test.npz", x=np.zeros(3))
    result = CliRunner().invoke(cifar10.main, ["--data", str(tiny), "--out", str(tiny / "out.npz")])
    assert result.exit_code == 1
    assert "not an .npz file with x and y" in result.output
    assert not (tiny / "out.npz").exists()
