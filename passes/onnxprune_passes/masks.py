"""`Masks`: which entries of which tensors are kept.

True = keep; a tensor without a mask is kept whole. Masks only ever shrink. They are held packed, one bit an entry.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .arrays import Bits, Masked, NDArray
from .errors import DataError, ModelError

if TYPE_CHECKING:
    from .model import Model

BoolArray = npt.NDArray[np.bool_]


class Masks(Mapping[str, BoolArray]):
    """Read-only mapping from a tensor's key to a bool array of the tensor's shape (True = keep)."""

    def __init__(self, masks: Mapping[str, BoolArray] | None = None) -> None:
        self._packed: dict[str, tuple[Bits, tuple[int, ...]]] = {}
        for key, keep in (masks or {}).items():
            flat = np.ascontiguousarray(keep, np.bool_).reshape(-1)
            self._packed[key] = (np.packbits(flat, bitorder="little"), keep.shape)

    def __getitem__(self, key: str) -> BoolArray:
        bits, shape = self._packed[key]
        count = int(np.prod(shape, dtype=np.int64))
        return np.unpackbits(bits, count=count, bitorder="little").view(np.bool_).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def bits(self, key: str) -> Bits:
        """The packed mask of `key`: uint8 [ceil(size / 8)], least significant bit first."""
        return self._packed[key][0]

    def kept(self, key: str) -> int:
        """How many entries of `key` are kept."""
        return int(np.bitwise_count(self.bits(key)).sum(dtype=np.int64))

    def with_bits(self, packed: Mapping[str, tuple[Bits, tuple[int, ...]]]) -> Masks:
        """Masks with some replaced, given packed with their shapes; nothing is checked: `shrunk` is the careful way."""
        new = Masks()
        new._packed = {**self._packed, **packed}
        return new

    def shrunk(self, masks: Mapping[str, BoolArray]) -> Masks:
        """These masks, each also without what `masks` prunes (logical and).

        Raises:
            ModelError: a mask has another shape than the one that is here.
        """
        for key, keep in masks.items():
            if key in self and keep.shape != self._packed[key][1]:
                raise ModelError(f"the mask {key!r} has shape {keep.shape}, the one before it {self._packed[key][1]}")
        return self.with_bits(
            Masks({key: keep & self[key] if key in self else keep for key, keep in masks.items()})._packed
        )

    def without(self, keys: set[str]) -> Masks:
        """These masks, without those of `keys`."""
        new = Masks()
        new._packed = {key: packed for key, packed in self._packed.items() if key not in keys}
        return new

    def save(self, path: str | Path) -> None:
        """Write the masks to an `.npz`: for each key, `KEY:bits` = packed bits (uint8) and `KEY:shape` = dims (int64).

        Raises:
            DataError: the file cannot be written.
        """
        try:
            with zipfile.ZipFile(path, "w") as file:  # np.savez takes no array named `file`
                for key, (bits, shape) in self._packed.items():
                    for name, array in ((f"{key}:bits", bits), (f"{key}:shape", np.array(shape, np.int64))):
                        with file.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                            np.lib.format.write_array(member, array, allow_pickle=False)
        except OSError as error:
            raise DataError(f"the masks cannot be written to {path}: {error.strerror}; choose another file") from error

    @staticmethod
    def load(path: str | Path) -> Masks:
        """Read masks that `save` wrote. Raises DataError when the file is missing or not one."""
        try:
            with zipfile.ZipFile(path) as file:
                arrays = {name.removesuffix(".npy"): _member(file, name) for name in file.namelist()}
        except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{path} is not a mask file written by onnxprune: {error}") from error
        masks = Masks()
        for key in dict.fromkeys(name.rpartition(":")[0] for name in arrays):
            bits, shape = arrays.get(f"{key}:bits"), arrays.get(f"{key}:shape")
            if bits is None or shape is None or not _fits(bits, shape):
                raise DataError(
                    f"{path}: the mask {key!r} and its shape do not fit each other; write them with --save-masks again"
                )
            masks._packed[key] = (bits, tuple(int(size) for size in shape))
        return masks


def _member(file: zipfile.ZipFile, name: str) -> NDArray:
    with file.open(name) as member:
        array: NDArray = np.lib.format.read_array(member, allow_pickle=False)
    return array


def _fits(bits: NDArray, shape: NDArray) -> bool:
    """True when `bits` are packed bits of a mask of dims `shape`, zeros behind the last."""
    if bits.dtype != np.uint8 or shape.dtype != np.int64 or bits.ndim != 1 or shape.ndim != 1 or (shape < 0).any():
        return False
    size = math.prod(shape.tolist())
    return bits.size == -(-size // 8) and not (size % 8 and bits[-1] >> size % 8)


def apply_masks(model: Model, masks: Masks, fills: Mapping[str, NDArray] | None = None) -> Model:
    """`model` with pruned entries read as 0 (or as `fills[key]`, a quantised weight's zero point), lazily.

    Raises:
        ModelError: a mask names no tensor of the model, or has another shape.
    """
    changes: dict[str, Masked] = {}
    for key in masks:
        if key not in model.initializers:
            raise ModelError(f"the mask {key!r} names no tensor of the model: it belongs to another model")
        source = model.initializers.source(key)
        if masks._packed[key][1] != source.shape:
            raise ModelError(
                f"the mask {key!r} has shape {masks._packed[key][1]}, the tensor {source.shape}: "
                "it belongs to another model"
            )
        fill = (fills or {}).get(key)
        if isinstance(source, Masked):
            bits = masks.bits(key) & source.bits
            if not np.array_equal(bits, source.bits):
                changes[key] = Masked(source.base, bits, source.fill if fill is None else fill)
        else:
            changes[key] = Masked(source, masks.bits(key), fill)
    return model.with_initializers(changes) if changes else model
