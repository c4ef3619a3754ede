"""Decoders written out as plain nodes: the same tensors, no functions, and the way back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnxprune_passes.encode import DOMAIN, EncodedModel, decoders, densify, encode_model
from onnxprune_passes.encode.inline import METADATA, calls_inlined
from onnxprune_passes.errors import EncodeError
from onnxprune_passes.model import Model
from onnxprune_passes.storage import from_proto, load, save, to_proto

NDArray = npt.NDArray[Any]
Feeds = Mapping[str, NDArray]
Exact = Callable[[Model, EncodedModel, Feeds], None]
Build = Callable[..., Model]
Sparse = Callable[..., NDArray]

SIDE = 64
ONE = "g (float[N,32] x) => (float[N,64] y) { y = MatMul(x, w) }"
IF = """g (float[N,32] x, bool c) => (float[N,32] y) {
  h = MatMul(x, w)
  y = If (c) <then_branch = t () => (float[N,32] o1) { o1 = MatMul(h, v) },
              else_branch = e () => (float[N,32] o2) { k = Constant <value = float[1] {0}> ()
                                                       o2 = MatMul(h, k) }>
}"""
IN_FUNCTION = """<ir_version: 8, opset_import: ["": 17, "own": 1]>
g (float[N,32] x) => (float[N,64] y) { y = own.F(x) }
<domain: "own", opset_import: ["": 17]> F (a) => (b) {
  k = Constant <value = float[1] {0}> ()
  b = MatMul(a, k)
}"""


def weight(seed: int, *shape: int, density: float = 0.1) -> NDArray:
    """Whole numbers, a tenth of them not zero, of many values."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < density, rng.integers(-5000, 5000, shape), 0).astype(np.float32)


def few_values(*shape: int) -> NDArray:
    """A tensor with eight values, which a codebook stores best."""
    return np.random.default_rng(3).choice(np.arange(1, 9) * 1000.0, shape).astype(np.float32)


def is_plain(model: Model) -> bool:
    skeleton = model.skeleton
    imports = [*skeleton.opset_import, *(entry for f in skeleton.functions for entry in f.opset_import)]
    return all(entry.domain != DOMAIN for entry in imports) and all(f.domain != DOMAIN for f in skeleton.functions)


@pytest.mark.parametrize("encoding", ["auto", "gaps", "bitmask"])
@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 21, "newest"])
def test_at_every_opset(build: Build, feed: Feeds, exact: Exact, encoding: Any, opset: Any) -> None:
    model = build(ONE, {"w": weight(0, 32, SIDE)}, opset=opset)
    encoded = encode_model(model, encoding, inline=True)
    assert is_plain(encoded.model)
    exact(model, encoded, feed)


def test_index_and_values_of_their_own(build: Build, feed: Feeds, exact: Exact) -> None:
    model = build(ONE, {"w": few_values(32, SIDE)})
    encoded = encode_model(model, inline=True)
    assert "codes" in encoded.tensors[0].scheme
    assert is_plain(encoded.model)
    assert len(json.loads(encoded.model.skeleton.metadata_props[0].value)) == 2
    exact(model, encoded, feed)


@pytest.mark.parametrize("condition", [True, False])
def test_in_bodies(build: Build, feed: Feeds, exact: Exact, condition: bool) -> None:
    tensors = {"w": weight(0, 32, 32), "v": weight(1, 32, 32), "y.else_branch/k": weight(2, 32, 32)}
    model = build(IF, tensors)
    encoded = encode_model(model, "bitmask", inline=True)
    assert len(encoded.tensors) == 3
    assert is_plain(encoded.model)
    exact(model, encoded, {**feed, "c": np.array(condition)})


def test_in_functions(build: Build, feed: Feeds, exact: Exact) -> None:
    model = build(IN_FUNCTION, {"own::F/k": weight(0, 32, SIDE)})
    encoded = encode_model(model, "gaps", inline=True)
    assert len(encoded.tensors) == 1
    assert is_plain(encoded.model)
    exact(model, encoded, feed)


@pytest.mark.parametrize("ir", [3, 4, 8])
def test_the_ir_version_is_raised_to_what_plain_nodes_need(build: Build, ir: int) -> None:
    inputs = ", float[32,64] w" if ir == 3 else ""
    model = build(ONE.replace("x)", f"x{inputs})", 1), {"w": weight(0, 32, SIDE)}, opset=11, ir=ir)
    assert encode_model(model, inline=True).model.skeleton.ir_version == max(ir, 4)
    assert encode_model(model).model.skeleton.ir_version == 8


def test_names_in_use_are_left_alone(build: Build, feed: Feeds, exact: Exact) -> None:
    proto = to_proto(
        build(ONE.replace("y = MatMul(x, w)", "h = MatMul(x, w)\n y = Neg(h)"), {"w": weight(0, 32, SIDE)})
    )
    plain = encode_model(from_proto(proto), "gaps", inline=True).model.skeleton
    taken = next(name for node in plain.graph.node for name in node.output if name.startswith("0a."))
    proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = taken
    model = from_proto(proto)
    encoded = encode_model(model, "gaps", inline=True)
    exact(model, encoded, feed)


def test_external_data(build: Build, tmp_path: Path) -> None:
    model = build(ONE, {"w": weight(0, 512, SIDE)})
    save(model, tmp_path / "model.onnx", external=True)
    loaded = load(tmp_path / "model.onnx")
    save(encode_model(loaded, inline=True).model, tmp_path / "encoded.onnx")
    assert len(list(tmp_path.glob("*.data"))) == 2
    dense = densify(load(tmp_path / "encoded.onnx"))
    assert dense.initializers["w"].tobytes() == model.initializers["w"].tobytes()


@pytest.mark.parametrize("name", ["w", "a_much_longer_name_of_a_weight"])
def test_the_bytes_of_a_tensor_are_those_in_the_file(build: Build, name: str) -> None:
    text = ONE.replace("w)", f"{name})")
    model = build(text, {name: weight(0, 32, SIDE)})
    encoded = encode_model(model, "gaps", inline=True)
    (tensor,) = encoded.tensors
    grown = len(to_proto(encoded.model).SerializeToString()) - len(to_proto(model).SerializeToString())
    # the record's own frame, lengths of lengths, and equal powers that are stored once
    assert abs(grown - (tensor.nbytes - tensor.dense_nbytes)) < 60


def test_tensors_that_their_nodes_outweigh_stay_dense(build: Build) -> None:
    names = [f"w{number}" for number in range(6)]
    steps = "\n".join(f"h{i + 1} = MatMul({'x' if i == 0 else f'h{i}'}, {name})" for i, name in enumerate(names))
    text = f"g (float[N,12] x) => (float[N,12] h6) {{ {steps} }}"
    model = build(text, {name: weight(i, 12, 12, density=0.05) for i, name in enumerate(names)})
    assert len(encode_model(model, "gaps").tensors) == 6
    assert encode_model(model, "gaps", inline=True).model is model


def test_what_was_encoded_already_keeps_its_record(build: Build) -> None:
    two = "g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w)\n y = MatMul(h, v) }"
    tensors = {"w": weight(0, 32, 32, density=0.05), "v": weight(1, 32, 32, density=1.0)}
    first = encode_model(build(two, tensors), "bitmask", inline=True).model
    assert [one.key for one in decoders(first)] == ["w"]
    later = from_proto(to_proto(first))
    zeroed = later.with_initializers({"v": weight(1, 32, 32, density=0.05)})
    second = encode_model(zeroed, "bitmask", inline=True).model
    assert sorted(one.key for one in decoders(second)) == ["v", "w"]
    assert densify(second).initializers["w"].tobytes() == tensors["w"].tobytes()


@pytest.mark.parametrize(("first", "then"), [("gaps", "bitmask"), ("bitmask", "bitmask"), ("rice", "gaps")])
def test_what_is_written_out_and_what_is_called_can_stand_side_by_side(build: Build, first: Any, then: Any) -> None:
    two = "g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w)\n y = MatMul(h, v) }"
    tensors = {"w": weight(0, 32, 32, density=0.05), "v": weight(1, 32, 32, density=1.0)}
    inlined = encode_model(build(two, tensors), first, inline=True).model
    pruned = weight(1, 32, 32, density=0.05)
    both = encode_model(from_proto(to_proto(inlined)).with_initializers({"v": pruned}), then).model
    assert sorted(one.key for one in decoders(both)) == ["v", "w"]
    dense = densify(both)
    assert dense.initializers["w"].tobytes() == tensors["w"].tobytes()
    assert dense.initializers["v"].tobytes() == pruned.tobytes()
    assert encode_model(both).model is both


@pytest.mark.parametrize("missing", ["DecodeGaps", "WidenFloat16", "ReadCodes", "ReadBytes", "JoinFloats"])
def test_a_function_that_is_missing_is_one_line(build: Build, missing: str) -> None:
    proto = to_proto(encode_model(build(ONE, {"w": weight(0, 32, SIDE)}), "gaps").model)
    names = [each.name for each in proto.functions]
    kept = [each for each in proto.functions if each.name != missing]
    del proto.functions[:]
    proto.functions.extend(kept)
    if missing in names:
        with pytest.raises(EncodeError, match=f"{missing}.*no such function"):
            calls_inlined(from_proto(proto))
    else:
        assert calls_inlined(from_proto(proto)).skeleton.functions == []


def test_bits_are_written_out_in_operators_that_most_tools_know(build: Build) -> None:
    encoded = encode_model(build(ONE, {"w": weight(0, 32, SIDE)}), "rice", inline=True).model
    assert {"BitShift", "MatMulInteger"}.isdisjoint(node.op_type for node in encoded.graph.node)


def test_a_tensor_that_a_tool_computed_stays_as_it_is(build: Build) -> None:
    model = build(ONE, {"w": weight(0, 32, SIDE)})
    proto = to_proto(encode_model(model, "gaps", inline=True).model)
    proto.graph.node[0].op_type = "Neg" if proto.graph.node[0].op_type != "Neg" else "Abs"
    changed = from_proto(proto)
    assert list(decoders(changed)) == []
    assert densify(changed) is changed


def test_nodes_that_something_else_reads_stay(build: Build) -> None:
    proto = to_proto(encode_model(build(ONE, {"w": weight(0, 32, SIDE)}), "gaps", inline=True).model)
    inner = next(name for node in proto.graph.node for name in node.output if name.startswith("0a."))
    proto.graph.output.add(name=inner)
    assert list(decoders(from_proto(proto))) == []


@pytest.mark.parametrize("record", ["no json", "[1]", '[["DecodeGaps", 5, []]]', "{}x"])
def test_a_damaged_record_is_an_error(build: Build, record: str) -> None:
    proto = to_proto(build(ONE, {"w": weight(0, 32, SIDE)}))
    proto.metadata_props.add(key=METADATA, value=record)
    with pytest.raises(EncodeError, match="is not a list of decoders"):
        densify(from_proto(proto))


def test_an_unknown_decoder_is_an_error(build: Build) -> None:
    proto = to_proto(build(ONE, {"w": weight(0, 32, SIDE)}))
    proto.metadata_props.add(key=METADATA, value='[["DecodeLater", ["w"], ["w.parts"]]]')
    with pytest.raises(EncodeError, match="onnxprune::DecodeLater is no decoder of this version"):
        densify(from_proto(proto))


@pytest.mark.parametrize("encoding", ["dense", "coo"])
def test_what_has_no_decoders_says_so(build: Build, encoding: Any) -> None:
    model = build(ONE, {"w": weight(0, 32, SIDE)})
    plain, inline = encode_model(model, encoding), encode_model(model, encoding, inline=True)
    assert inline.model.skeleton == plain.model.skeleton
    assert inline.log[:-1] == plain.log
    assert "no decoders" in inline.log[-1].reason  # type: ignore[union-attr]
