"""Stubs: what stands in the skeleton for a tensor whose bytes live outside it.

A stub is the TensorProto as it was (name, dims, data type, doc string, unknown fields) without its payload, marked
as external with two entries of ours: `location` = the tensor's key in `Model.initializers`, and `onnxprune.store` =
where the payload is written: `raw`, `float`, `double` (the TensorProto field it came in) or `external`, with
`+default` behind it when the tensor says `data_location: DEFAULT` in so many words. Shape inference reads a stub like
any external tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from ..errors import ModelError
from .wire import BYTES, VARINT, fields, header, read_varint, varint

STORE = "onnxprune.store"
EXTERNAL = "external"
_STORE_OF_FIELD = {9: "raw", 4: "float", 10: "double"}
_FIELD_OF_STORE = {store: number for number, store in _STORE_OF_FIELD.items()}
_SAYS_DEFAULT = "+default"
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14

_DTYPES: dict[int, Any] = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.DOUBLE: np.float64,
    onnx.TensorProto.FLOAT16: np.float16,
    onnx.TensorProto.BFLOAT16: ml_dtypes.bfloat16,
    onnx.TensorProto.INT8: np.int8,
    onnx.TensorProto.UINT8: np.uint8,
    onnx.TensorProto.INT16: np.int16,
    onnx.TensorProto.UINT16: np.uint16,
    onnx.TensorProto.INT32: np.int32,
    onnx.TensorProto.UINT32: np.uint32,
    onnx.TensorProto.INT64: np.int64,
    onnx.TensorProto.UINT64: np.uint64,
    onnx.TensorProto.BOOL: np.bool_,
}
_INFERENCE_READS = {onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.BOOL}
_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2, "FLOAT6E2M3": 6, "FLOAT6E3M2": 6}
SMALL = 64
EXTERNAL_FROM = 1024
"""Bytes from which a tensor is worth a place in a data file."""
_LARGE_INTEGER = 1 << 20


def dtype_from_onnx(data_type: int) -> np.dtype[Any] | None:
    """The numpy dtype of an ONNX element type; None for those without whole-byte elements (strings, 4 bits, 8-bit
    floats).
    """
    found = _DTYPES.get(data_type)
    return None if found is None else np.dtype(found)


def nbytes(data_type: int, size: int) -> int | None:
    """The bytes of `size` elements in raw storage; None for strings and types that this version does not know."""
    names: dict[int, str] = {number: name for name, number in onnx.TensorProto.DataType.items()}
    name = names.get(data_type, "UNDEFINED")
    if name in ("UNDEFINED", "STRING"):
        return None
    bits = _BITS.get(name) or 8 * int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize)
    return (size * bits + 7) // 8


def keeps_values(data_type: int, size: int) -> bool:
    """True when a tensor stays in the skeleton with its values: shape inference needs small ones and integers."""
    return size <= SMALL or (data_type in _INFERENCE_READS and size <= _LARGE_INTEGER)


@dataclass(frozen=True)
class Head:
    """What a serialized TensorProto says besides its payload.

    `payload`: (field number, memoryview) when the values are there as one run of little-endian bytes; `external`: the
    entries of `external_data` when the values are in another file; neither, when they are stored as varints or strings.
    `says_default`: `data_location` is there and says that the values are not in another file.
    """

    name: str
    dims: tuple[int, ...]
    data_type: int
    payload: tuple[int, memoryview] | None
    external: dict[str, str] | None
    rest: tuple[memoryview, ...]
    says_default: bool = False

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.dims)


def read_head(tensor: memoryview) -> Head:
    """Read one serialized TensorProto. Raises ModelError when the bytes are not one."""
    name, data_type = "", 0
    location: int | None = None
    dims: list[int] = []
    entries: dict[str, str] = {}
    payload: tuple[int, memoryview] | None = None
    payloads: set[int] = set()
    rest: list[memoryview] = []
    for number, kind, start, value, end in fields(tensor):
        body = tensor[value:end]
        if number == 1:
            dims.extend(_varints(body) if kind == BYTES else [read_varint(body, 0)[0]])
        elif number == 2 and kind == VARINT:
            data_type = read_varint(body, 0)[0]
        elif number == 8 and kind == BYTES:
            name = bytes(body).decode("utf-8", "replace")
        elif number in _STORE_OF_FIELD and kind == BYTES:
            payloads.add(number)
            if number != _RAW_DATA and payload is not None and payload[0] == number:  # a packed field may come in parts
                body = memoryview(bytes(payload[1]) + bytes(body))
            payload = (number, body)
            continue
        elif number == _EXTERNAL_DATA and kind == BYTES:
            key, text = _entry(body)
            entries[key] = text
            continue
        elif number == _DATA_LOCATION and kind == VARINT and bytes(body) in (b"\0", b"\1"):
            location = body[0]
            continue
        rest.append(tensor[start:end])
    if any(dim >= 1 << 63 for dim in dims):
        raise ModelError(f"tensor {name!r} has a negative dim")
    external = location == onnx.TensorProto.EXTERNAL
    if len(payloads) > 1 or (entries and not external):  # more than one can mean: such a tensor is left as it is
        payload = None
    says_default = location is not None and not external
    return Head(name, tuple(dims), data_type, payload, entries if external else None, tuple(rest), says_default)


def stub_bytes(head: Head, location: str, store: str) -> bytes:
    """The serialized stub of the tensor that `head` describes."""
    return b"".join(head.rest) + external_bytes({"location": location, STORE: store})


def inline_bytes(store: str, size: int) -> tuple[bytes, bytes]:
    """What stands before and after a payload of `size` bytes that is written into the TensorProto itself. A tensor that
    was external says `data_location: DEFAULT` from then on, as onnx.load makes it.
    """
    name, says_default, _ = store.partition(_SAYS_DEFAULT)
    after = varint(_DATA_LOCATION << 3) + varint(onnx.TensorProto.DEFAULT) if says_default or name == EXTERNAL else b""
    return header(_FIELD_OF_STORE.get(name, _RAW_DATA), size), after


def external_bytes(entries: dict[str, str]) -> bytes:
    """The fields `external_data` and `data_location` of a TensorProto whose values are in another file."""
    out = b""
    for key, value in entries.items():
        entry = onnx.StringStringEntryProto(key=key, value=value).SerializeToString()
        out += header(_EXTERNAL_DATA, len(entry)) + entry
    return out + varint(_DATA_LOCATION << 3) + varint(onnx.TensorProto.EXTERNAL)


def store_of(tensor: onnx.TensorProto) -> str | None:
    """Where a stub's payload is written (see the module's text); None when `tensor` is not a stub."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return None
    entries: dict[str, str] = {entry.key: entry.value for entry in tensor.external_data}
    return entries.get(STORE)


def stub_key(tensor: onnx.TensorProto) -> str:
    """The key a stub points to (its `location` entry)."""
    return str(next(entry.value for entry in tensor.external_data if entry.key == "location"))


def set_stub(tensor: onnx.TensorProto, key: str, store: str) -> None:
    """Turn `tensor` (of a skeleton under construction) into a stub, or point a stub elsewhere: name, dims and type
    stay.
    """
    for field in ("raw_data", "float_data", "double_data", "int32_data", "int64_data", "uint64_data", "external_data"):
        tensor.ClearField(field)
    for entry_key, value in (("location", key), (STORE, store)):
        tensor.external_data.add(key=entry_key, value=value)
    tensor.data_location = onnx.TensorProto.EXTERNAL


def store_from_head(head: Head) -> str:
    """Where the payload of `head`, which is in another file or in one run of bytes, came from."""
    if head.payload is None or head.external is not None:
        return EXTERNAL
    return _STORE_OF_FIELD[head.payload[0]] + (_SAYS_DEFAULT if head.says_default else "")


def _entry(buffer: memoryview) -> tuple[str, str]:
    """Key and value of a serialized StringStringEntryProto."""
    found = {number: str(buffer[value:end], "utf-8", "replace") for number, _, _, value, end in fields(buffer)}
    return found.get(1, ""), found.get(2, "")


def _varints(buffer: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(buffer):
        value, at = read_varint(buffer, at)
        values.append(value)
    return values
