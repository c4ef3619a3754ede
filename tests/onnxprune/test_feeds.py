"""Feeds from the user's .npz file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnxprune_passes.errors import DataError

from onnxprune.feeds import Feeds, feeds_as_float32, feeds_from_npz
from onnxprune.runtime import TensorSpec


def spec(name: str, shape: tuple[int | str | None, ...], dtype: Any = np.float32) -> TensorSpec:
    return TensorSpec(name, "tensor", np.dtype(dtype), shape)


def write(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def counting(*shape: int, dtype: Any = np.float32) -> Any:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def test_arrays_that_fit_are_one_batch(tmp_path: Path) -> None:
    x, y = counting(3, 2), counting(1, 4)
    feeds = feeds_from_npz(write(tmp_path, x=x, y=y, extra=y), [spec("x", ("N", 2)), spec("y", (1, None))])
    assert len(feeds.batches) == 1
    assert sorted(feeds.batches[0]) == ["x", "y"]
    np.testing.assert_array_equal(feeds.batches[0]["x"], x)
    np.testing.assert_array_equal(feeds.batches[0]["y"], y)
    assert feeds.labels is None
    assert feeds.note == "data.npz: 3 samples in one batch"


@pytest.mark.parametrize("first", ["N", None])
def test_a_long_dynamic_axis_is_cut(tmp_path: Path, first: str | None) -> None:
    x, state, fixed = counting(10, 2), counting(3, 10), counting(3)
    specs = [spec("x", (first, 2)), spec("state", (3, first)), spec("fixed", (3,))]
    path = write(tmp_path, x=x, state=state, fixed=fixed, labels=np.arange(10))
    feeds = feeds_from_npz(path, specs, batch_size=4)
    assert [batch["x"].shape[0] for batch in feeds.batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in feeds.batches]), x)
    np.testing.assert_array_equal(np.concatenate([batch["state"] for batch in feeds.batches], axis=1), state)
    assert all(np.array_equal(batch["fixed"], fixed) for batch in feeds.batches)
    assert feeds.labels is not None
    assert [labels.tolist() for labels in feeds.labels] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert "10 samples in 3 batches of 4" in feeds.note


def test_different_lengths_are_no_sample_axis(tmp_path: Path) -> None:
    specs = [spec("x", ("N", 2)), spec("y", ("M",))]
    feeds = feeds_from_npz(write(tmp_path, x=counting(9, 2), y=counting(5)), specs, batch_size=4)
    assert len(feeds.batches) == 1


def test_samples_of_a_fixed_first_axis_are_cut_and_the_rest_dropped(tmp_path: Path) -> None:
    x, other = counting(5, 3), counting(1, 3)
    specs = [spec("x", (2, 3)), spec("other", (1, 3))]
    feeds = feeds_from_npz(write(tmp_path, x=x, other=other, labels=np.arange(5)), specs)
    assert len(feeds.batches) == 2
    np.testing.assert_array_equal(feeds.batches[1]["x"], x[2:4])
    np.testing.assert_array_equal(feeds.batches[1]["other"], other)
    assert feeds.labels is not None
    assert [labels.tolist() for labels in feeds.labels] == [[0, 1], [2, 3]]
    assert feeds.note == "data.npz: 5 samples in 2 batches of 2, the last 1 left out"


def test_one_more_axis_in_front_counts_batches(tmp_path: Path) -> None:
    x, state = counting(3, 1, 2), counting(3, 2, 4)
    specs = [spec("x", (1, 2)), spec("state", (2, 4)), spec("sr", (), np.int64)]
    path = write(tmp_path, x=x, state=state, sr=np.int64(8), labels=np.arange(3))
    feeds = feeds_from_npz(path, specs)
    assert len(feeds.batches) == 3
    np.testing.assert_array_equal(feeds.batches[2]["x"], x[2])
    np.testing.assert_array_equal(feeds.batches[2]["state"], state[2])
    assert feeds.batches[2]["sr"].shape == ()
    assert feeds.labels is not None
    assert [labels.tolist() for labels in feeds.labels] == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("array", "wanted", "expected"),
    [
        (np.array([0.1, np.nan, np.inf]), np.float32, np.array([0.1, np.nan, np.inf], np.float32)),
        (np.array([0.5], np.float32), np.float16, np.array([0.5], np.float16)),
        (np.array([0.5], np.float32), ml_dtypes.bfloat16, np.array([0.5], ml_dtypes.bfloat16)),
        (np.array([7, 255], np.int64), np.uint8, np.array([7, 255], np.uint8)),
        (np.array([7], np.uint8), np.int64, np.array([7], np.int64)),
        (np.array([0, 1], np.int32), np.bool_, np.array([False, True])),
        (np.array(["a", "bc"]), np.object_, np.array(["a", "bc"])),
    ],
)
def test_safe_casts(tmp_path: Path, array: Any, wanted: Any, expected: Any) -> None:
    feeds = feeds_from_npz(write(tmp_path, x=array), [spec("x", (None,), wanted)])
    found = feeds.batches[0]["x"]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("array", "wanted", "message"),
    [
        (np.array([255], np.uint8), np.float32, r"x is uint8, but the model takes float32.*nothing is scaled"),
        (np.array([1e300]), np.float32, "values too large for float32"),
        (np.array([-1, 5]), np.uint8, r"values -1\.\.5, which uint8 cannot hold"),
        (np.array([2]), np.bool_, "which bool cannot hold"),
        (np.array([1.0]), np.int64, "x is float64, but the model takes int64"),
    ],
)
def test_unsafe_casts_are_refused(tmp_path: Path, array: Any, wanted: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        feeds_from_npz(write(tmp_path, x=array), [spec("x", (None,), wanted)])


@pytest.mark.parametrize(
    ("shape", "declared"),
    [
        ((4, 5, 5, 3), ("N", 3, 5, 5)),
        ((4, 3), (8, 3)),
        ((0, 3), ("N", 3)),
        ((0, 3), (2, 3)),
        ((3,), (1, 3)),
        ((), (1, 3)),
        ((2, 2, 2, 3), (2, 3)),
    ],
)
def test_shapes_that_do_not_fit(tmp_path: Path, shape: tuple[int, ...], declared: tuple[Any, ...]) -> None:
    with pytest.raises(DataError, match=r"do not fit.*expected x float32\[.*found x float32\[.*; give"):
        feeds_from_npz(write(tmp_path, x=counting(*shape)), [spec("x", declared)])


def test_a_missing_array_lists_expected_and_found(tmp_path: Path) -> None:
    path = write(tmp_path, images=counting(4, 5, dtype=np.uint8), y=counting(4, dtype=np.int64))
    with pytest.raises(DataError) as caught:
        feeds_from_npz(path, [spec("input", ("N", 5))])
    assert str(caught.value) == (
        f"{path}: no array named input; expected input float32[N, 5]; found images uint8[4, 5], y int64[4]; "
        f"name the arrays after the model's inputs"
    )


@pytest.mark.parametrize("labels", [np.arange(5), np.arange(3), np.int64(1)])
def test_labels_must_count_the_samples(tmp_path: Path, labels: Any) -> None:
    with pytest.raises(DataError, match=r"labels .* for 4 samples"):
        feeds_from_npz(write(tmp_path, x=counting(4, 2), labels=labels), [spec("x", ("N", 2))])


def test_labels_that_are_no_classes_give_no_accuracy(tmp_path: Path) -> None:
    feeds = feeds_from_npz(write(tmp_path, x=counting(4, 2), labels=counting(4, 3)), [spec("x", ("N", 2))])
    assert feeds.labels is None


def test_labels_must_be_numbers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="labels are str"):
        feeds_from_npz(write(tmp_path, x=counting(4, 2), labels=np.array(list("abcd"))), [spec("x", ("N", 2))])


def test_labels_may_be_an_input(tmp_path: Path) -> None:
    feeds = feeds_from_npz(write(tmp_path, labels=counting(4, 2)), [spec("labels", ("N", 2))])
    assert feeds.labels is None


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short"])
def test_files_that_are_no_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not a readable \.npz file"):
        feeds_from_npz(path, [spec("x", (1,))])


def test_damaged_single_and_pickled_arrays_and_no_file(tmp_path: Path) -> None:
    path = write(tmp_path, x=counting(1000))
    content = bytearray(path.read_bytes())
    content[900] ^= 255
    path.write_bytes(content)
    np.save(tmp_path / "single.npy", counting(3))
    np.savez(tmp_path / "pickled.npz", x=np.array([{}]))
    for name in ("data.npz", "single.npy", "pickled.npz", "nothing.npz"):
        with pytest.raises(DataError, match=r"not a readable \.npz file \(.+\); write one with numpy\.savez"):
            feeds_from_npz(tmp_path / name, [spec("x", (None,))])


def test_inputs_that_are_no_tensor_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only tensor inputs"):
        feeds_from_npz(write(tmp_path, x=counting(3)), [TensorSpec("x", "seq(tensor(float))", None, ())])


def test_feeds_as_float32_leaves_integers_and_labels() -> None:
    batch = {"x": np.array([0.5], ml_dtypes.bfloat16), "d": np.array([2.0]), "i": np.array([3])}
    feeds = feeds_as_float32(Feeds((batch,), (np.array([1]),), "note"))
    assert {name: array.dtype.name for name, array in feeds.batches[0].items()} == {
        "x": "float32",
        "d": "float32",
        "i": "int64",
    }
    assert feeds.labels is not None
    assert feeds.note == "note"
