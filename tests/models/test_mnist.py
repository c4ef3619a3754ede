from __future__ import annotations

import gzip
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
from click.testing import CliRunner
from onnxprune_passes.errors import DataError

TinyMnist = Callable[[Path, int, int], None]

HEADER_2X3 = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3])


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONNXPRUNE_DATA", raising=False)


def fake_sklearn(monkeypatch: pytest.MonkeyPatch, outcome: object) -> None:
    def fetch_openml(name: str, version: int, as_frame: bool) -> object:
        assert (name, version, as_frame) == ("mnist_784", 1, False)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setitem(sys.modules, "sklearn", ModuleType("sklearn"))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", SimpleNamespace(fetch_openml=fetch_openml))


def test_read_idx_gives_shape_and_values_in_row_major_order(mnist: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gz"
    path.write_bytes(gzip.compress(HEADER_2X3 + bytes([0, 1, 2, 253, 254, 255])))
    array = mnist.read_idx(path, rank=2)
    assert array.dtype == np.uint8
    assert array.flags.writeable
    np.testing.assert_array_equal(array, [[0, 1, 2], [253, 254, 255]])


def test_read_idx_reads_sizes_as_big_endian(mnist: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 1, 2]) + bytes(258)))
    assert mnist.read_idx(path, rank=1).shape == (258,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "idx header is , expected 00000802", id="empty file"),
        pytest.param(b"<html>", "cannot be read as gzip", id="not gzip"),
        pytest.param(gzip.compress(HEADER_2X3 + bytes(6))[:-12], "cannot be read as gzip", id="gzip cut short"),
        pytest.param(gzip.compress(b"\0\0\x0d\2" + HEADER_2X3[4:] + bytes(24)), "idx header is 00000d02", id="float32"),
        pytest.param(gzip.compress(b"\0\0\x08\3" + bytes(12)), "expected 00000802", id="three axes, not two"),
        pytest.param(gzip.compress(HEADER_2X3[:7]), "idx header has 7 bytes, expected 12", id="header cut short"),
        pytest.param(gzip.compress(HEADER_2X3 + bytes(5)), "5 elements, expected 6", id="one element missing"),
        pytest.param(gzip.compress(HEADER_2X3 + bytes(7)), "7 elements, expected 6", id="one element too many"),
    ],
)
def test_read_idx_names_the_damage(mnist: ModuleType, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "tiny.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        mnist.read_idx(path, rank=2)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_read_idx_of_a_missing_file(mnist: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.gz"):
        mnist.read_idx(tmp_path / "absent.gz", rank=1)


def test_load_accepts_the_folder_its_parent_and_the_variable(
    mnist: ModuleType, tmp_path: Path, write_tiny_mnist: TinyMnist, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_mnist(tmp_path / "mnist", 20, 7)
    images, labels = mnist.load_mnist("test", tmp_path / "mnist")
    assert (images.dtype, images.shape, labels.dtype) == (np.uint8, (7, 28, 28), np.int64)
    np.testing.assert_array_equal(labels, np.arange(7))
    np.testing.assert_array_equal(mnist.load_mnist("test", tmp_path)[0], images)
    assert len(mnist.load_mnist("train", tmp_path)[0]) == 20
    monkeypatch.setenv("ONNXPRUNE_DATA", str(tmp_path))
    np.testing.assert_array_equal(mnist.load_mnist("test")[0], images)


def test_the_argument_wins_over_the_variable(
    mnist: ModuleType, tmp_path: Path, write_tiny_mnist: TinyMnist, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_mnist(tmp_path / "argument", 10, 3)
    write_tiny_mnist(tmp_path / "variable", 10, 5)
    monkeypatch.setenv("ONNXPRUNE_DATA", str(tmp_path / "variable"))
    assert len(mnist.load_mnist("test", tmp_path / "argument")[1]) == 3
    assert len(mnist.load_mnist("test")[1]) == 5


def test_a_named_folder_without_the_files_is_an_error_and_nothing_is_downloaded(
    mnist: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_sklearn(monkeypatch, AssertionError("must not be called"))
    with pytest.raises(DataError, match=r"^--data: .* holds no MNIST"):
        mnist.load_mnist("test", tmp_path)
    monkeypatch.setenv("ONNXPRUNE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"^ONNXPRUNE_DATA: .* holds no MNIST"):
        mnist.load_mnist("test")


def test_images_and_labels_of_different_downloads_are_refused(
    mnist: ModuleType, tmp_path: Path, write_tiny_mnist: TinyMnist
) -> None:
    write_tiny_mnist(tmp_path / "a", 10, 4)
    write_tiny_mnist(tmp_path / "b", 10, 5)
    shutil.copy(tmp_path / "b" / "t10k-labels-idx1-ubyte.gz", tmp_path / "a")
    with pytest.raises(DataError, match=r"images \(4, 28, 28\) and labels \(5,\)"):
        mnist.load_mnist("test", tmp_path / "a")


def test_openml_rows_are_cut_into_the_canonical_splits(mnist: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "TRAIN_COUNT", 2)
    pixels = np.arange(5 * 784).reshape(5, 784) % 256
    fake_sklearn(monkeypatch, SimpleNamespace(data=pixels, target=np.array(["5", "0", "7", "2", "1"], dtype=object)))
    images, labels = mnist.load_mnist("test")
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    np.testing.assert_array_equal(images, pixels[2:].reshape(3, 28, 28))
    np.testing.assert_array_equal(labels, [7, 2, 1])
    np.testing.assert_array_equal(mnist.load_mnist("train")[1], [5, 0])


@pytest.mark.parametrize("failure", [URLError("no network"), ValueError("no such\ndata set")])
def test_a_failed_download_says_how_to_fix_it(
    mnist: ModuleType, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    fake_sklearn(monkeypatch, failure)
    with pytest.raises(DataError, match=r"OpenML failed \(.*no .*--data or ONNXPRUNE_DATA$"):
        mnist.load_mnist("test")


def test_without_scikit_learn_the_message_says_so(mnist: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # None makes the import fail
    with pytest.raises(DataError, match=r"scikit-learn is not installed.*--data or ONNXPRUNE_DATA$"):
        mnist.load_mnist("test")


def test_unit_images_are_bytes_over_255(mnist: ModuleType) -> None:
    images = np.zeros((2, 28, 28), dtype=np.uint8)
    images[1, 3, 4], images[1, 27, 27] = 255, 51
    result = mnist.unit_images(images)
    assert (result.dtype, result.shape) == (np.float32, (2, 1, 28, 28))
    assert (result[1, 0, 3, 4], result[1, 0, 27, 27]) == (1.0, np.float32(51) / np.float32(255))
    assert np.count_nonzero(result) == 2


@pytest.mark.parametrize(
    ("options", "split", "count"),
    [
        ([], "test", 12),
        (["--count", "5"], "test", 5),
        (["--count", "99"], "test", 12),
        (["--split", "train"], "train", 10),
        (["--split", "train", "--count", "3"], "train", 3),
    ],
)
def test_the_command_writes_what_the_reference_networks_take(
    mnist: ModuleType, tmp_path: Path, write_tiny_mnist: TinyMnist, options: list[str], split: str, count: int
) -> None:
    write_tiny_mnist(tmp_path / "mnist", 10, 12)
    out = tmp_path / "result.npz"
    result = CliRunner().invoke(mnist.main, ["--data", str(tmp_path), "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    images, labels = mnist.load_mnist(split, tmp_path)
    with np.load(out) as arrays:
        assert sorted(arrays) == ["image", "labels"]
        assert (arrays["image"].dtype, arrays["labels"].dtype) == (np.float32, np.int64)
        np.testing.assert_array_equal(arrays["image"], mnist.unit_images(images[:count]))
        np.testing.assert_array_equal(arrays["labels"], labels[:count])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mnist", "result.npz"]


def test_the_command_fails_with_one_line_and_writes_nothing(mnist: ModuleType, tmp_path: Path) -> None:
    result = CliRunner().invoke(mnist.main, ["--data", str(tmp_path), "--out", str(tmp_path / "result.npz")])
    assert result.exit_code == 1
    assert result.output.startswith("Error: --data: ")
    assert result.output.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_samples_for_commands_are_the_images_as_the_networks_take_them(
    mnist: ModuleType, tmp_path: Path, write_tiny_mnist: TinyMnist, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_mnist(tmp_path / "mnist", 10, 7)
    monkeypatch.setenv("ONNXPRUNE_DATA", str(tmp_path))
    monkeypatch.setattr(mnist, "HELD_OUT", 4)
    images, labels = mnist.load_mnist("train")
    first, held = mnist.split()
    whole, scored = mnist.training(), mnist.test()
    assert [len(one) for one in (first, held, whole, scored)] == [6, 4, 10, 7]
    rows = np.array([3, 0, 3])
    for source, start in ((first, 0), (held, 6), (whole, 0)):
        feeds, given = source.batch(rows)
        np.testing.assert_array_equal(feeds["image"], mnist.unit_images(images[start + rows]))
        np.testing.assert_array_equal(given, labels[start + rows])
    np.testing.assert_array_equal(scored.batch(np.arange(7))[1], mnist.load_mnist("test")[1])


def test_the_real_files(mnist: ModuleType, data_folder: Path) -> None:
    images, labels = mnist.load_mnist("test", data_folder)
    assert images.shape == (10_000, 28, 28)
    np.testing.assert_array_equal(labels[:5], [7, 2, 1, 0, 4])
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
