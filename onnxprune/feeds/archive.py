"""The arrays of an `.npz` file: small ones read, large ones mapped, none read twice.

Format: a zip archive of `.npy` files (NEP 1, numpy.lib.format). `numpy.savez` stores them uncompressed, so that an
array can be mapped straight from the archive: its bytes begin behind the member's local header (PKWARE APPNOTE 4.3.7:
30 bytes, the name, the extra field) and the `.npy` header.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from onnxprune.runtime import Array

MAPPED_BYTES = 1 << 26
"""Uncompressed arrays of at least this many bytes are mapped."""

_SUFFIX = ".npy"
_CHUNK = 1 << 20
_LOCAL_HEADER = struct.Struct("<26x2H")


@dataclass(frozen=True)
class Header:
    """What an array is, without its values."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    size: int

    def __str__(self) -> str:
        return f"{self.dtype.name}{list(self.shape)}"


class NpzArchive:
    """An open `.npz` file. `headers` tells its arrays by name, in the file's order; `read` gives one.

    Raises:
        zipfile.BadZipFile, ValueError, OSError, EOFError, RuntimeError, zlib.error: it is no such file, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("no zip archive; a single array has no name")
        self._zip = zipfile.ZipFile(path)
        try:
            members = [info for info in self._zip.infolist() if info.filename.endswith(_SUFFIX)]
            self._members = {info.filename.removesuffix(_SUFFIX): info for info in members}
            self.headers: Mapping[str, Header] = {name: self._header(name) for name in self._members}
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> NpzArchive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def read(self, name: str) -> Array:
        """The array `name`: in memory, or a read-only map of the file once its checksum was found right."""
        info, header = self._members[name], self.headers[name]
        nbytes = info.file_size - header.size
        if header.dtype.hasobject:
            raise ValueError(f"array {name} is pickled")
        with self._zip.open(info) as stream:
            if info.compress_type != zipfile.ZIP_STORED or nbytes < MAPPED_BYTES:
                return npy.read_array(stream, allow_pickle=False)
            while stream.read(_CHUNK):  # at the end zipfile compares the checksum
                pass
        order = "F" if header.fortran else "C"
        offset = self._start(info) + header.size
        mapped = np.memmap(self._path, header.dtype, "r", offset, header.shape, order)  # type: ignore[call-overload]
        return np.asarray(mapped)

    def _header(self, name: str) -> Header:
        with self._zip.open(self._members[name]) as stream:
            shape, fortran, dtype = _read_header(stream)
            return Header(dtype, shape, fortran, stream.tell())

    def _start(self, info: zipfile.ZipInfo) -> int:
        """Where in the file a member's bytes begin."""
        with self._path.open("rb") as file:
            file.seek(info.header_offset)
            name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        return info.header_offset + _LOCAL_HEADER.size + int(name) + int(extra)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    if version == (1, 0):
        return npy.read_array_header_1_0(stream)
    if version in ((2, 0), (3, 0)):  # 3.0 is 2.0 with field names in UTF-8; arrays here have no fields
        return npy.read_array_header_2_0(stream)
    raise ValueError(f"array format {version} is unknown")
