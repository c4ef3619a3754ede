"""Walk serialized ONNX protobuf and exchange tensors in it, without parsing or copying their payloads.

A model is nested messages, each with its length before it, so a tensor cannot be swapped in place: every message around
it changes its length. `rewrite` walks only the fields that lead to tensors and gives back a list of pieces (byte
strings, views of the input, or payloads to be produced later) with all lengths made right. Reading a model (payloads
out, stubs in) and writing one (stubs out, payloads in) are the same walk with another function on the tensors.

Field numbers are those of onnx.proto3; the encoding is https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..errors import ModelError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_DEEPEST = 100
"""Messages nested deeper than this are refused by protobuf itself."""

# message -> field number -> message found there; only those that lead to a TensorProto
_TREE: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph"},
}


@dataclass(frozen=True)
class Payload:
    """Bytes that are produced only while the file is written: `key` names them, `size` is their length."""

    key: str
    size: int


Piece = bytes | memoryview | Payload
Exchange = Callable[[memoryview], "list[Piece] | None"]


def size_of(pieces: list[Piece]) -> int:
    """The serialized length of `pieces`, in bytes."""
    return sum(piece.size if isinstance(piece, Payload) else len(piece) for piece in pieces)


def varint(value: int) -> bytes:
    """`value` (≥ 0) as a base-128 varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def header(field: int, length: int) -> bytes:
    """Tag and length that stand before a length-delimited field."""
    return varint(field << 3 | BYTES) + varint(length)


def read_varint(buffer: memoryview, at: int) -> tuple[int, int]:
    """The varint at `at` and the position after it.

    Raises:
        ModelError: the buffer ends inside it, or it is longer than 10 bytes.
    """
    value = shift = 0
    while True:
        if at >= len(buffer) or shift > 63:
            raise ModelError("the protobuf ends inside a number")
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(buffer: memoryview) -> Iterator[tuple[int, int, int, int, int]]:
    """Each field of a message as (number, wire type, start of its tag, start of its value, end).

    Raises:
        ModelError: a field runs past the end, or has a wire type that protobuf does not know.
    """
    at, end = 0, len(buffer)
    while at < end:
        start = at
        tag, at = read_varint(buffer, at)
        kind = tag & 7
        value = at
        if kind == VARINT:
            _, at = read_varint(buffer, at)
        elif kind == BYTES:
            length, at = read_varint(buffer, at)
            value = at
            at += length
        elif kind == FIXED64:
            at += 8
        elif kind == FIXED32:
            at += 4
        else:
            raise ModelError(f"the protobuf has a field of unknown wire type {kind}")
        if at > end or tag >> 3 == 0:
            raise ModelError("the protobuf is cut short or is not one: a field runs past the end")
        yield tag >> 3, kind, start, value, at


def rewrite(buffer: memoryview, exchange: Exchange, message: str = "Model", depth: int = 0) -> list[Piece]:
    """The pieces of `buffer` with every TensorProto passed through `exchange`.

    `exchange` gets the bytes of one TensorProto and returns its new pieces, or None to leave it as it is. Sparse
    tensors are left alone. Raises ModelError when the bytes are not a protobuf message.
    """
    if depth > _DEEPEST:
        raise ModelError(f"the protobuf is nested deeper than {_DEEPEST} messages")
    leads_to = _TREE[message]
    pieces: list[Piece] = []
    copied = 0
    for number, kind, start, value, end in fields(buffer):
        below = leads_to.get(number)
        if below is None or kind != BYTES:
            continue
        part = buffer[value:end]
        inner = exchange(part) if below == "Tensor" else rewrite(part, exchange, below, depth + 1)
        if inner is None or _unchanged(inner, end - value):
            continue
        if start > copied:
            pieces.append(buffer[copied:start])
        pieces.append(header(number, size_of(inner)))
        pieces.extend(inner)
        copied = end
    if copied < len(buffer):
        pieces.append(buffer[copied:])
    return pieces


def _unchanged(pieces: list[Piece], length: int) -> bool:
    """True when `rewrite` gave back one view of the whole message: nothing below it was exchanged."""
    return not pieces or (len(pieces) == 1 and isinstance(pieces[0], memoryview) and len(pieces[0]) == length)
