"""Read a model: the skeleton is parsed, the weights stay in the file as memory maps."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.parser

from ..arrays import Array, NDArray
from ..errors import ModelError
from . import keys, stubs
from .wire import Payload, Piece, header, rewrite

if TYPE_CHECKING:
    from ..model import Model


def load(path: str | Path) -> Model:
    """The model in the file `path`. Its weights are memory-mapped: nothing big is read until it is used.

    Raises:
        ModelError: the file is missing, not an ONNX model, cut short, or its external data is missing, too short, or
            lies outside the model's folder.
    """
    path = Path(path)
    if path.is_dir():
        raise ModelError(f"{path} is a folder, not an ONNX file: name the .onnx file in it")
    if not path.exists():
        raise ModelError(f"{path}: no such file; check the spelling")
    try:
        data = _map(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    return _model_from_bytes(data, path.parent, path)


def from_proto(proto: onnx.ModelProto, base_dir: str | Path = ".") -> Model:
    """The model of a ModelProto, which is not changed; external data is looked up in `base_dir`.

    Raises:
        ModelError: as `load`.
    """
    return _model_from_bytes(np.frombuffer(proto.SerializeToString(), np.uint8), Path(base_dir), None)


def from_text(text: str) -> Model:
    """The model written in ONNX's textual syntax (onnx.parser). Raises ModelError with the parser's line on a
    mistake.
    """
    try:
        return from_proto(onnx.parser.parse_model(text))
    except onnx.parser.ParseError as error:
        raise ModelError(f"the ONNX text cannot be parsed: {error}") from error


def _map(path: Path) -> NDArray:
    return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)


def _decode_error() -> type[Exception]:
    try:
        onnx.ModelProto.FromString(b"\x00")
    except Exception as error:  # noqa: BLE001 - the class lives in protobuf, which this package does not import
        return type(error)
    return ValueError


def _model_from_bytes(data: NDArray, base_dir: Path, path: Path | None) -> Model:
    from ..model import Initializers, Model, absorb

    reader = _Reader(base_dir)
    what = str(path or "the model")
    try:
        skeleton = onnx.ModelProto.FromString(_joined(rewrite(memoryview(data.data), reader.exchange)))
    except (ModelError, _decode_error()) as error:
        if isinstance(error, ModelError) and reader.complains:
            raise ModelError(f"{what}: {error}") from error
        raise ModelError(
            f"{what} is not an ONNX model, or is cut short ({error}); export or download it again"
        ) from error
    if not skeleton.HasField("graph") or not skeleton.graph.output:
        raise ModelError(f"{what} is not an ONNX model: it holds no graph with outputs; export it again")
    for key, tensor in keys.tensors(skeleton):
        store = stubs.store_of(tensor)
        if store is not None:
            number = stubs.stub_key(tensor)
            reader.sources[key] = reader.sources.pop(number)
            stubs.set_stub(tensor, key, store)
    return Model(skeleton, absorb(skeleton, Initializers(reader.sources)), path)


def _joined(pieces: list[Piece]) -> bytes:
    return b"".join(piece for piece in pieces if not isinstance(piece, Payload))


class _Reader:
    """Takes payloads out of the tensors that `rewrite` passes; `sources` holds them, under numbers, as views of the
    file.
    """

    def __init__(self, base_dir: Path) -> None:
        self.sources: dict[str, Array] = {}
        self.complains = False
        self._base_dir = base_dir
        self._maps: dict[Path, NDArray] = {}

    def exchange(self, tensor: memoryview) -> list[Piece] | None:
        head = stubs.read_head(tensor)
        dtype = stubs.dtype_from_onnx(head.data_type)
        if head.external is not None:
            self.complains = True
            values = self._external(head, head.external)
            self.complains = False
            if dtype is None or stubs.keeps_values(head.data_type, head.size):
                return [*head.rest, header(stubs.FIELD_OF_STORE["raw"], len(values)), values.data]
            store = "external"
        elif dtype is None or head.payload is None or stubs.keeps_values(head.data_type, head.size):
            return None
        else:
            values = np.frombuffer(head.payload[1], np.uint8)
            store = stubs.store_from_field(head.payload[0])
        if len(values) != head.size * dtype.itemsize:
            self.complains = True
            raise ModelError(
                f"tensor {head.name!r} has dims {list(head.dims)} of {dtype}, {head.size * dtype.itemsize} bytes, "
                f"but {len(values)} bytes are stored: the file is damaged, export it again"
            )
        number = f"#{len(self.sources)}"
        self.sources[number] = Array(values.view(dtype).reshape(head.dims))
        return [stubs.stub_bytes(head, number, store)]

    def _external(self, head: stubs.Head, entries: dict[str, str]) -> NDArray:
        location = entries.get("location", "")
        where = PurePosixPath(location.replace("\\", "/"))
        if not location or where.is_absolute() or ".." in where.parts:
            raise ModelError(
                f"tensor {head.name!r} has its external data at {location!r}: only files inside the model's own folder "
                "are read; move the data there and save the model again"
            )
        file = self._base_dir / where
        if file not in self._maps:
            if not file.is_file():
                raise ModelError(
                    f"the external data file {location!r} of tensor {head.name!r} is missing: put it beside the model"
                )
            if not file.resolve().is_relative_to(self._base_dir.resolve()):
                raise ModelError(
                    f"the external data file {location!r} is a link that leaves the model's folder: copy the data there"
                )
            self._maps[file] = _map(file)
        whole = self._maps[file]
        dtype = stubs.dtype_from_onnx(head.data_type)
        try:
            offset = int(entries.get("offset", "0"))
            length = int(entries.get("length", head.size * dtype.itemsize if dtype else len(whole) - offset))
        except ValueError as error:
            raise ModelError(f"tensor {head.name!r} has an external offset or length that is not a number") from error
        if offset < 0 or length < 0 or offset + length > len(whole):
            raise ModelError(
                f"tensor {head.name!r} should be bytes {offset} to {offset + length} of {location!r}, which has only "
                f"{len(whole)}: the data file is cut short or belongs to another model"
            )
        return whole[offset : offset + length]
