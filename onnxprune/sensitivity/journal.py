"""What was measured so far, on disk: an interrupted run goes on where it stopped.

One JSON value a line, each line written whole. The first says what the numbers belong to; a file that belongs to
something else is not used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TextIO

import msgspec
from onnxprune_passes.errors import DataError, ModelError

from .records import Point

Task = tuple[str, float]
"""A unit's name and the density wanted."""


class _Line(msgspec.Struct, frozen=True):
    unit: str
    point: Point


def fingerprint(files: Mapping[str, str], said: str) -> str:
    """What the numbers depend on, in 64 hex digits: the bytes of `files` that exist (a folder: its names, sizes and
    times), and `said`. `files` maps what a file is for to its path.
    """
    digest = hashlib.sha256(said.encode())
    for role, name in files.items():
        path = Path(name)
        digest.update(f"\0{role}\0{path.resolve()}\0".encode())
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        elif path.is_dir():
            for inner in sorted(path.rglob("*")):
                stat = inner.stat()
                digest.update(f"{inner.relative_to(path)} {stat.st_size} {stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()


class Journal:
    """The file of one run. In its `with` block, `known` holds what is measured already and `add` appends to it.

    Args:
        path: the file; it need not exist.
        key: the run's `fingerprint`.
        anew: drop what is there.

    Raises (when entered, or at `add`):
        ModelError: the file cannot be written.
    """

    def __init__(self, path: Path, key: str, *, anew: bool = False) -> None:
        self.known: dict[Task, Point] = {}
        self._path, self._key, self._anew = path, key, anew
        self._file: TextIO | None = None

    def __enter__(self) -> Journal:
        lines = [] if self._anew else self._lines()
        try:
            self._file = self._path.open("w", encoding="utf-8")
        except OSError as error:
            raise ModelError(f"{self._path} cannot be written: {error.strerror}; choose another --json") from error
        self._write(msgspec.json.encode(self._key))
        for line in lines:
            self.add((line.unit, line.point.wanted), line.point)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, task: Task, point: Point) -> None:
        """Keep one more measurement."""
        self.known[task] = point
        self._write(msgspec.json.encode(_Line(task[0], point)))

    def remove(self) -> None:
        """Delete the file: the run is over."""
        self._path.unlink(missing_ok=True)

    def _write(self, line: bytes) -> None:
        if self._file is None:
            raise DataError(f"{self._path} is not open: use the journal in a with block")
        self._file.write(line.decode() + "\n")
        self._file.flush()

    def _lines(self) -> list[_Line]:
        """The whole lines of an earlier run of the same key; a last one cut short is left out."""
        try:
            first, *rest = self._path.read_bytes().splitlines()
            if msgspec.json.decode(first, type=str) != self._key:
                return []
        except (OSError, ValueError, msgspec.DecodeError):
            return []
        lines = []
        for text in rest:
            try:
                lines.append(msgspec.json.decode(text, type=_Line))
            except msgspec.DecodeError:
                break
        return lines
