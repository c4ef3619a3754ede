"""Samples of an `.npz` file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxprune_passes.errors import DataError

from onnxprune.runtime import TensorSpec
from onnxprune.samples import batch_size_of, read_samples


def spec(name: str, shape: tuple[int | str | None, ...], dtype: Any = np.float32) -> TensorSpec:
    return TensorSpec(name, "tensor", np.dtype(dtype), shape)


def write(folder: Path, **arrays: Any) -> str:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return str(path)


def counting(*shape: int, dtype: Any = np.float32) -> Any:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def rows(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


@pytest.mark.parametrize("first", ["N", None, 1, 2])
def test_rows_in_any_order_and_twice(tmp_path: Path, first: Any) -> None:
    x = counting(6, 3)
    samples = read_samples(write(tmp_path, x=x, labels=np.arange(6, dtype=np.uint8)), [spec("x", (first, 3))])
    feeds, labels = samples.batch(rows(5, 0, 5, 2))
    assert len(samples) == 6
    assert samples.note == "data.npz: 6 samples"
    np.testing.assert_array_equal(feeds["x"], x[[5, 0, 5, 2]])
    assert labels is not None
    assert labels.dtype == np.int64
    assert labels.tolist() == [5, 0, 5, 2]


def test_inputs_with_the_samples_on_another_axis_and_without(tmp_path: Path) -> None:
    x, state, table = counting(6, 2), counting(3, 6), counting(4)
    specs = [spec("x", ("N", 2)), spec("state", (3, "N")), spec("table", (4,))]
    feeds, labels = read_samples(write(tmp_path, x=x, state=state, table=table), specs).batch(rows(4, 1))
    np.testing.assert_array_equal(feeds["x"], x[[4, 1]])
    np.testing.assert_array_equal(feeds["state"], state[:, [4, 1]])
    np.testing.assert_array_equal(feeds["table"], table)
    assert labels is None


def test_float_labels_are_targets(tmp_path: Path) -> None:
    targets = counting(6, 4)
    samples = read_samples(write(tmp_path, x=counting(6, 2), labels=targets), [spec("x", ("N", 2))])
    _, labels = samples.batch(rows(3, 0))
    assert labels is not None
    np.testing.assert_array_equal(labels, targets[[3, 0]])


def test_a_batch_of_the_models_own_size_is_that_many_samples(tmp_path: Path) -> None:
    samples = read_samples(write(tmp_path, x=counting(4, 3), labels=np.arange(4)), [spec("x", (4, 3))])
    assert len(samples) == 4


def test_samples_that_are_whole_batches_come_one_at_a_time(tmp_path: Path) -> None:
    x, state = counting(3, 1, 2), counting(3, 2, 4)
    specs = [spec("x", (1, 2)), spec("state", (2, 4)), spec("rate", (), np.int64)]
    samples = read_samples(write(tmp_path, x=x, state=state, rate=np.int64(8), labels=counting(3, 1, 5)), specs)
    feeds, labels = samples.batch(rows(2))
    np.testing.assert_array_equal(feeds["x"], x[2])
    np.testing.assert_array_equal(feeds["state"], state[2])
    assert feeds["rate"] == 8
    assert labels is not None
    assert labels.shape == (1, 5)
    with pytest.raises(DataError, match="take one at a time"):
        samples.batch(rows(0, 1))


def test_a_batch_is_a_copy(tmp_path: Path) -> None:
    samples = read_samples(write(tmp_path, x=counting(4, 2)), [spec("x", ("N", 2))])
    samples.batch(rows(0))[0]["x"][:] = -1
    assert samples.batch(rows(0))[0]["x"].tolist() == [[0, 1]]


@pytest.mark.parametrize(("shape", "declared"), [((4, 5), ("N", 3)), ((0, 3), ("N", 3)), ((), (1, 3))], ids=str)
def test_arrays_without_samples(tmp_path: Path, shape: tuple[int, ...], declared: tuple[Any, ...]) -> None:
    with pytest.raises(DataError, match=r"do not fit.*expected x float32\[.*found x float32\["):
        read_samples(write(tmp_path, x=counting(*shape)), [spec("x", declared)])


def test_inputs_of_different_lengths_have_no_samples(tmp_path: Path) -> None:
    path = write(tmp_path, x=counting(9, 2), y=counting(5))
    with pytest.raises(DataError, match=r"do not fit.*found x float32\[9, 2\], y float32\[5\]"):
        read_samples(path, [spec("x", ("N", 2)), spec("y", ("M",))])


def test_labels_must_count_the_samples(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels \[5\] for 4 samples"):
        read_samples(write(tmp_path, x=counting(4, 2), labels=np.arange(5)), [spec("x", ("N", 2))])


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"C:\\x\.npz: no such file or folder; give"):
        read_samples(r"C:\x.npz", [spec("x", ("N", 2))])
    with pytest.raises(DataError, match=r"nothing\.npz: no such file or folder; give"):
        read_samples(str(tmp_path / "nothing.npz"), [spec("x", ("N", 2))])


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([("N", 3)], None),
        ([(1, 3)], 1),
        ([(4, 3), (4,)], 4),
        ([(4, 3), ()], 4),
        ([(4, 3), (2, 3)], None),
        ([(4, 3), ("N",)], None),
        ([()], None),
    ],
)
def test_how_many_samples_a_model_takes_at_once(shapes: list[tuple[Any, ...]], expected: int | None) -> None:
    assert batch_size_of([spec(str(index), shape) for index, shape in enumerate(shapes)]) == expected
