from __future__ import annotations

import numpy as np
import onnx
import pytest
from builders import ramp, stored
from hypothesis import given
from onnx import TensorProto, numpy_helper
from onnxprune_passes.errors import ModelError
from onnxprune_passes.storage import stubs
from onnxprune_passes.storage.wire import header
from strategies import tensors

WHOLE_BYTES = {
    *("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "BOOL"),
    *("INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64"),
}


def head_of(tensor: onnx.TensorProto) -> stubs.Head:
    return stubs.read_head(memoryview(tensor.SerializeToString()))


@given(tensors("t"))
def test_a_head_says_what_the_message_says(tensor: onnx.TensorProto) -> None:
    head = head_of(tensor)
    assert (head.name, head.dims, head.data_type) == (tensor.name, tuple(tensor.dims), tensor.data_type)
    assert head.size == int(np.prod(tensor.dims))
    assert head.external is None
    assert head.says_default == tensor.HasField("data_location")
    if head.payload is not None:
        number, body = head.payload
        field = tensor.DESCRIPTOR.fields_by_number[number].name
        assert field in ("raw_data", "float_data", "double_data")
        assert bytes(body) == numpy_helper.to_array(tensor).tobytes()


@given(tensors("t"))
def test_a_stub_is_the_tensor_without_its_values(tensor: onnx.TensorProto) -> None:
    head = head_of(tensor)
    stub = onnx.TensorProto.FromString(stubs.stub_bytes(head, "the key", "raw"))
    assert stubs.store_of(stub) == "raw"
    assert stubs.stub_key(stub) == "the key"
    assert (stub.name, stub.dims, stub.data_type, stub.doc_string) == (
        tensor.name,
        tensor.dims,
        tensor.data_type,
        tensor.doc_string,
    )
    assert not stub.raw_data
    assert not stub.float_data


def test_a_stub_can_be_pointed_elsewhere() -> None:
    stub = stored("w", ramp(3))
    stubs.set_stub(stub, "a", "float")
    stubs.set_stub(stub, "b", "raw")
    assert (stubs.stub_key(stub), stubs.store_of(stub), stub.name, list(stub.dims)) == ("b", "raw", "w", [3])
    assert len(stub.external_data) == 2


def test_a_packed_field_in_parts_is_read_whole() -> None:
    values = ramp(66).tobytes()
    rest = TensorProto(name="w", dims=[66], data_type=TensorProto.FLOAT).SerializeToString()
    parts = b"".join(header(4, len(part)) + part for part in (values[:100], values[100:]))
    head = stubs.read_head(memoryview(rest + parts))
    assert head.payload is not None
    assert bytes(head.payload[1]) == values
    assert TensorProto.FromString(rest + parts).float_data == ramp(66).tolist()  # what protobuf itself makes of it


def test_dims_may_be_packed() -> None:
    head = stubs.read_head(memoryview(b"\x0a\x03\x02\x80\x01"))
    assert head.dims == (2, 128)


def test_a_negative_dim_is_refused() -> None:
    with pytest.raises(ModelError, match="negative dim"):
        head_of(TensorProto(name="w", dims=[-1]))


def test_entries_of_external_data_are_read_only_where_the_tensor_is_external() -> None:
    tensor = stored("w", ramp(80))
    tensor.external_data.add(key="location", value="elsewhere")
    head = head_of(tensor)
    assert (head.external, head.payload) == (None, None)  # odd, so it stays as it is
    tensor.data_location = TensorProto.EXTERNAL
    assert head_of(tensor).external == {"location": "elsewhere"}


@pytest.mark.parametrize("name", [name for name in TensorProto.DataType.keys() if name != "UNDEFINED"])  # noqa: SIM118
def test_sizes_of_raw_storage_are_those_of_onnx(name: str) -> None:
    data_type = TensorProto.DataType.Value(name)
    assert (stubs.dtype_from_onnx(data_type) is not None) == (name in WHOLE_BYTES)
    for size in (0, 1, 7, 64):
        if name == "STRING":
            assert stubs.nbytes(data_type, size) is None
            continue
        array = np.zeros(size, onnx.helper.tensor_dtype_to_np_dtype(data_type))
        assert stubs.nbytes(data_type, size) == len(numpy_helper.from_array(array).raw_data)


def test_an_unknown_type_has_no_size() -> None:
    assert stubs.nbytes(0, 5) is None
    assert stubs.nbytes(9999, 5) is None
    assert stubs.dtype_from_onnx(9999) is None


@pytest.mark.parametrize(
    ("data_type", "size", "stays"),
    [
        (TensorProto.FLOAT, 64, True),
        (TensorProto.FLOAT, 65, False),
        (TensorProto.INT64, 65, True),
        (TensorProto.INT64, 1 << 20, True),
        (TensorProto.INT64, (1 << 20) + 1, False),
        (TensorProto.BOOL, 65, True),
        (TensorProto.INT32, 65, True),
        (TensorProto.INT8, 65, False),  # a quantised weight
    ],
)
def test_shape_inference_finds_the_values_that_it_reads(data_type: int, size: int, stays: bool) -> None:
    assert stubs.keeps_values(data_type, size) is stays


def test_external_entries_read_back() -> None:
    entries = {"location": "ü/d", "offset": "12", "length": ""}
    tensor = TensorProto.FromString(stubs.external_bytes(entries))
    assert tensor.data_location == TensorProto.EXTERNAL
    assert head_of(tensor).external == entries
