"""Write a model: the skeleton with its payloads streamed in, to a temporary file first, renamed when it is whole."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import onnx
import onnx.printer

from ..arrays import NDArray, map_file
from ..errors import ModelError
from . import stubs
from .wire import Payload, Piece, rewrite, size_of

if TYPE_CHECKING:
    from ..model import Model

_LIMIT = (1 << 31) - 1
"""A protobuf message of 2 GiB or more cannot be parsed."""
_ALIGN_FROM, _ALIGN = 1 << 20, 4096


@dataclass
class Staged:
    """A model written whole and synced under temporary names: `commit` gives it its name, `discard` removes it.

    Attributes:
        path: the name it will have.
        temporary: the file it is now; its external data, if any, already has its last name beside it.
        data: the external data file, or None.
        source: the file that the model was loaded from, or None.
    """

    path: Path
    temporary: Path
    data: Path | None = None
    source: Path | None = None
    _new_data: bool = field(default=False, repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes on disk, external data included."""
        onnx_file = self.temporary if self.temporary.exists() else self.path
        return onnx_file.stat().st_size + (self.data.stat().st_size if self.data else 0)

    def commit(self) -> Path:
        """Rename to the final name, atomically; a data file that only the replaced model used goes."""
        pattern = re.compile(re.escape(self.path.stem) + r"\.[0-9a-f]{8}\.data")
        orphans = {
            file for file in data_files(self.path) if pattern.fullmatch(file.name) and file.parent == self.path.parent
        }
        needed = [file for file in (self.data, *data_files(self.source)) if file is not None]
        with _clear_os_errors(self.path):
            self.temporary.replace(self.path)
            _sync_folder(self.path.parent)
        for orphan in orphans:
            if not any(_same_file(orphan, file) for file in needed):
                with suppress(OSError):  # the new model is in its place, whatever becomes of the old data
                    orphan.unlink()
        return self.path

    def discard(self) -> None:
        """Remove what was written; nothing else was touched. Without effect after `commit`."""
        with suppress(OSError):
            self.temporary.unlink()
        if self.data is not None and self._new_data and self.data not in data_files(self.path):
            with suppress(OSError):
                self.data.unlink()


def save(model: Model, path: str | Path, *, external: bool | None = None, overwrite_input: bool = False) -> Path:
    """Write `model` to `path`; a crash at any moment leaves the old file or the new one, whole.

    Args:
        external: True puts tensors of 1 KiB or more in a data file `NAME.<8 hex of content>.data`, False puts all in
            one file, None keeps each where it was (and goes external when the model passes 2 GiB).
        overwrite_input: allow `path` to be the file that `model` was loaded from.

    Raises:
        ModelError: `path` is the input and may not be overwritten, or is the input's external data; the folder is
            missing or not writable, the disk is full, or one file was asked for and the model passes 2 GiB.
    """
    staged = stage(model, path, external=external, overwrite_input=overwrite_input)
    try:
        return staged.commit()
    except BaseException:
        staged.discard()
        raise


def stage(model: Model, path: str | Path, *, external: bool | None = None, overwrite_input: bool = False) -> Staged:
    """Write `model` as `save` does, all but the last rename, so that it can be checked first."""
    path = Path(path)
    if model.path is not None and _same_file(model.path, path) and not overwrite_input:
        raise ModelError(f"{path} is the input itself: choose another output, or allow it with --overwrite")
    if any(_same_file(file, path) for file in data_files(model.path)):
        raise ModelError(f"{path} holds the weights of the input {model.path}: choose another output")
    if not path.parent.is_dir():
        raise ModelError(f"the folder {path.parent} does not exist: create it, or choose another output")
    skeleton = memoryview(model.skeleton.SerializeToString())
    inline = rewrite(skeleton, _Writer(model, external=external).exchange)
    if size_of(inline) > _LIMIT:
        if external is False:
            raise ModelError(
                f"{path} would pass 2 GiB, more than one protobuf file can hold: let its weights be external"
            )
        external = True
    staged = Staged(path, path.parent / f".{path.name}.{os.getpid()}.tmp", source=model.path)
    try:
        with _clear_os_errors(path):
            _write_all(model, skeleton, staged, external)
    except BaseException:
        staged.discard()
        raise
    return staged


def to_proto(model: Model) -> onnx.ModelProto:
    """The model as one ModelProto with all its bytes. Raises ModelError when it passes 2 GiB."""
    pieces = rewrite(memoryview(model.skeleton.SerializeToString()), _Writer(model, external=False).exchange)
    if size_of(pieces) > _LIMIT:
        raise ModelError("the model passes 2 GiB, more than one ModelProto can hold: save it to a file")
    whole = bytearray()
    for piece in pieces:
        for part in _parts(model, piece):
            whole += part
    proto: onnx.ModelProto = onnx.ModelProto.FromString(bytes(whole))
    return proto


def to_text(model: Model) -> str:
    """The model in ONNX's textual syntax (onnx.printer), weights included."""
    return onnx.printer.to_text(to_proto(model))


class _Writer:
    """Puts payloads in for the stubs that `rewrite` passes; external ones are laid out in a data file, in
    `laid_out`.
    """

    def __init__(self, model: Model, *, external: bool | None, data_name: str = "") -> None:
        self.laid_out: list[tuple[str, int]] = []
        self._model = model
        self._external = external
        self._data_name = data_name
        self._end = 0

    def exchange(self, tensor: memoryview) -> list[Piece] | None:
        head = stubs.read_head(tensor)
        store = (head.external or {}).get(stubs.STORE)
        if head.external is None or store is None:
            return None
        key = head.external["location"]
        source = self._model.initializers.source(key)
        nbytes = source.size * source.dtype.itemsize
        rest: list[Piece] = list(head.rest)
        outside = (
            store == stubs.EXTERNAL if self._external is None else self._external and nbytes >= stubs.EXTERNAL_FROM
        )
        if outside:
            offset = -(-self._end // _ALIGN) * _ALIGN if nbytes >= _ALIGN_FROM else self._end
            self.laid_out.append((key, offset))
            self._end = offset + nbytes
            entries = {"location": self._data_name, "offset": str(offset), "length": str(nbytes)}
            return [*rest, stubs.external_bytes(entries)]
        before, after = stubs.inline_bytes(store, nbytes)
        return [*rest, before, Payload(key, nbytes), after]


def _write_all(model: Model, skeleton: memoryview, staged: Staged, external: bool | None) -> None:
    layout = _Writer(model, external=external, data_name="?")
    rewrite(skeleton, layout.exchange)
    name = ""
    if layout.laid_out:
        name = _write_data(model, layout.laid_out, staged)
    pieces = rewrite(skeleton, _Writer(model, external=external, data_name=name).exchange)
    with staged.temporary.open("wb") as file:
        for piece in pieces:
            for part in _parts(model, piece):
                file.write(part)
        _sync(file)


def _write_data(model: Model, laid_out: list[tuple[str, int]], staged: Staged) -> str:
    """Write the data file; gives its name, which tells its content, so an equal one may be there already."""
    path = staged.path
    temporary = path.parent / f".{path.name}.{os.getpid()}.data.tmp"
    checksum = 0
    try:
        with temporary.open("wb") as file:
            for key, offset in laid_out:
                gap = bytes(offset - file.tell())
                file.write(gap)
                checksum = zlib.crc32(gap, checksum)
                for chunk in model.initializers.source(key).chunks():
                    part = _bytes_of(chunk)
                    file.write(part)
                    checksum = zlib.crc32(part, checksum)
            _sync(file)
        data = path.parent / f"{path.stem}.{checksum:08x}.data"
        staged.data, staged._new_data = data, not data.exists()
        temporary.replace(data)
        _sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    return data.name


def _parts(model: Model, piece: Piece) -> Iterator[bytes | memoryview]:
    if not isinstance(piece, Payload):
        yield piece
        return
    for chunk in model.initializers.source(piece.key).chunks():
        yield _bytes_of(chunk)


def _bytes_of(chunk: NDArray) -> memoryview:
    return chunk.view(np.uint8).data


def data_files(path: Path | None) -> set[Path]:
    """The external data files that the model at `path` refers to; empty when there is none, or it cannot be read."""
    if path is None:
        return set()
    names: set[str] = set()

    def note(tensor: memoryview) -> list[Piece] | None:
        names.add((stubs.read_head(tensor).external or {}).get("location", ""))
        return None

    with suppress(ModelError, OSError):
        rewrite(map_file(path).data, note)
    return {path.parent / name for name in names if name}


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems and Windows cannot sync a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _clear_os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fix = {
            28: "free some space or choose another disk",
            13: "choose a folder you may write to",
            30: "choose a folder that is writable",
        }
        raise ModelError(
            f"{path} cannot be written: {error.strerror}; {fix.get(error.errno or 0, 'nothing was changed')}"
        ) from error
