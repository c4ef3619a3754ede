"""Read a model: the skeleton is parsed, the weights stay in the file as memory maps."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.parser

from ..arrays import Array, NDArray, map_file
from ..errors import ModelError
from . import stubs
from .wire import Payload, Piece, rewrite

if TYPE_CHECKING:
    from ..model import Model


def load(path: str | Path) -> Model:
    """The model in the file `path`. Its weights are memory-mapped: nothing big is read until it is used.

    Raises:
        ModelError: the file is missing, not an ONNX model, cut short, or its external data is missing, too short, or
            lies outside the model's folder.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ModelError(f"{path} is a folder, not an ONNX file: name the .onnx file in it")
        if not path.exists():
            raise ModelError(f"{path}: no such file; check the spelling")
        data = map_file(path)
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
    except _TensorError as error:
        raise ModelError(f"{what}: {error}") from error
    except (ModelError, _decode_error()) as error:
        raise ModelError(
            f"{what} is not an ONNX model, or is cut short ({error}); export or download it again"
        ) from error
    if not skeleton.HasField("graph") or not skeleton.graph.output:
        raise ModelError(f"{what} is not an ONNX model: it holds no graph with outputs; export it again")
    if skeleton.ir_version >= 3 and not skeleton.opset_import:
        raise ModelError(f"{what} names no operator set, so it is cut short; export or download it again")
    try:
        return Model(skeleton, absorb(skeleton, Initializers(reader.sources)), path)
    except ModelError as error:
        raise ModelError(f"{what}: {error}") from error
    except (TypeError, UnicodeDecodeError) as error:  # protobuf gives such names as bytes, or refuses to give them
        raise ModelError(f"{what} holds a name that is not UTF-8 text: the file is damaged, export it again") from error


def _joined(pieces: list[Piece]) -> bytes:
    return b"".join(piece for piece in pieces if not isinstance(piece, Payload))


class _TensorError(ModelError):
    """The file is readable, but not the values of one tensor."""


class _Reader:
    """Takes payloads out of the tensors that `rewrite` passes; `sources` holds them, under numbers, as views of the
    file.
    """

    def __init__(self, base_dir: Path) -> None:
        self.sources: dict[str, Array] = {}
        self._base_dir = base_dir
        self._maps: dict[Path, NDArray] = {}

    def exchange(self, tensor: memoryview) -> list[Piece] | None:
        head = stubs.read_head(tensor)
        dtype = stubs.dtype_from_onnx(head.data_type)
        stays = dtype is None or stubs.keeps_values(head.data_type, head.size)
        if head.external is not None:
            values = self._external(head, head.external)
        elif stays or head.payload is None:
            return None
        else:
            values = np.frombuffer(head.payload[1], np.uint8)
        expected = stubs.nbytes(head.data_type, head.size)
        if expected is not None and len(values) != expected:
            raise _TensorError(
                f"tensor {head.name!r} has dims {list(head.dims)} of type {head.data_type}, {expected} bytes, but "
                f"{len(values)} bytes are stored: the file is damaged, export it again"
            )
        store = stubs.store_from_head(head)
        if stays or dtype is None:
            before, after = stubs.inline_bytes(store, len(values))
            return [*head.rest, before, values.data, after]
        number = f"#{len(self.sources)}"
        self.sources[number] = Array(values.view(dtype).reshape(head.dims))
        return [stubs.stub_bytes(head, number, store)]

    def _external(self, head: stubs.Head, entries: dict[str, str]) -> NDArray:
        location = entries.get("location", "")
        where = PurePosixPath(location.replace("\\", "/"))
        if not location or where.is_absolute() or ".." in where.parts:
            raise _TensorError(
                f"tensor {head.name!r} has its external data at {location!r}: only files inside the model's own folder "
                "are read; move the data there and save the model again"
            )
        try:
            whole = self._mapped(self._base_dir / where, location, head.name)
        except OSError as error:
            raise _TensorError(
                f"the external data file {location!r} of tensor {head.name!r} cannot be read: {error.strerror}"
            ) from error
        expected = stubs.nbytes(head.data_type, head.size)
        try:
            offset = int(entries.get("offset", "0"))
            length = int(entries.get("length", len(whole) - offset if expected is None else expected))
        except ValueError as error:
            raise _TensorError(f"tensor {head.name!r} has an external offset or length that is not a number") from error
        if offset < 0 or length < 0 or offset + length > len(whole):
            raise _TensorError(
                f"tensor {head.name!r} should be bytes {offset} to {offset + length} of {location!r}, which has only "
                f"{len(whole)}: the data file is cut short or belongs to another model"
            )
        return whole[offset : offset + length]

    def _mapped(self, file: Path, location: str, name: str) -> NDArray:
        if file not in self._maps:
            if not file.is_file():
                raise _TensorError(
                    f"the external data file {location!r} of tensor {name!r} is missing: put it beside the model"
                )
            if not file.resolve().is_relative_to(self._base_dir.resolve()):
                raise _TensorError(
                    f"the external data file {location!r} is a link that leaves the model's folder: copy the data there"
                )
            self._maps[file] = map_file(file)
        return self._maps[file]
