"""Tensors that share the memory of a model's file without being able to change it.

torch has no read-only tensors. A frozen tensor of a memory-mapped file is therefore mapped a second time, private to
this process: reading it shares the pages of the file with everybody, and a write (by `load_state_dict`, say) copies one
page and leaves the file and the model alone. A tensor that begins at an odd address (which happens inside a .onnx file,
not in external data) is copied, since torch's kernels count on aligned memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnxprune_passes.arrays import CHUNK, Array, Masked
from onnxprune_passes.arrays import NDArray as AnyArray

from onnxprune.torch.dtypes import tensor_from_array


class FrozenMemory:
    """Gives tensors of stored arrays; files are mapped once."""

    def __init__(self) -> None:
        self._maps: dict[Path, NDArray[np.uint8] | None] = {}

    def tensor(self, source: Array | Masked | AnyArray, where: str) -> torch.Tensor:
        """The source's values: pages of its file where it is a memory map, else memory of their own.

        Raises:
            ModelError: torch has no such element type.
        """
        array = source if isinstance(source, np.ndarray) else source.array()
        mapped = None if isinstance(source, Masked) else self._mapped(array)
        return own_tensor(source, where) if mapped is None else tensor_from_array(mapped, where)

    def _mapped(self, array: AnyArray) -> AnyArray | None:
        """The same part of the same file in a private map; None where there is no file, or not the same any more."""
        base = _root(array)
        if not isinstance(base, np.memmap) or base.filename is None or not array.flags.c_contiguous:
            return None
        whole = self._private(Path(base.filename))
        start = array.ctypes.data - base.ctypes.data + base.offset
        if whole is None or not array.flags.aligned or not array.size or start + array.nbytes > whole.size:
            return None
        part = whole[start : start + array.nbytes]
        if not _equal_bytes(part, array.reshape(-1).view(np.uint8)):
            return None
        return part.view(array.dtype).reshape(array.shape)

    def _private(self, path: Path) -> NDArray[np.uint8] | None:
        if path not in self._maps:
            try:
                self._maps[path] = np.memmap(path, np.uint8, "c")
            except (OSError, ValueError):
                self._maps[path] = None
        return self._maps[path]


def own_tensor(source: Array | Masked | AnyArray, where: str) -> torch.Tensor:
    """The source's values in memory of their own. Raises ModelError when torch has no such element type."""
    if isinstance(source, Masked):  # computed when it is read: nobody else has it
        whole = source.array()
        base = whole.base
        if isinstance(base, np.ndarray) and base.flags.writeable and base.size == whole.size:
            return tensor_from_array(base.reshape(whole.shape), where)
        return tensor_from_array(np.array(whole), where)
    return tensor_from_array(np.array(source if isinstance(source, np.ndarray) else source.values), where)


def _root(array: AnyArray) -> object:
    """What holds the memory that an array is a view of, as far as numpy knows: a memory map, if there is one."""
    base: object = array
    while True:
        inner = base.base if isinstance(base, np.ndarray) else base.obj if isinstance(base, memoryview) else None
        if not isinstance(inner, (np.ndarray, memoryview)):
            return base
        base = inner


def _equal_bytes(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    """Whether two runs of bytes are equal, compared in pieces."""
    step = CHUNK * 16
    return all(np.array_equal(a[at : at + step], b[at : at + step]) for at in range(0, a.size, step))
