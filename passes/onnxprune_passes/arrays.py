"""Where the numbers of an initializer come from, read in chunks so that no big tensor is ever held whole twice.

Two sources exist: an `Array` (a numpy array or a memory map of the file) and a `Masked` one (another source with a
packed bit mask, evaluated while it is read). Both give C-order flat chunks of at most `CHUNK` elements.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

NDArray = npt.NDArray[Any]
Bits = npt.NDArray[np.uint8]

CHUNK = 1 << 16
"""Elements a chunk: what is computed on it stays in a core's cache. A multiple of 8, so that packed masks begin on a
byte.
"""


class TensorSource(Protocol):
    """A tensor that can be read in chunks."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The dims, outermost first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy (or ml_dtypes) dtype of the elements."""

    @property
    def size(self) -> int:
        """The number of elements."""

    def chunks(self) -> Iterator[NDArray]:
        """Flat pieces in C order, each of `CHUNK` elements but the last; not to be written to."""

    def array(self) -> NDArray:
        """The whole tensor; read-only. A copy only where the source is masked."""


def _read_only(array: NDArray) -> NDArray:
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, eq=False)
class Array:
    """A tensor held as a numpy array or as a memory map of the file it came from."""

    values: NDArray

    @property
    def shape(self) -> tuple[int, ...]:
        """The dims, outermost first."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the elements."""
        return self.values.dtype

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.values.size

    def chunks(self) -> Iterator[NDArray]:
        """Flat views in C order; aligned copies where the file put the tensor at an odd address (numpy is slow
        there).
        """
        flat = self.values.reshape(-1)
        for start in range(0, flat.size, CHUNK):
            chunk = flat[start : start + CHUNK]
            yield chunk if chunk.flags.aligned else chunk.view(np.uint8).copy().view(chunk.dtype)

    def array(self) -> NDArray:
        """A read-only view of the array itself."""
        return _read_only(self.values)


@dataclass(frozen=True, eq=False)
class Masked:
    """`base` with `fill` wherever the mask is False.

    `bits`: the mask, packed 8 a byte, least significant bit first, over the flat tensor (1 = keep), uint8 [ceil(size
    / 8)]. `fill`: the value of a pruned entry: 0, or a quantised weight's zero point(s), broadcast against the tensor.
    """

    base: Array
    bits: Bits
    fill: NDArray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The dims, outermost first."""
        return self.base.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the elements."""
        return self.base.dtype

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.base.size

    @cached_property
    def _flat_fill(self) -> NDArray:
        assert self.fill is not None
        return np.broadcast_to(self.fill.astype(self.dtype), self.shape).reshape(-1)

    def chunks(self) -> Iterator[NDArray]:
        """Flat pieces in C order, pruned entries already replaced."""
        start = 0
        for chunk in self.base.chunks():
            keep = np.unpackbits(
                self.bits[start // 8 : (start + chunk.size + 7) // 8], count=chunk.size, bitorder="little"
            )
            if self.fill is None:
                yield zero_where_pruned(chunk, keep)
            else:
                yield np.where(keep.view(np.bool_), chunk, self._flat_fill[start : start + chunk.size])
            start += chunk.size

    def array(self) -> NDArray:
        """A new read-only array of the whole tensor."""
        whole = np.empty(self.size, self.dtype)
        start = 0
        for chunk in self.chunks():
            whole[start : start + chunk.size] = chunk
            start += chunk.size
        return _read_only(whole.reshape(self.shape))


_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def bits_of(chunk: NDArray) -> NDArray:
    """The bit patterns of `chunk` as unsigned integers of the same width, a view."""
    return chunk.view(_UNSIGNED[chunk.dtype.itemsize])


def zero_where_pruned(chunk: NDArray, keep: Bits) -> NDArray:
    """`chunk` with +0 where `keep` (uint8 0/1, same size) is 0; NaN and -0 where pruned become +0 too."""
    kept: NDArray = bits_of(chunk) * keep
    return kept.view(chunk.dtype)


def as_source(value: NDArray | Array | Masked) -> Array | Masked:
    """`value` as a source; an ndarray is wrapped, made contiguous and little-endian as ONNX stores it."""
    if isinstance(value, (Array, Masked)):
        return value
    contiguous = np.asarray(value, order="C")
    if contiguous.dtype.byteorder == ">":
        contiguous = contiguous.astype(contiguous.dtype.newbyteorder("<"))
    return Array(contiguous)


def map_file(path: Path) -> NDArray:
    """The bytes of a file as a read-only memory map, uint8 [size]. Raises OSError."""
    return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
