from __future__ import annotations

import random
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import body, constant, everything, proto, ramp, relu, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnxprune_passes.errors import ModelError
from onnxprune_passes.model import Model
from onnxprune_passes.storage import from_proto, load, to_proto


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no graph"),
        (b"this is not a model\n" * 50, "not an ONNX model, or is cut short"),
        (b"\x00", "not an ONNX model, or is cut short"),
        (b"PK\x03\x04" + bytes(60), "not an ONNX model, or is cut short"),
        (b"\x08\x08", "no graph"),
        (onnx.ModelProto(graph=onnx.GraphProto(name="g")).SerializeToString(), "no graph with outputs"),
    ],
)
def test_files_that_are_no_model_are_refused_in_one_line(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=says) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "export" in str(caught.value)  # how to fix it
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there_are_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        load(tmp_path / "gone.onnx")
    with pytest.raises(ModelError, match="is a folder"):
        load(tmp_path)
    with pytest.raises(ModelError, match="cannot be read"):
        load(tmp_path / ("n" * 5000))


def test_a_file_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(relu(stored("w", ramp(100))), tmp_path / "m.onnx")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "memmap", refuse)
    with pytest.raises(ModelError, match=r"m.onnx cannot be read: Permission denied"):
        load(tmp_path / "m.onnx")


def loaded_or_refused(path: Path, data: bytes) -> Model | None:
    """The model in `data`, None where it is refused as it should be, in one line."""
    path.write_bytes(data)
    try:
        return load(path)
    except ModelError as error:
        if "\n" in str(error):
            raise
        return None


def test_a_model_cut_short_anywhere_is_refused_or_what_is_left_of_it(tmp_path: Path) -> None:
    data = everything().SerializeToString()
    taken = 0
    for end in range(0, len(data), 7):
        found = loaded_or_refused(tmp_path / "cut.onnx", data[:end])
        if found is not None:  # cut between two fields behind the graph: a shorter message, and nothing tells
            assert to_proto(found) == onnx.load_model_from_string(data[:end])
            taken += 1
    assert taken < 5


def test_a_model_cut_short_before_its_operator_sets_is_refused() -> None:
    model = everything()
    del model.opset_import[:]
    with pytest.raises(ModelError, match="names no operator set, so it is cut short"):
        from_proto(model)


def test_the_oldest_files_need_no_operator_set() -> None:
    model = relu(stored("w", ramp(80)))
    del model.opset_import[:]
    model.ir_version = 2
    assert from_proto(model).opset == 1


@settings(deadline=None)
@given(data=st.binary(max_size=60))
def test_random_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    assert loaded_or_refused(tmp_path_factory.getbasetemp() / "random.onnx", data) is None


def test_damaged_files_are_refused_or_read_as_onnx_reads_them(tmp_path: Path) -> None:
    intact = everything().SerializeToString()
    chance = random.Random(5)
    for _ in range(1000):
        damaged = bytearray(intact)
        at = chance.randrange(len(intact))
        kind = chance.randrange(3)
        if kind == 0:
            damaged[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del damaged[at : at + chance.randrange(1, 40)]
        else:
            damaged[at:at] = chance.randbytes(chance.randrange(1, 40))
        found = loaded_or_refused(tmp_path / "damaged.onnx", bytes(damaged))
        if found is not None:
            assert to_proto(found) == onnx.load_model_from_string(bytes(damaged))


@pytest.mark.parametrize("size", [3, 100])
def test_names_that_are_no_text_are_refused(tmp_path: Path, size: int) -> None:
    data = relu(stored("name", ramp(size))).SerializeToString()
    assert loaded_or_refused(tmp_path / "m.onnx", data) is not None
    assert loaded_or_refused(tmp_path / "m.onnx", data.replace(b"name", b"n\xff\xfee")) is None
    body_data = proto([helper.make_node("If", ["p"], ["name"], then_branch=body("b", [constant("c", ramp(size))]))])
    assert loaded_or_refused(tmp_path / "m.onnx", body_data.SerializeToString().replace(b"name", b"n\xff\xfee")) is None


@pytest.mark.parametrize("size", [3, 100])
@pytest.mark.parametrize("field", ["raw_data", "float_data", "nothing"])
def test_values_that_do_not_fit_the_dims_are_refused(size: int, field: str) -> None:
    tensor = stored("w", ramp(size), "float_data" if field == "float_data" else "raw")
    if field == "raw_data":
        tensor.raw_data = tensor.raw_data[:-4]
    elif field == "float_data":
        tensor.float_data.pop()
    else:
        tensor.ClearField("raw_data")
    with pytest.raises(ModelError, match=r"tensor 'w'.*the file is damaged, export it again") as caught:
        from_proto(relu(tensor))
    assert "\n" not in str(caught.value)


def test_enormous_dims_are_refused_at_once() -> None:
    for dims in ([1 << 62, 1 << 62], [1 << 40]):
        tensor = TensorProto(name="w", dims=dims, data_type=TensorProto.FLOAT, raw_data=bytes(400))
        with pytest.raises(ModelError, match="the file is damaged"):
            from_proto(relu(tensor))


def test_types_that_nobody_knows_yet_go_through() -> None:
    tensor = TensorProto(name="w", dims=[70], data_type=99, raw_data=bytes(17))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = from_proto(relu(tensor))
    assert "w" not in model.initializers
    assert to_proto(model) == relu(tensor)
