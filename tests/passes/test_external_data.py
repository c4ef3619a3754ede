from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import body, constant, made_external, proto, ramp, relu, stored, tensors_in
from onnx import TensorProto, helper
from onnxprune_passes.errors import ModelError
from onnxprune_passes.storage import from_proto, load, save, to_proto


def externals(folder: Path, keys: tuple[str, ...] = ("offset", "length")) -> onnx.ModelProto:
    """A model with tensors in two files, one of them in a folder below; what onnx makes of it is the return value."""
    arrays = {
        "big": ramp(300),
        "small": ramp(3, start=7),
        "long": ramp(70, dtype=np.int64),
        "half": ramp(90, dtype=np.float16),
        "odd": ramp(33, dtype=np.int8),
        "behind odd": ramp(100, dtype=np.float64),
    }
    tensors = [stored(name, array) for name, array in arrays.items()]
    tensors.append(helper.make_tensor("nibbles", TensorProto.INT4, [71], bytes(range(36)), raw=True))
    tensors.append(stored("alone", ramp(65)))
    node = constant("c", ramp(80))
    model = proto(
        [
            helper.make_node("Relu", ["big"], ["r"]),
            node,
            helper.make_node("If", ["p"], ["y"], then_branch=body("b", [node])),
        ],
        tensors,
    )
    model.graph.doc_string = "kept"
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    for index, tensor in enumerate(tensors_in(model)):
        file = "below/second.bin" if tensor.name == "alone" else "first.bin"
        made_external(tensor, folder, file, keys if tensor.name != "alone" else ())
        if not index:
            with (folder / "first.bin").open("ab") as data:
                data.write(b"gap")  # nobody's bytes, so that what follows lies at odd addresses
    onnx.save(model, folder / "m.onnx")
    for tensor in tensors_in(whole):
        tensor.data_location = TensorProto.DEFAULT  # what onnx.load leaves behind
    return whole


@pytest.mark.parametrize("keys", [("offset", "length"), ("offset",)])
@pytest.mark.parametrize("external", [None, True, False])
def test_external_data_in_several_files_is_read(tmp_path: Path, keys: tuple[str, ...], external: bool | None) -> None:
    source = tmp_path / "in"
    source.mkdir()
    expected = externals(source, keys)
    if keys == ("offset", "length"):
        assert onnx.load(source / "m.onnx") == expected
    model = load(source / "m.onnx")
    assert to_proto(model) == expected
    out = save(model, tmp_path / "out.onnx", external=external)
    after = onnx.load(out)
    assert after == expected
    data = list(tmp_path.glob("out.*.data"))
    assert len(data) == (external is not False)
    assert load(out).initializers["behind odd"].tolist() == list(range(1, 101))


def test_a_proto_with_external_data_needs_its_folder(tmp_path: Path) -> None:
    expected = externals(tmp_path)
    pointing = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    assert to_proto(from_proto(pointing, tmp_path)) == expected
    with pytest.raises(ModelError, match="missing"):
        from_proto(pointing, tmp_path / "below")


def external_model(folder: Path, size: int = 100, **entries: str) -> Path:
    """One tensor of `size` float32 in `w.bin`; `entries` replace those that say where."""
    model = relu(stored("w", ramp(size)))
    tensor = model.graph.initializer[0]
    made_external(tensor, folder, "w.bin")
    found = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, text in found.items():
        tensor.external_data.add(key=key, value=text)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


@pytest.mark.parametrize("size", [3, 100])
@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"location": "gone.bin"}, r"'gone.bin' of tensor 'w' is missing: put it beside the model"),
        ({"location": "."}, "is missing"),
        ({"location": ""}, "only files inside the model's own folder"),
        ({"location": "../w.bin"}, "only files inside the model's own folder"),
        ({"location": "a/../../w.bin"}, "only files inside the model's own folder"),
        ({"location": "..\\w.bin"}, "only files inside the model's own folder"),
        ({"location": "/etc/passwd"}, "only files inside the model's own folder"),
        ({"location": "a\0b"}, "is missing"),
        ({"location": "n" * 5000}, "cannot be read"),
        ({"offset": "4"}, "has only"),
        ({"offset": "-4"}, "has only"),
        ({"offset": "99999999999999999999"}, "has only"),
        ({"length": "-1"}, "has only"),
        ({"length": "4000"}, "has only"),
        ({"length": "8"}, "but 8 bytes are stored"),
        ({"length": "four"}, "not a number"),
        ({"offset": "0x4"}, "not a number"),
    ],
)
def test_wrong_external_data_is_refused(tmp_path: Path, size: int, entries: dict[str, str], says: str) -> None:
    path = external_model(tmp_path, size, **entries)
    with pytest.raises(ModelError, match=says) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_external_data_behind_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    path = external_model(inside)
    (inside / "w.bin").rename(tmp_path / "secret.bin")
    (inside / "w.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ModelError, match="link that leaves"):
        load(path)


def test_external_data_behind_a_link_within_the_folder_is_read(tmp_path: Path) -> None:
    path = external_model(tmp_path)
    (tmp_path / "w.bin").rename(tmp_path / "v.bin")
    (tmp_path / "w.bin").symlink_to("v.bin")
    assert load(path).initializers["w"].tolist() == ramp(100).tolist()


def test_external_data_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = external_model(tmp_path)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "memmap", refuse)
    with pytest.raises(ModelError, match="cannot be read: Permission denied"):
        load(path)
