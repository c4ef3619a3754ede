from __future__ import annotations

import onnx
import pytest
from builders import everything, proto, ramp, stored
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnxprune_passes.errors import ModelError
from onnxprune_passes.storage.wire import Payload, Piece, fields, header, read_varint, rewrite, size_of, varint
from strategies import models


def joined(pieces: list[Piece]) -> bytes:
    return b"".join(piece for piece in pieces if not isinstance(piece, Payload))


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
def test_a_varint_reads_back(number: int, behind: bytes) -> None:
    written = varint(number)
    assert read_varint(memoryview(b"?" + written + behind), 1) == (number, 1 + len(written))


def test_varints_have_the_documented_bytes() -> None:
    assert [varint(number) for number in (0, 1, 127, 128, 150)] == [b"\0", b"\1", b"\x7f", b"\x80\1", b"\x96\1"]


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 9, b"\xff" * 11])
def test_an_endless_varint_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match="inside a number"):
        read_varint(memoryview(data), 0)


@given(models())
def test_fields_cut_a_message_into_what_it_consists_of(model: onnx.ModelProto) -> None:
    data = model.SerializeToString()
    found = list(fields(memoryview(data)))
    assert b"".join(data[start:end] for _, _, start, _, end in found) == data
    assert {number for number, *_ in found} == {field.number for field, _ in model.ListFields()}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x0a\x05abc", "past the end"),
        (b"\x09abc", "past the end"),
        (b"\x0dabc", "past the end"),
        (b"\x00\x00", "past the end"),  # field 0 does not exist
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0f", "wire type 7"),
        (b"\x0a" + b"\xff" * 9 + b"\x01", "past the end"),  # a length of 2^64 - 1
    ],
)
def test_bytes_that_are_no_message_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        list(fields(memoryview(data)))


@given(models())
def test_nothing_exchanged_is_the_input_itself(model: onnx.ModelProto) -> None:
    data = model.SerializeToString()
    pieces = rewrite(memoryview(data), lambda _: None)
    assert joined(pieces) == data
    assert len(pieces) <= 1


@pytest.mark.parametrize("length", [0, 1, 127, 128, 20_000])
def test_exchanged_tensors_keep_every_length_around_them_right(length: int) -> None:
    model = everything()
    seen = []

    def renamed(tensor: memoryview) -> list[Piece]:
        one = onnx.TensorProto.FromString(bytes(tensor))
        seen.append(one.name)
        one.name = "n" * length
        return [one.SerializeToString()]

    after = onnx.ModelProto.FromString(joined(rewrite(memoryview(model.SerializeToString()), renamed)))
    names = {tensor.name for tensor in after.graph.initializer}
    assert names == {"n" * length}
    assert [node.op_type for node in after.graph.node] == [node.op_type for node in model.graph.node]
    assert after.graph.sparse_initializer == model.graph.sparse_initializer
    assert {"words", "sixty-four", "rate", "beta"} <= set(seen)
    assert "sparse" not in seen


def test_pieces_that_come_later_count_with_their_size() -> None:
    model = proto([helper.make_node("Relu", ["x"], ["y"])], [stored("w", ramp(3))])
    pieces = rewrite(memoryview(model.SerializeToString()), lambda _: [header(9, 300), Payload("w", 300)])
    whole = b"".join(bytes(300) if isinstance(piece, Payload) else bytes(piece) for piece in pieces)
    assert size_of(pieces) == len(whole)
    assert onnx.ModelProto.FromString(whole).graph.initializer[0].raw_data == bytes(300)


def test_a_message_that_is_emptied_leaves_an_empty_message() -> None:
    tensor = stored("w", ramp(3))
    model = proto([helper.make_node("Relu", ["x"], ["y"])], [tensor])
    after = onnx.ModelProto.FromString(joined(rewrite(memoryview(model.SerializeToString()), lambda _: [b""])))
    assert after.graph.initializer[0] == onnx.TensorProto()


def test_bottomless_nesting_is_refused_like_any_other_bad_file() -> None:
    data = b""
    for _ in range(2_000):  # graph -> node -> attribute -> graph …
        for number in (6, 5, 1):
            data = header(number, len(data)) + data
    with pytest.raises(ModelError, match="nested deeper"):
        rewrite(memoryview(header(7, len(data)) + data), lambda _: None)
