"""`Masks`: which entries of which tensors are kept.

True = keep; a tensor without a mask is kept whole. Masks only ever shrink. They are held packed, one bit an entry.
"""

from __future__ import annotations

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
        """These masks, each also without what `masks` prunes (logical and)."""
        return self.with_bits(
            Masks({key: keep & self[key] if key in self else keep for key, keep in masks.items()})._packed
        )

    def without(self, keys: set[str]) -> Masks:
        """These masks, without those of `keys`."""
        new = Masks()
        new._packed = {key: packed for key, packed in self._packed.items() if key not in keys}
        return new

    def save(self, path: str | Path) -> None:
        """Write the masks to an `.npz`: for each key, `KEY` = packed bits (uint8) and `KEY:shape` = dims (int64)."""
        arrays: dict[str, NDArray] = {}
        for key, (bits, shape) in self._packed.items():
            arrays[key] = bits
            arrays[f"{key}:shape"] = np.array(shape, np.int64)
        with Path(path).open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @staticmethod
    def load(path: str | Path) -> Masks:
        """Read masks that `save` wrote. Raises DataError when the file is not one."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is not a mask file written by onnxprune: {error}") from error
        masks = Masks()
        for key, bits in arrays.items():
            if key.endswith(":shape") and key.removesuffix(":shape") in arrays:
                continue
            shape = arrays.get(f"{key}:shape")
            if shape is None or bits.dtype != np.uint8 or bits.size != -(-int(np.prod(shape)) // 8):
                raise DataError(
                    f"{path}: the mask {key!r} has no fitting shape beside it; write the file with --save-masks again"
                )
            masks._packed[key] = (bits, tuple(int(size) for size in shape))
        return masks


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
        base = source.base if isinstance(source, Masked) else source
        if isinstance(source, Masked) and source.bits is masks.bits(key):
            continue
        bits = masks.bits(key) & source.bits if isinstance(source, Masked) else masks.bits(key)
        changes[key] = Masked(base, bits, (fills or {}).get(key))
    return model.with_initializers(changes) if changes else model
