"""The arrays of an `.npz` file, read and mapped."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import ml_dtypes
import numpy as np
import pytest

from onnxprune.feeds import archive
from onnxprune.feeds.archive import NpzArchive
from onnxprune.runtime import TensorSpec
from onnxprune.samples import read_samples

ARRAYS: dict[str, Any] = {
    "c": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "f": np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
    "scalar": np.array(3.5),
    "text": np.array(["a", "bcd"]),
    "flags": np.array([True, False, True]),
    "big_endian": np.arange(5, dtype=">i4"),
}


@pytest.fixture(params=[True, False], ids=["mapped", "read"])
def mapped(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(archive, "MAPPED_BYTES", 1 if request.param else 1 << 40)
    return bool(request.param)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
@pytest.mark.usefixtures("mapped")
def test_arrays_are_what_numpy_reads(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "x.npz", **ARRAYS)
    with NpzArchive(tmp_path / "x.npz") as found:
        assert list(found.headers) == list(ARRAYS)
        for name, expected in ARRAYS.items():
            array = found.read(name)
            assert (array.dtype, array.shape, array.flags.f_contiguous) == (
                expected.dtype,
                expected.shape,
                expected.flags.f_contiguous,
            )
            np.testing.assert_array_equal(array, expected)
            assert (found.headers[name].dtype, found.headers[name].shape) == (expected.dtype, expected.shape)


def test_mapped_arrays_are_not_in_memory(tmp_path: Path, mapped: bool) -> None:
    size = 1 << 23
    np.savez(tmp_path / "x.npz", x=np.ones((1024, size // 4096), np.float32), labels=np.zeros(1024, int))
    spec = TensorSpec("x", "tensor", np.dtype(np.float32), ("N", None))
    tracemalloc.start()
    samples = read_samples(str(tmp_path / "x.npz"), [spec])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    feeds, _ = samples.batch(np.array([1, 1000]))
    assert feeds["x"].sum() == 2 * size // 4096
    assert feeds["x"].flags.writeable
    assert peak < size / 2 if mapped else size < peak < 1.5 * size


def test_a_mapped_array_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAPPED_BYTES", 1)
    np.savez(tmp_path / "x.npz", x=np.ones(4))
    with NpzArchive(tmp_path / "x.npz") as found:
        array = found.read("x")
    assert not array.flags.writeable
    assert type(array) is np.ndarray


@pytest.mark.usefixtures("mapped")
def test_a_damaged_array_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=np.zeros(1000, np.float32))
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    with NpzArchive(path) as found, pytest.raises(BadZipFile, match="CRC"):
        found.read("x")


@pytest.mark.usefixtures("mapped")
def test_what_is_no_plain_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.array([{}], object), b=np.array([1], ml_dtypes.bfloat16))
    with NpzArchive(tmp_path / "x.npz") as found, pytest.raises(ValueError, match="array x is pickled"):
        found.read("x")
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(ValueError, match="no zip archive"):
        NpzArchive(tmp_path / "x.npy")
    with ZipFile(tmp_path / "y.npz", "w") as file:
        file.writestr("x.npy", b"no array")
    with pytest.raises(ValueError, match="magic string"):
        NpzArchive(tmp_path / "y.npz")
