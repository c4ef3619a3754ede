"""Checkpoints: everything that the next step depends on, in one file that is whole or absent."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import shutil
import struct
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnxprune_passes.errors import DataError, SelectionError
from torch import Tensor

from onnxprune.torch.assign import STATISTIC
from onnxprune.torch.escape import name_from_key
from onnxprune.torch.module import OnnxModule

FILE = "checkpoint.pt"
_FORMAT = 1
_DAMAGED = (
    *(OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError),
    *(pickle.UnpicklingError, struct.error),
)
"""What reading a file that was cut short, or is none, may raise."""


@dataclass(frozen=True)
class Store:
    """The checkpoints of one training.

    Attributes:
        folder: where they are; it is made when the first is written.
        identity: what a checkpoint must agree with to be taken up: group → name → value.
    """

    folder: Path
    identity: Mapping[str, Mapping[str, Any]]

    @property
    def path(self) -> Path:
        """The checkpoint's file."""
        return self.folder / FILE

    def write(self, content: Mapping[str, Any]) -> None:
        """Write a checkpoint in place of the one before it: temporary file, fsync, rename.

        Args:
            content: tensors, numbers, text, and lists, tuples and dicts of them.

        Raises:
            DataError: it cannot be written; the one before it stays.
        """
        temporary = self.folder / f".{FILE}.{os.getpid()}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save({"format": _FORMAT, "identity": self.identity, **content}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            with suppress(OSError):
                temporary.unlink()
            reason = getattr(error, "strerror", None) or _first_line(error)
            raise DataError(
                f"the checkpoint {self.path} cannot be written: {reason}; free some space, or choose another folder "
                "with --checkpoint"
            ) from error

    def read(self) -> dict[str, Any] | None:
        """The checkpoint; None when there is none.

        Raises:
            DataError: the file is damaged.
            SelectionError: it is of another model, other data or other options; says which.
        """
        if not self.path.exists():
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of what is no checkpoint before it fails
                content: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except _DAMAGED as error:
            raise DataError(
                f"the checkpoint {self.path} cannot be read ({_first_line(error)}): begin anew with --restart"
            ) from error
        if content.get("format") != _FORMAT:
            raise DataError(f"the checkpoint {self.path} is of another version of onnxprune: begin anew with --restart")
        self._require_same(content["identity"])
        return content

    def remove(self) -> None:
        """Take the checkpoint away, what killed runs left of one, and the folder when nothing else is in it."""
        self.path.unlink(missing_ok=True)
        for left in self.folder.glob(f".{FILE}.*.tmp"):
            left.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            shutil.rmtree(self.folder, ignore_errors=True)

    def _require_same(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        for group, wanted in self.identity.items():
            there = found.get(group, {})
            for name in dict.fromkeys((*wanted, *there)):
                if there.get(name) != wanted.get(name):
                    values = f" ({there.get(name)!r} there, {wanted.get(name)!r} now)" if group != "content" else ""
                    raise SelectionError(
                        f"the checkpoint in {self.folder} is of another run: {name} differs{values}; give the options "
                        "of that run, another --checkpoint, or --restart to begin anew"
                    )


def _first_line(error: Exception) -> str:
    return f"{error}".partition("\n")[0] or type(error).__name__


def moving(module: OnnxModule) -> dict[str, Tensor]:
    """Registered name → what a training may change: trained tensors and statistics, not what is frozen."""
    names = {name_from_key(row.key) for row in module.rows if row.trained or row.kind == STATISTIC}
    return {name: one for name, one in module.state_dict().items() if name in names}


def rng_states() -> dict[str, Any]:
    """The states of all random number generators that a training may draw from."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(np.array(keys, np.int64)), *rest],
        "python": random.getstate(),
    }


def set_rng_states(states: Mapping[str, Any]) -> None:
    """Put back what `rng_states` gave."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))


def digest(parts: Iterable[bytes | memoryview]) -> str:
    """Sixteen hex digits that tell some bytes from others."""
    found = hashlib.blake2b(digest_size=8)
    for part in parts:
        found.update(part)
    return found.hexdigest()
