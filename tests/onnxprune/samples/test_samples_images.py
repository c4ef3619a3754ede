"""Samples of class folders of pictures, against numpy and Pillow by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnxprune_passes.errors import DataError, SelectionError

from onnxprune.runtime import TensorSpec
from onnxprune.samples import read_pair, read_samples

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed (extra images)")

SpecOf = Callable[..., TensorSpec]
Picture = Callable[..., Any]
ALL = np.arange(4, dtype=np.int64)


@pytest.fixture
def folder(tmp_path: Path, picture: Picture) -> Path:
    """Classes `ant` and `bee` with two pictures of 6x8 each, one in a folder of its own, and what is no picture."""
    root = tmp_path / "photos"
    for index, name in enumerate(["bee/b1.png", "ant/a2.png", "ant/deep/a1.PNG", "bee/b2.bmp"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(6, 8, index)).save(root / name)
    (root / "ant" / "notes.txt").write_text("no picture")
    (root / ".cache").mkdir()
    (root / "read.me").write_text("no class")
    return root


def first(path: Path, spec: TensorSpec, *options: str) -> Any:
    feeds, _ = read_samples(str(path), [spec], options).batch(np.array([0], np.int64))
    return feeds[spec.name][0]


def test_classes_by_sorted_folder_names(folder: Path, spec_of: SpecOf) -> None:
    samples = read_samples(str(folder), [spec_of("x", ("N", 3, 6, 8))])
    feeds, labels = samples.batch(np.array([2, 0, 3, 1, 0], np.int64))
    assert len(samples) == 4
    assert labels is not None
    assert labels.dtype == np.int64
    assert labels.tolist() == [1, 0, 1, 0, 0]
    assert feeds["x"].shape == (5, 3, 6, 8)
    assert feeds["x"].dtype == np.float32
    assert samples.note == "photos: 4 pictures of 2 classes, RGB 6x8, times 0.0039216"


def test_a_picture_of_the_right_size_is_fed_times_1_over_255(folder: Path, spec_of: SpecOf, picture: Picture) -> None:
    pixels = picture(6, 8, 1)  # ant/a2.png, the first by name
    scaled = pixels.astype(np.float32) * np.float32(1 / 255)
    np.testing.assert_array_equal(first(folder, spec_of("x", ("N", 3, 6, 8))), scaled.transpose(2, 0, 1))
    np.testing.assert_array_equal(first(folder, spec_of("x", (1, 6, 8, 3))), scaled)
    np.testing.assert_array_equal(first(folder, spec_of("x", ("N", 6, 8, 3), np.uint8)), pixels)
    np.testing.assert_array_equal(first(folder, spec_of("x", ("N", 6, 8, 3), np.float16)), scaled.astype(np.float16))


def test_scale_mean_std_and_order(folder: Path, spec_of: SpecOf, picture: Picture) -> None:
    spec = spec_of("x", ("N", 6, 8, 3))
    pixels = picture(6, 8, 1).astype(np.float32)
    np.testing.assert_array_equal(first(folder, spec, "scale=1"), pixels)
    np.testing.assert_array_equal(
        first(folder, spec, "scale=2", "mean=1,2,3"), pixels * 2 - np.array([1, 2, 3], np.float32)
    )
    np.testing.assert_array_equal(first(folder, spec, "scale=1", "std=2,4,8"), pixels / np.array([2, 4, 8], np.float32))
    np.testing.assert_array_equal(first(folder, spec, "scale=1", "mean=128", "std=2"), (pixels - 128) / 2)
    np.testing.assert_array_equal(first(folder, spec, "scale=1", "order=bgr"), pixels[:, :, ::-1])
    np.testing.assert_array_equal(
        first(folder, spec, "scale=1", "mean=1,2,3", "order=bgr"), pixels[:, :, ::-1] - np.array([1, 2, 3], np.float32)
    )


def test_grey_inputs(folder: Path, spec_of: SpecOf, picture: Picture) -> None:
    grey = np.asarray(Image.fromarray(picture(6, 8, 1)).convert("L")).astype(np.float32)
    np.testing.assert_array_equal(first(folder, spec_of("x", ("N", 1, 6, 8)), "scale=1"), grey[None])
    np.testing.assert_array_equal(first(folder, spec_of("x", ("N", 6, 8, 1)), "scale=1"), grey[:, :, None])
    np.testing.assert_array_equal(first(folder, spec_of("x", ("N", 6, 8)), "scale=1"), grey)


def test_the_centre_is_cut_after_scaling_to_cover(folder: Path, spec_of: SpecOf, picture: Picture) -> None:
    image = Image.fromarray(picture(6, 8, 1))
    spec = spec_of("x", ("N", 3, 3, 3), np.uint8)
    covering = np.asarray(image.resize((4, 3), Image.Resampling.BILINEAR))
    larger = np.asarray(image.resize((6, 5), Image.Resampling.BILINEAR))
    stretched = np.asarray(image.resize((3, 3), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(first(folder, spec), covering[:, 0:3].transpose(2, 0, 1))
    np.testing.assert_array_equal(first(folder, spec, "resize=5"), larger[1:4, 2:5].transpose(2, 0, 1))
    np.testing.assert_array_equal(first(folder, spec, "fit=stretch"), stretched.transpose(2, 0, 1))


def test_an_open_size_and_an_open_layout(folder: Path, spec_of: SpecOf) -> None:
    spec = spec_of("x", ("N", 3, "H", "W"))
    with pytest.raises(DataError, match=r"x float32\[N, 3, H, W\] takes pictures of any size; say which"):
        read_samples(str(folder), [spec])
    assert first(folder, spec, "size=4x5").shape == (3, 4, 5)
    assert first(folder, spec, "size=4").shape == (3, 4, 4)
    both = spec_of("x", ("N", 3, 6, 3))
    assert first(folder, both).shape == (3, 6, 3)
    assert np.array_equal(first(folder, both, "layout=nchw"), first(folder, both))
    assert not np.array_equal(first(folder, both, "layout=nhwc"), first(folder, both))


def test_training_and_validation_folders(tmp_path: Path, picture: Picture, spec_of: SpecOf) -> None:
    for part, name, count in (("train", "a", 2), ("train", "b", 1), ("val", "b", 3)):
        (tmp_path / part / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(picture(4, 4, index)).save(tmp_path / part / name / f"{index}.png")
    spec = spec_of("x", ("N", 3, 4, 4))
    train, held_out = read_pair(str(tmp_path), [spec])
    assert held_out is not None
    assert (len(train), len(held_out)) == (3, 3)
    assert held_out.batch(ALL[:3])[1].tolist() == [1, 1, 1]  # type: ignore[union-attr]  # there are labels
    assert len(read_samples(str(tmp_path), [spec])) == 3
    (tmp_path / "val" / "c").mkdir()
    with pytest.raises(DataError, match="class c is not among those of train"):
        read_pair(str(tmp_path), [spec])


@pytest.mark.parametrize("content", [b"", b"GIF89a no picture", None], ids=["empty", "other", "cut short"])
def test_a_broken_picture_names_its_path(folder: Path, spec_of: SpecOf, content: bytes | None) -> None:
    path = folder / "ant" / "a2.png"
    path.write_bytes(path.read_bytes()[:90] if content is None else content)
    samples = read_samples(str(folder), [spec_of("x", ("N", 3, 6, 8))])
    samples.batch(ALL[1:])
    with pytest.raises(DataError, match=r"ant/a2\.png: the picture cannot be read \(.+\); replace or remove it"):
        samples.batch(ALL)


def test_pixels_of_16_bits_are_refused(folder: Path, spec_of: SpecOf) -> None:
    Image.fromarray(np.full((6, 8), 4000, np.uint16)).save(folder / "ant" / "a2.png")
    with pytest.raises(DataError, match=r"a2\.png.*pixels of mode I;16, expected 8 bits"):
        first(folder, spec_of("x", ("N", 1, 6, 8)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_other_modes_are_converted(folder: Path, spec_of: SpecOf, picture: Picture, mode: str) -> None:
    (folder / "ant" / "a2.png").unlink()
    suffix = "tif" if mode == "CMYK" else "png"
    image = Image.fromarray(picture(6, 8)).convert("RGBA" if mode == "LA" else mode).convert(mode)
    image.save(folder / "ant" / f"a2.{suffix}")
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(first(folder, spec_of("x", ("N", 6, 8, 3), np.uint8)), expected)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([("x", ("N", 3, 4, 4)), ("y", ("N",))], r"feeds one input, the model has 2 \(x float32"),
        ([("x", ("N", 784))], r"x float32\[N, 784\] is no picture: expected \[N, C, H, W\]"),
        ([("x", ("N", 4, 4, 4))], "is no picture"),
        ([("x", ("N", 3, 4, 4), bool)], "takes no pixels"),
    ],
)
def test_models_that_take_no_picture(folder: Path, spec_of: SpecOf, specs: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_samples(str(folder), [spec_of(*one) for one in specs])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["mean=1,2"], "mean has 2 numbers, the input 3 channels"),
        (["size=9"], "size contradicts input x"),
        (["resize=5"], "resize=5 must be at least 8"),
        (["resize=9", "fit=stretch"], "excludes fit=stretch"),
        (["split=train"], r"split has no meaning for a folder of pictures \(it reads scale, mean"),
        (["column.x=y"], "column.… has no meaning for a folder"),
        (["count=3"], "count has no meaning for a folder"),
        (["maen=1"], "maen is unknown: did you mean mean?"),
        (["colour=1"], "colour is unknown: known are scale, mean"),
        (["mean"], "'mean' is not KEY=VALUE"),
        (["mean=1", "mean=2"], "mean is given twice"),
        (["std=0"], "std=0: expected numbers above 0"),
        (["scale=much"], "scale=much: could not convert"),
        (["size=4x"], None),
        (["size=0"], "expected a whole number above 0, found '0'"),
        (["fit=tight"], "expected crop or stretch"),
        (["layout=chw"], "expected nchw or nhwc"),
        (["order=gbr"], "expected rgb or bgr"),
    ],
)
def test_options_that_do_not_fit(folder: Path, spec_of: SpecOf, options: list[str], message: str | None) -> None:
    with pytest.raises(SelectionError, match=message):
        read_samples(str(folder), [spec_of("x", ("N", 3, 6, 8))], options)


def test_bytes_are_not_scaled_and_grey_has_no_order(folder: Path, spec_of: SpecOf) -> None:
    with pytest.raises(SelectionError, match="takes pixels as bytes"):
        read_samples(str(folder), [spec_of("x", ("N", 3, 6, 8), np.uint8)], ["scale=1"])
    with pytest.raises(SelectionError, match="order has no meaning"):
        read_samples(str(folder), [spec_of("x", ("N", 1, 6, 8))], ["order=bgr"])


def test_folders_without_pictures(tmp_path: Path, spec_of: SpecOf) -> None:
    spec = spec_of("x", ("N", 3, 6, 8))
    with pytest.raises(DataError, match="no class folders in it"):
        read_samples(str(tmp_path), [spec])
    (tmp_path / "ant").mkdir()
    with pytest.raises(DataError, match="no pictures in its class folders"):
        read_samples(str(tmp_path), [spec])
    with pytest.raises(DataError, match="no such file or folder"):
        read_samples(str(tmp_path / "nothing"), [spec])


def test_without_pillow(folder: Path, spec_of: SpecOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(DataError, match=r"pictures need Pillow: install onnxprune\[images\]"):
        read_samples(str(folder), [spec_of("x", ("N", 3, 6, 8))])
