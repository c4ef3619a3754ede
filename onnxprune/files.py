"""Files of a run: what they weigh, where intermediate models go, and what may be written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from onnxprune_passes.arrays import map_file
from onnxprune_passes.errors import ModelError, SelectionError
from onnxprune_passes.model import Model
from onnxprune_passes.storage import keys, stubs
from onnxprune_passes.storage.wire import Piece, rewrite

from .recipe import PruneOptions
from .records import File


def file_of(model: Model, path: str | Path, nbytes: int | None = None) -> File:
    """The report's entry for `model`, stored as `path`; `nbytes` when they are known already."""
    nbytes = nbytes_on_disk(path) if nbytes is None else nbytes
    return File(str(path), nbytes, model.opset, model.skeleton.ir_version)


def nbytes_on_disk(path: str | Path) -> int:
    """Bytes of a model file and of the data files it refers to."""
    path = Path(path)
    content = map_file(path).data
    names: set[str] = set()

    def note(tensor: memoryview) -> list[Piece] | None:
        external = stubs.read_head(tensor).external
        if external is not None:
            names.add(external.get("location", ""))
        return None

    rewrite(content, note)
    return path.stat().st_size + sum((path.parent / name).stat().st_size for name in names if name)


def nbytes_dense(model: Model) -> int:
    """About the bytes of `model` as a file, every tensor dense: its skeleton and the tensors that are not in it."""
    outside = (key for key, tensor in keys.tensors(model.skeleton) if stubs.store_of(tensor) is not None)
    sources = (model.initializers.source(key) for key in outside)
    return int(model.skeleton.ByteSize()) + sum(source.size * source.dtype.itemsize for source in sources)


def check_paths(options: PruneOptions) -> None:
    """Find out before the work begins whether its results can be written.

    Raises:
        SelectionError: two options name the same file, or the output is the input without `overwrite`.
        ModelError: a folder is missing or not writable, or a name belongs to something that is no file.
    """
    written = {"--output": options.output, "--json": options.json, "--save-masks": options.save_masks}
    read = {"MODEL": options.model, "--data": options.data, "--masks": options.masks}
    check_names(written, read, overwrite=options.overwrite)


def check_names(written: Mapping[str, str | None], read: Mapping[str, str | None], *, overwrite: bool) -> None:
    """Find out whether files can be written, and whether one of them is read too: option → name; raises likewise.

    `overwrite` lets `--output` be `MODEL`; `--save-masks` may always be `--masks`.
    """
    seen: dict[Path, str] = {}
    for option, name in written.items():
        if name is None:
            continue
        path = Path(name)
        _check_writable(path)
        for other, its_name in read.items():
            may = option == "--output" and other == "MODEL" and overwrite
            may = may or (option == "--save-masks" and other == "--masks")
            if its_name is not None and path.resolve() == Path(its_name).resolve() and not may:
                hint = ", or allow it with --overwrite" if (option, other) == ("--output", "MODEL") else ""
                raise SelectionError(f"{option} {name} is {other} itself: choose another name{hint}")
        if path.resolve() in seen:
            raise SelectionError(f"{seen[path.resolve()]} and {option} both name {name}: choose two names")
        seen[path.resolve()] = option


def _check_writable(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise ModelError(f"the folder {folder} does not exist: create it, or choose another output")
    if path.exists() and not path.is_file():
        raise ModelError(f"{path} is not a file: choose another output")
    if not os.access(folder, os.W_OK):
        raise ModelError(f"the folder {folder} is not writable: choose another output")


@contextmanager
def temporary_folder(output: Path) -> Iterator[Path]:
    """A folder beside `output` for intermediate models; it goes with its content, whatever happens."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent)
    except OSError as error:
        raise ModelError(f"{output.parent} cannot be written to: {error.strerror}; choose another output") from error
    with folder as name:
        yield Path(name)


@contextmanager
def pending_file(path: str | None) -> Iterator[Path | None]:
    """A temporary name beside `path`, renamed to it when all goes well, else removed; None for None."""
    if path is None:
        yield None
        return
    temporary = Path(path).with_name(f".{Path(path).name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if temporary.exists():
            temporary.replace(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {error.strerror}; choose another file") from error
    finally:
        temporary.unlink(missing_ok=True)
