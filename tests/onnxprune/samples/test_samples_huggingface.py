"""Samples of a Hugging Face data set on disk; skipped where `datasets` is not installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxprune_passes.errors import DataError, SelectionError

from onnxprune.runtime import TensorSpec
from onnxprune.samples import read_pair, read_samples

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own, at import
    datasets: Any = pytest.importorskip("datasets", reason="datasets is not installed (extra datasets)")

SpecOf = Callable[..., TensorSpec]
ROWS = np.array([3, 0, 3], np.int64)


@pytest.fixture(autouse=True)
def quiet_and_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets.disable_progress_bars()


def save(folder: Path, columns: dict[str, Any], features: Any = None) -> str:
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(folder))
    return str(folder)


def tokens(folder: Path, **more: Any) -> str:
    return save(folder, {"ids": [[i, i + 1, 0] for i in range(5)], "mask": [[1.5, i] for i in range(5)], **more})


def test_columns_by_input_name(tmp_path: Path, spec_of: SpecOf) -> None:
    path = tokens(tmp_path / "set", label=[0, 1, 0, 1, 0])
    samples = read_samples(path, [spec_of("ids", ("N", "T"), np.int64), spec_of("mask", ("N", 2))])
    feeds, labels = samples.batch(ROWS)
    assert len(samples) == 5
    assert feeds["ids"].tolist() == [[3, 4, 0], [0, 1, 0], [3, 4, 0]]
    assert feeds["mask"].tolist() == [[1.5, 3], [1.5, 0], [1.5, 3]]
    assert [array.dtype.name for array in feeds.values()] == ["int64", "float32"]
    assert labels is not None
    assert labels.tolist() == [1, 0, 1]
    assert samples.note == "set: 5 rows, ids from 'ids', mask from 'mask', labels from 'label'"


def test_columns_by_option_and_no_labels(tmp_path: Path, spec_of: SpecOf) -> None:
    path = tokens(tmp_path / "set", kind=[0, 1, 2, 3, 4])
    spec = spec_of("x", ("N", 3), np.int32)
    feeds, labels = read_samples(path, [spec], ["column.x=ids"]).batch(ROWS)
    assert feeds["x"].dtype == np.int32
    assert labels is None
    _, labels = read_samples(path, [spec], ["column.x=ids", "column.labels=kind"]).batch(ROWS)
    assert labels is not None
    assert labels.tolist() == [3, 0, 3]


def test_pictures_and_class_labels_are_found_by_their_type(
    tmp_path: Path, spec_of: SpecOf, picture: Callable[..., Any]
) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed (extra images)")
    pixels = [picture(6, 8, seed) for seed in range(4)]
    features = datasets.Features({"img": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b"])})
    columns = {"img": [image.fromarray(one) for one in pixels], "kind": [0, 1, 1, 0]}
    path = save(tmp_path / "set", columns, features)
    samples = read_samples(path, [spec_of("input", ("N", 6, 8, 3))], ["scale=1", "mean=1"])
    feeds, labels = samples.batch(ROWS)
    np.testing.assert_array_equal(feeds["input"][1], pixels[0].astype(np.float32) - 1)
    np.testing.assert_array_equal(feeds["input"][2], pixels[3].astype(np.float32) - 1)
    assert labels is not None
    assert labels.tolist() == [0, 0, 0]
    assert samples.note == "set: 4 rows, input from 'img', labels from 'kind', RGB 6x8, minus 1"


def test_a_broken_picture_names_its_row(tmp_path: Path, spec_of: SpecOf) -> None:
    features = datasets.Features({"img": datasets.Image()})
    path = save(tmp_path / "set", {"img": [{"bytes": b"no picture", "path": None}]}, features)
    samples = read_samples(path, [spec_of("x", ("N", 3, 4, 4))])
    with pytest.raises(DataError, match=r"row 0: the picture cannot be read \(.+\)"):
        samples.batch(ROWS[1:2])


def test_splits(tmp_path: Path, spec_of: SpecOf) -> None:
    made = {
        name: datasets.Dataset.from_dict({"x": [[float(i)] for i in range(n)]})
        for name, n in (("train", 4), ("test", 2))
    }
    datasets.DatasetDict(made).save_to_disk(str(tmp_path / "set"))
    spec = spec_of("x", ("N", 1))
    train, held_out = read_pair(str(tmp_path / "set"), [spec])
    assert held_out is not None
    assert (len(train), len(held_out)) == (4, 2)
    only, none = read_pair(str(tmp_path / "set"), [spec], ["split=test"])
    assert (len(only), none) == (2, None)
    with pytest.raises(SelectionError, match="has no split 'valid'; it has train, test"):
        read_samples(str(tmp_path / "set"), [spec], ["split=valid"])
    datasets.DatasetDict({"a": made["train"], "b": made["test"]}).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(SelectionError, match=r"has splits a, b: choose one by --data-option split=NAME"):
        read_samples(str(tmp_path / "two"), [spec])


def test_rows_of_different_lengths(tmp_path: Path, spec_of: SpecOf) -> None:
    path = save(tmp_path / "set", {"x": [[1, 2], [1, 2, 3], [1], [1]]})
    samples = read_samples(path, [spec_of("x", ("N", "T"), np.int64)])
    assert samples.batch(ROWS[:1])[0]["x"].tolist() == [[1]]
    with pytest.raises(DataError, match="rows of column 'x' differ in shape"):
        samples.batch(ROWS)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            [],
            DataError,
            r"no column for input x; expected x float32\[N, 2\]; found ids .*say which: .*column\.x=COLUMN",
        ),
        (["column.x=nothing"], SelectionError, "has no such column; it has ids"),
        (["column.z=mask"], SelectionError, "column.z: no such input; the model has x"),
        (["column.x=mask", "mean=1"], SelectionError, "mean has no meaning: no column of set holds pictures"),
        (["column.x=mask", "split=a"], SelectionError, "has no splits"),
        (["count=1"], SelectionError, "count has no meaning for a data set"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, spec_of: SpecOf, options: list[str], error: Any, message: str) -> None:
    path = tokens(tmp_path / "set")
    with pytest.raises(error, match=message):
        read_samples(path, [spec_of("x", ("N", 2))], options)


def test_types_and_shapes_that_do_not_fit(tmp_path: Path, spec_of: SpecOf) -> None:
    path = tokens(tmp_path / "set")
    with pytest.raises(
        DataError, match=r"mask does not fit; expected mask float32\[N, 7\]; found mask float32\[3, 2\]"
    ):
        read_samples(path, [spec_of("mask", ("N", 7))]).batch(ROWS)
    with pytest.raises(DataError, match="ids is int64, but the model takes float32"):
        read_samples(path, [spec_of("ids", ("N", 3))]).batch(ROWS)


def test_a_damaged_data_set(tmp_path: Path, spec_of: SpecOf) -> None:
    path = tokens(tmp_path / "set")
    next((tmp_path / "set").glob("*.arrow")).write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"not a readable data set \(.+\); write one with Dataset\.save_to_disk"):
        read_samples(path, [spec_of("mask", ("N", 2))])


def test_without_datasets(tmp_path: Path, spec_of: SpecOf, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tokens(tmp_path / "set")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(DataError, match=r"is a data set of Hugging Face: install onnxprune\[datasets\]"):
        read_samples(path, [spec_of("mask", ("N", 2))])
