"""How each encoded tensor of a model is stored: bytes of positions and values beside what they could take at least, and
beside what gzip and zstd make of the dense tensor.
"""

from __future__ import annotations

import zlib
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import msgspec
from onnxprune_passes.arrays import TensorSource
from onnxprune_passes.encode import EncodedTensor, densify
from onnxprune_passes.encode.stored import stored_tensors
from onnxprune_passes.model import Model

_GZIP, _LEVEL = 31, 9
_ZSTD_LEVEL = 19


class StoredTensor(msgspec.Struct, frozen=True, kw_only=True):
    """One encoded tensor.

    Attributes:
        name: its key.
        scheme: coo, or the name of its coding, such as bitmask or gaps4+codes8.
        shape: dims of the dense tensor.
        density: share of entries whose bits are not all zero.
        index_bytes, value_bytes: of the parts that say where kept entries lie, and what they are.
        bytes: all that it takes in the file, its nodes too; functions, which tensors share, are not in it.
        bound_bytes: the entropy of both (see `onnxprune_passes.encode.bound`).
        dense_bytes: what it would take as a dense initializer.
        gzip_bytes, zstd_bytes: gzip -9 and zstd -19 of the dense values; null where that was not asked for, or the
            package zstandard is not installed.
    """

    name: str
    scheme: str
    shape: tuple[int, ...]
    density: float
    index_bytes: int
    value_bytes: int
    bytes: int
    bound_bytes: float
    dense_bytes: int
    gzip_bytes: int | None = None
    zstd_bytes: int | None = None


class _Compressor(Protocol):
    def compress(self, data: bytes) -> bytes: ...

    def flush(self) -> bytes: ...


def stored(model: Model, *, compare: bool = False) -> tuple[StoredTensor, ...]:
    """How the encoded tensors of `model` are stored; `compare`: what gzip and zstd make of them dense, too.

    gzip takes about a second for 20 MB of mostly zeros, zstd a few.

    Raises:
        EncodeError: a stored tensor cannot be decoded.
    """
    dense = densify(model) if compare else model
    return tuple(_stored(found, dense, compare=compare) for found in stored_tensors(model))


def _stored(found: EncodedTensor, dense: Model, *, compare: bool) -> StoredTensor:
    gzip = zstd = None
    if compare:
        source = dense.initializers.source(found.key)
        gzip = _compressed(source, zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP))
        zstd = zstd_nbytes(source)
    return StoredTensor(
        name=found.key,
        scheme=found.scheme,
        shape=found.shape,
        density=found.density,
        index_bytes=found.index_nbytes,
        value_bytes=found.value_nbytes,
        bytes=found.nbytes,
        bound_bytes=found.bound_nbytes,
        dense_bytes=found.dense_nbytes,
        gzip_bytes=gzip,
        zstd_bytes=zstd,
    )


def zstd_nbytes(source: TensorSource) -> int | None:
    """Bytes of `source` under zstd -19; None where the package zstandard is not installed."""
    if find_spec("zstandard") is None:
        return None
    zstandard: Any = import_module("zstandard")
    compressor: _Compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj(
        size=source.size * source.dtype.itemsize
    )
    return _compressed(source, compressor)


def _compressed(source: TensorSource, compressor: _Compressor) -> int:
    return sum(len(compressor.compress(chunk.tobytes())) for chunk in source.chunks()) + len(compressor.flush())
