from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import NDArray, matmuls, ramp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnxprune_passes.arrays import Masked
from onnxprune_passes.errors import DataError, ModelError
from onnxprune_passes.masks import Masks, apply_masks

BOOLS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9))


@st.composite
def mask_sets(draw: st.DrawFn) -> dict[str, NDArray]:
    names = st.text(min_size=1, max_size=5).filter(lambda name: "\0" not in name)
    special = st.sampled_from(["file", "w:shape", "w:bits", "w", "a.npy", "../up", "allow_pickle", ""])
    found: dict[str, NDArray] = draw(st.dictionaries(names | special, BOOLS, max_size=5))
    return found


@given(mask_sets())
def test_masks_are_what_was_put_in(given_masks: dict[str, NDArray]) -> None:
    masks = Masks(given_masks)
    assert list(masks) == list(given_masks)
    assert len(masks) == len(given_masks)
    for key, keep in given_masks.items():
        assert np.array_equal(masks[key], keep)
        assert masks[key].dtype == np.bool_
        assert masks.kept(key) == keep.sum()
        assert masks.bits(key).size == -(-keep.size // 8)


@given(hnp.arrays(np.bool_, (5, 7)), hnp.arrays(np.bool_, (5, 7)))
def test_masks_only_shrink(first: NDArray, second: NDArray) -> None:
    before = Masks({"w": first, "untouched": second})
    after = before.shrunk({"w": second, "new": first})
    assert np.array_equal(after["w"], first & second)
    assert np.array_equal(after["new"], first)
    assert np.array_equal(after["untouched"], second)
    assert np.array_equal(before["w"], first)
    assert "new" not in before
    assert after.kept("w") <= before.kept("w")


def test_a_mask_of_another_shape_does_not_shrink_one() -> None:
    with pytest.raises(ModelError, match=r"mask 'w' has shape \(3,\), the one before it \(2, 3\)"):
        Masks({"w": np.ones((2, 3), np.bool_)}).shrunk({"w": np.ones(3, np.bool_)})


def test_masks_can_be_left_out() -> None:
    masks = Masks({"a": np.ones(3, np.bool_), "b": np.zeros(3, np.bool_)})
    assert list(masks.without({"a", "gone"})) == ["b"]
    assert list(masks) == ["a", "b"]


# files


@given(given_masks=mask_sets())
def test_masks_come_back_from_a_file(tmp_path_factory: pytest.TempPathFactory, given_masks: dict[str, NDArray]) -> None:
    path = tmp_path_factory.mktemp("masks") / "m.npz"
    Masks(given_masks).save(path)
    after = Masks.load(path)
    assert list(after) == list(given_masks)
    for key, keep in given_masks.items():
        assert np.array_equal(after[key], keep)


def test_the_file_is_an_npz_that_is_the_same_every_time(tmp_path: Path) -> None:
    masks = Masks({"fc1.weight": np.array([[True, False, True]])})
    for name in ("a.npz", "b.npz"):
        masks.save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as file:
        assert file["fc1.weight:bits"].tolist() == [0b101]
        assert file["fc1.weight:shape"].tolist() == [1, 3]


def write(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **{name.replace("_", ":"): array for name, array in arrays.items()})


BITS, SHAPE = np.array([5], np.uint8), np.array([3], np.int64)


@pytest.mark.parametrize(
    "arrays",
    [
        {"w": BITS},
        {"w_bits": BITS},
        {"w_shape": SHAPE},
        {"w_bits": BITS, "w_shape": np.array([9], np.int64)},
        {"w_bits": BITS, "w_shape": np.array([2], np.int64)},  # a bit is set behind the last entry
        {"w_bits": BITS, "w_shape": np.array([-3], np.int64)},
        {"w_bits": BITS, "w_shape": np.array([3.0])},
        {"w_bits": BITS, "w_shape": np.array([[3]], np.int64)},
        {"w_bits": BITS, "w_shape": np.array([1 << 62, 4], np.int64)},
        {"w_bits": BITS.astype(np.int64), "w_shape": SHAPE},
        {"w_bits": BITS.reshape(1, 1), "w_shape": SHAPE},
        {"w_bits": np.array([5, 0], np.uint8), "w_shape": SHAPE},
        {"weights": ramp(3)},
    ],
)
def test_arrays_that_are_no_masks_are_refused(tmp_path: Path, arrays: dict[str, NDArray]) -> None:
    write(tmp_path / "m.npz", arrays)
    with pytest.raises(DataError, match="do not fit each other") as caught:
        Masks.load(tmp_path / "m.npz")
    assert "\n" not in str(caught.value)


def test_files_that_are_no_mask_files_are_refused(tmp_path: Path) -> None:
    Masks({"w": np.ones(2000, np.bool_), "v": np.ones(5, np.bool_)}).save(tmp_path / "m.npz")
    intact = (tmp_path / "m.npz").read_bytes()
    np.save(tmp_path / "one.npy", ramp(3))
    with zipfile.ZipFile(tmp_path / "text.zip", "w") as file:
        file.writestr("w:bits.npy", "no array")
    np.savez(tmp_path / "objects.npz", allow_pickle=True, **{"w:bits": np.array([None])})
    (tmp_path / "flipped.npz").write_bytes(intact.replace(b"\xff" * 9, b"\xff" * 8 + b"\x7f", 1))
    names = ["gone.npz", "one.npy", "text.zip", "objects.npz", "flipped.npz"]
    for index, data in enumerate([b"", b"text", intact[:-1], intact[:100], intact[50:]]):
        (tmp_path / f"{index}.npz").write_bytes(data)
        names.append(f"{index}.npz")
    for name in names:
        with pytest.raises(DataError, match="is not a mask file written by onnxprune") as caught:
            Masks.load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be written to .*gone.*No such file"):
        Masks({}).save(tmp_path / "gone" / "m.npz")


# masks on models


@given(hnp.arrays(np.bool_, (5, 7)), hnp.arrays(np.bool_, (5, 7)))
def test_applied_masks_zero_and_only_zero(first: NDArray, second: NDArray) -> None:
    model = matmuls({"w": ramp(5, 7), "v": ramp(5, 7)})
    once = apply_masks(model, Masks({"w": first}))
    twice = apply_masks(once, Masks({"w": second}))
    assert np.array_equal(once.initializers["w"], ramp(5, 7) * first)
    assert np.array_equal(twice.initializers["w"], ramp(5, 7) * (first & second))
    assert np.array_equal(twice.initializers["v"], ramp(5, 7))
    assert np.array_equal(model.initializers["w"], ramp(5, 7))
    source = twice.initializers.source("w")
    assert isinstance(source, Masked)
    assert np.array_equal(source.base.array(), ramp(5, 7))  # masks do not pile up


def test_the_same_masks_again_change_nothing() -> None:
    keep = np.arange(35).reshape(5, 7) > 4
    masks = Masks({"w": keep})
    model = apply_masks(matmuls({"w": ramp(5, 7)}), masks)
    assert apply_masks(model, masks) is model
    assert apply_masks(model, Masks({"w": keep | True})) is model
    assert apply_masks(model, Masks()) is model


def test_pruned_entries_of_a_quantised_weight_are_its_zero_point_from_then_on() -> None:
    model = matmuls({"w": np.full((5, 7), 9, np.int8)})
    first, second = (np.arange(35).reshape(5, 7) % k > 0 for k in (2, 3))
    once = apply_masks(model, Masks({"w": first}), {"w": np.full((1, 1), 3, np.int8)})
    twice = apply_masks(once, Masks({"w": second}))  # who prunes further need not know the zero point
    assert np.array_equal(twice.initializers["w"], np.where(first & second, 9, 3))


def test_masks_of_another_model_are_refused() -> None:
    model = matmuls({"w": ramp(5, 7)})
    with pytest.raises(ModelError, match="mask 'v' names no tensor"):
        apply_masks(model, Masks({"v": np.ones((5, 7), np.bool_)}))
    with pytest.raises(ModelError, match=r"mask 'w' has shape \(7, 5\), the tensor \(5, 7\)"):
        apply_masks(model, Masks({"w": np.ones((7, 5), np.bool_)}))
