from __future__ import annotations

import os
import sys
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import proto, ramp, stored
from onnx import helper
from onnxprune_passes.arrays import CHUNK
from onnxprune_passes.errors import ModelError
from onnxprune_passes.masks import Masks, apply_masks
from onnxprune_passes.storage import from_proto, load, save, to_proto
from onnxprune_passes.storage.save import data_files
from saving import NAMING, data_file, listing, starts, two

# where the bytes go


def test_one_file_is_written_where_it_was_asked_for(tmp_path: Path) -> None:
    model = two()
    assert save(model, str(tmp_path / "m.onnx")) == tmp_path / "m.onnx"
    assert list(listing(tmp_path)) == ["m.onnx"]
    assert onnx.load(tmp_path / "m.onnx") == to_proto(model)


def test_a_relative_name_is_written_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(two(), "m.onnx", external=True)
    assert starts(Path("m.onnx")) == 1
    assert len(listing(tmp_path)) == 2


def test_the_data_file_is_named_by_its_content(tmp_path: Path) -> None:
    save(two(), tmp_path / "my.net.onnx", external=True)
    data = data_file(tmp_path)
    name = NAMING.fullmatch(data.name)
    assert name is not None
    assert name["stem"] == "my.net"
    assert int(name["content"], 16) == zlib.crc32(data.read_bytes())
    save(two(2), tmp_path / "other.onnx", external=True)
    save(two(), tmp_path / "again.onnx", external=True)
    contents = {file.stem.split(".")[0]: file.suffixes[-2] for file in tmp_path.glob("*.data")}
    assert contents["again"] == f".{name['content']}" != contents["other"]


def test_external_data_is_for_tensors_of_a_kibibyte_or_more(tmp_path: Path) -> None:
    sizes = {"just": 256, "under": 255, "tiny": 3}
    tensors = [stored(name, ramp(size)) for name, size in sizes.items()]
    save(from_proto(proto([helper.make_node("Sum", list(sizes), ["y"])], tensors)), tmp_path / "m.onnx", external=True)
    bare = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    assert [len(tensor.external_data) for tensor in bare.graph.initializer] == [3, 0, 0]
    assert data_file(tmp_path).stat().st_size == 1024


def test_big_tensors_begin_on_a_page(tmp_path: Path) -> None:
    tensors = [stored("odd", ramp(1025, dtype=np.int8)), stored("big", ramp(1 << 18)), stored("next", ramp(300))]
    save(from_proto(proto([helper.make_node("Sum", ["odd"], ["y"])], tensors)), tmp_path / "m.onnx", external=True)
    bare = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    entries = [{entry.key: entry.value for entry in tensor.external_data} for tensor in bare.graph.initializer]
    assert [int(entry["offset"]) for entry in entries] == [0, 4096, 4096 + (1 << 20)]
    assert [int(entry["length"]) for entry in entries] == [1025, 1 << 20, 1200]
    assert load(tmp_path / "m.onnx").initializers["next"].tolist() == ramp(300).tolist()


def test_tensors_stay_inside_or_outside_as_they_were(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside.onnx", tmp_path / "outside.onnx"
    save(two(), inside)
    save(two(), outside, external=True)
    save(load(inside), tmp_path / "from_inside.onnx")
    save(load(outside), tmp_path / "from_outside.onnx")
    assert not list(tmp_path.glob("from_inside*.data"))
    assert len(list(tmp_path.glob("from_outside.*.data"))) == 1
    save(load(outside), tmp_path / "back.onnx", external=False)
    assert not list(tmp_path.glob("back*.data"))
    assert onnx.load(tmp_path / "back.onnx") == onnx.load(outside)


@pytest.mark.parametrize("external", [False, True])
def test_masked_and_chunked_weights_are_written_as_they_read(tmp_path: Path, external: bool) -> None:
    values = ramp(2 * CHUNK + 11)
    keep = np.arange(values.size) % 3 > 0
    model = from_proto(proto([helper.make_node("Relu", ["w"], ["y"])], [stored("w", values)]))
    save(apply_masks(model, Masks({"w": keep})), tmp_path / "m.onnx", external=external)
    assert np.array_equal(load(tmp_path / "m.onnx").initializers["w"], values * keep)


def test_a_model_past_the_protobuf_limit_goes_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["onnxprune_passes.storage.save"], "_LIMIT", 4000)
    save(two(), tmp_path / "m.onnx")
    assert data_file(tmp_path).stat().st_size == 5200
    assert starts(tmp_path / "m.onnx") == 1
    with pytest.raises(ModelError, match="would pass 2 GiB"):
        save(two(), tmp_path / "n.onnx", external=False)
    with pytest.raises(ModelError, match="passes 2 GiB"):
        to_proto(two())
    assert not (tmp_path / "n.onnx").exists()


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_files_get_the_rights_of_ordinary_files(tmp_path: Path, umask: int, external: bool) -> None:
    before = os.umask(umask)
    try:
        save(two(), tmp_path / "m.onnx", external=external)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o666 & ~umask}


# the input's files


def test_the_input_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    path = save(two(), tmp_path / "m.onnx")
    (tmp_path / "link.onnx").symlink_to(path)
    os.link(path, tmp_path / "hard.onnx")
    before = listing(tmp_path)
    for other in ("m.onnx", "link.onnx", "hard.onnx", "../" + tmp_path.name + "/m.onnx"):
        with pytest.raises(ModelError, match=r"is the input itself.*--overwrite"):
            save(load(path), tmp_path / other)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("external", [False, True])
def test_the_input_may_be_overwritten_when_that_is_said(tmp_path: Path, external: bool) -> None:
    path = save(two(), tmp_path / "m.onnx", external=external)
    model = load(path)
    changed = model.with_initializers({key: values + 5 for key, values in model.initializers.items()})
    save(changed, path, overwrite_input=True)
    assert starts(path) == 6
    assert float(model.initializers["b"][0]) == 1  # the old bytes are still mapped


def test_the_input_s_data_files_stay(tmp_path: Path) -> None:
    path = save(two(), tmp_path / "m.onnx", external=True)
    data = data_file(tmp_path)
    model = load(path)
    with pytest.raises(ModelError, match="holds the weights of the input"):
        save(model, data, external=False)
    changed = model.with_initializers({"b": model.initializers["b"] + 5})
    save(changed, path, overwrite_input=True)
    assert data.exists()


def test_a_data_file_that_input_and_replaced_output_share_stays(tmp_path: Path) -> None:
    path = save(two(), tmp_path / "m.onnx", external=True)
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(path.read_bytes())  # `cp m.onnx copy.onnx`: both point to m.….data
    save(load(copy).with_initializers({"b": ramp(1000, start=9)}), path)
    assert starts(copy) == 1
    assert float(load(path).initializers["b"][0]) == 9


# the output's files


def test_a_replaced_output_s_data_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for start in (1, 2, 3):
        save(two(start), path, external=True)
        assert starts(path) == start
        assert len(list(tmp_path.iterdir())) == 2
    save(two(3), path, external=True)  # the same bytes again
    assert starts(path) == 3
    save(two(4), path)
    assert list(listing(tmp_path)) == ["m.onnx"]


def test_data_that_is_not_in_our_naming_stays(tmp_path: Path) -> None:
    model = to_proto(two())
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    save(two(2), tmp_path / "m.onnx")
    assert set(listing(tmp_path)) == {"m.onnx", "m.data"}


def test_data_of_a_neighbour_stays(tmp_path: Path) -> None:
    save(two(1), tmp_path / "a.onnx", external=True)
    path = save(two(2), tmp_path / "b.onnx", external=True)
    text = path.read_bytes().replace(b"b.", b"a.")  # an output that points to its neighbour's data
    (tmp_path / "b.onnx").write_bytes(text)
    save(two(3), tmp_path / "b.onnx")
    assert starts(tmp_path / "a.onnx") == 1


def test_an_output_that_was_no_model_is_replaced(tmp_path: Path) -> None:
    for junk in (b"", b"\x3a\xff", b"text", b"\x3a\x05\x2a\x03\x6a\x01\xff"):
        (tmp_path / "m.onnx").write_bytes(junk)
        save(two(), tmp_path / "m.onnx", external=True)
        assert starts(tmp_path / "m.onnx") == 1


def test_data_files_are_those_that_a_model_names(tmp_path: Path) -> None:
    path = save(two(), tmp_path / "m.onnx", external=True)
    assert data_files(path) == {data_file(tmp_path)}
    assert data_files(None) == data_files(tmp_path / "gone.onnx") == data_files(tmp_path) == set()
