"""Finished rounds on disk, so that an interrupted run goes on after the last of them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec
from onnxprune_passes.errors import DataError, OnnxPruneError
from onnxprune_passes.masks import Masks
from onnxprune_passes.pipeline import Change, Skip, State
from onnxprune_passes.storage import load, save

from ..serialize import write_json
from .records import Measure, Round

_OWN = re.compile(r"rounds\.json|\d{2,}\.(onnx|masks\.npz|checkpoint|[0-9a-f]{8}\.data)")
"""Names of files and folders in a folder of rounds."""


class _Noted(msgspec.Struct, frozen=True):
    by: str
    summary: str
    name: str | None = None


class _Contents(msgspec.Struct, frozen=True, kw_only=True):
    """The file `rounds.json`."""

    identity: str
    dense: Measure | None
    rounds: tuple[Round, ...]
    logs: tuple[tuple[_Noted, ...], ...]


class RoundStore:
    """A folder with a model and masks for each finished round, and `rounds.json`.

    Args:
        folder: it need not exist.
        identity: what the rounds belong to, in any text; those of something else are not gone on with.

    Raises:
        DataError: the folder holds rounds of something else, or cannot be read.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        self._identity = identity
        self._contents = _Contents(identity=identity, dense=None, rounds=(), logs=())
        file = folder / "rounds.json"
        if file.exists():
            try:
                self._contents = msgspec.json.decode(file.read_bytes(), type=_Contents)
            except (OSError, msgspec.DecodeError) as error:
                raise DataError(f"{file} is not a record of rounds ({error}); remove it to begin anew") from error
            if self._contents.identity != identity:
                raise DataError(
                    f"{folder} holds rounds of another model or other options: give those, or --restart to begin anew"
                )

    @property
    def rounds(self) -> tuple[Round, ...]:
        """The finished rounds, in order."""
        return self._contents.rounds

    @property
    def dense(self) -> Measure | None:
        """The measure of the model as it came; None while no round is finished."""
        return self._contents.dense

    def checkpoint(self, number: int) -> Path:
        """Where the training of a round keeps its checkpoint."""
        return self.folder / f"{number:02}.checkpoint"

    def add(self, one: Round, state: State, dense: Measure | None) -> None:
        """Keep a finished round; its training's checkpoint goes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save(state.model, self._model(one.number))
        state.masks.save(self._masks(one.number))
        self._contents = _Contents(
            identity=self._identity,
            dense=dense,
            rounds=(*self.rounds, one),
            logs=(*self._contents.logs, tuple(map(_noted, state.log))),
        )
        write_json(self._contents, self.folder / "rounds.json")
        shutil.rmtree(self.checkpoint(one.number), ignore_errors=True)

    def state(self, number: int) -> State:
        """The state after a finished round. Raises DataError when its files are gone or damaged."""
        try:
            log = tuple(_entry(one) for one in self._contents.logs[number - 1])
            return State(load(self._model(number)), Masks.load(self._masks(number)), log)
        except OnnxPruneError as error:
            raise DataError(f"round {number} in {self.folder} cannot be read ({error}); begin anew") from error

    @staticmethod
    def forget(folder: Path) -> None:
        """Delete what a `RoundStore` wrote to a folder, and the folder when nothing else is in it."""
        if not folder.is_dir():
            return
        for path in folder.iterdir():
            if _OWN.fullmatch(path.name) and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif _OWN.fullmatch(path.name):
                path.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()

    def _model(self, number: int) -> Path:
        return self.folder / f"{number:02}.onnx"

    def _masks(self, number: int) -> Path:
        return self.folder / f"{number:02}.masks.npz"


def _noted(entry: Change | Skip) -> _Noted:
    if isinstance(entry, Skip):
        return _Noted(entry.by, entry.reason, entry.name)
    return _Noted(entry.by, entry.summary)


def _entry(noted: _Noted) -> Change | Skip:
    if noted.name is None:
        return Change(noted.by, noted.summary)
    return Skip(noted.by, noted.name, noted.summary)
