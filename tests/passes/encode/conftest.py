"""Models with sparse tensors in every place, and what has to hold of each once it is encoded."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from onnxprune_passes.arrays import Array
from onnxprune_passes.encode import DOMAIN, EncodedModel, densify, encode_model, standalone_decoders
from onnxprune_passes.encode.places import places
from onnxprune_passes.model import Model
from onnxprune_passes.storage import from_proto, keys, to_proto

NDArray = npt.NDArray[Any]
Build = Callable[..., Model]
Feeds = Mapping[str, NDArray]
LEVELS = (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)


def fetch(model: Model, feeds: Feeds, level: Any) -> list[tuple[tuple[int, ...], bytes]]:
    """Shape and bytes of every output; read by address, since numpy() has no bfloat16."""
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {name: ort.OrtValue.ortvalue_from_numpy(value) for name, value in feeds.items()}
    return [_contents(value) for value in session.run_with_ort_values(None, given)]


def _contents(value: ort.OrtValue) -> tuple[tuple[int, ...], bytes]:
    shape = tuple(value.shape())
    width = 2 if "bfloat16" in value.data_type() else value.numpy().itemsize
    return shape, ctypes.string_at(value.data_ptr(), width * int(np.prod(shape, dtype=np.int64)))


def filled(proto: onnx.ModelProto, tensors: Mapping[str, NDArray]) -> onnx.ModelProto:
    """`proto` with every tensor put in by its key: into the Constant node of that name, or as an initializer."""
    left = dict(tensors)
    for place in places(proto):
        for node in place.holder.node:
            if not node.domain:
                node.ClearField("domain")  # the parser writes it, which no exporter does
        for key in [key for key in left if key.rpartition("/")[0] == place.prefix.removesuffix("/")]:
            name = key.rpartition("/")[2]
            tensor = numpy_helper.from_array(left.pop(key), name)
            makers = [node for node in place.holder.node if name in node.output]
            if makers:
                tensor.ClearField("name")
                makers[0].attribute[0].t.CopyFrom(tensor)
            else:
                assert isinstance(place.holder, onnx.GraphProto)
                place.holder.initializer.append(tensor)
    assert not left, f"no place for {list(left)}"
    return proto


def plain(model: Model) -> onnx.ModelProto:
    """The model as it is written, but for what encoding is free to change: its initializers sorted and Constants of
    more than 64 entries among them, IR version and entries for initializers among the inputs left out.
    """
    proto = to_proto(model)
    proto.ClearField("ir_version")
    for place in list(places(proto)):
        if isinstance(place.holder, onnx.FunctionProto):
            continue
        for name, tensor in place.tensors():
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), name))
        constants = [node for node in place.holder.node if keys.is_constant(node) and _size(node) > 64]
        for node in constants:
            place.holder.initializer.append(node.attribute[0].t)
            place.holder.node.remove(node)
        ordered = sorted(place.holder.initializer, key=lambda tensor: tensor.name)
        del place.holder.initializer[:]
        place.holder.initializer.extend(ordered)
    stored = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in stored]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    return proto


def _size(node: onnx.NodeProto) -> int:
    return int(np.prod(node.attribute[0].t.dims, dtype=np.int64))


def contents(model: Model) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Key → dtype, shape and bytes of every tensor."""
    return {key: (str(array.dtype), array.shape, array.tobytes()) for key, array in model.initializers.items()}


def assert_exact(model: Model, encoded: EncodedModel, feeds: Feeds) -> None:
    """What has to hold of every encoded model. Weights and inputs are whole numbers, so outputs have to be equal at
    both levels of optimisation, and after a conversion to another opset too.
    """
    labels = {tensor.scheme for tensor in encoded.tensors}
    proto = to_proto(encoded.model)
    onnx.checker.check_model(proto, full_check="coo" not in labels)
    assert [tensor.name for tensor in encoded.model.graph.output] == [tensor.name for tensor in model.graph.output]

    dense = densify(encoded.model)
    assert contents(model).items() <= contents(dense).items()
    assert all(entry.domain != DOMAIN for entry in (*dense.skeleton.functions, *dense.skeleton.opset_import))
    assert all(entry.domain != DOMAIN for f in dense.skeleton.functions for entry in f.opset_import)
    if dense.opset == model.opset:
        assert plain(dense) == plain(model)

    done = {tensor.key for tensor in encoded.tensors}
    assert done
    alone = dict(standalone_decoders(encoded.model))
    assert set(alone) == done
    for level in LEVELS:
        for key, small in alone.items():
            array = model.initializers[key]
            assert fetch(small, {}, level) == [(array.shape, array.tobytes())], key
        expected = fetch(model, feeds, level)
        assert fetch(encoded.model, feeds, level) == expected
        assert fetch(dense, feeds, level) == expected
    if "coo" not in labels:
        assert encode_model(encoded.model, keep_inputs=True).model is encoded.model


@functools.cache
def newest_opset() -> int:
    """The newest ai.onnx opset that both onnx and onnxruntime know."""
    for opset in range(onnx.defs.onnx_opset_version(), 21, -1):
        text = f'<ir_version: 8, opset_import: ["": {opset}]> g (float[1] x) => (float[1] y) {{ y = Neg(x) }}'
        try:
            fetch(from_proto(onnx.parser.parse_model(text)), {"x": np.ones(1, np.float32)}, LEVELS[0])
        except ort.capi.onnxruntime_pybind11_state.Fail:
            continue
        return opset
    return 21


@pytest.fixture(scope="session")
def exact() -> Callable[[Model, EncodedModel, Feeds], None]:
    """Asserts of a model, its encoded form and feeds what has to hold of them."""
    return assert_exact


@pytest.fixture(scope="session")
def run() -> Callable[[Model, Feeds, Any], list[tuple[tuple[int, ...], bytes]]]:
    """Shape and bytes of the outputs that onnxruntime computes at a level of optimisation."""
    return fetch


@pytest.fixture(scope="session")
def build() -> Build:
    """A model from the text of its graph and functions, and tensors by key."""

    def model_from(text: str, tensors: Mapping[str, NDArray], *, opset: int | str = 17, ir: int = 8) -> Model:
        opset = newest_opset() if opset == "newest" else opset
        head = text if text.lstrip().startswith("<") else f'<ir_version: {ir}, opset_import: ["": {opset}]>\n{text}'
        return from_proto(filled(onnx.parser.parse_model(head), tensors))

    return model_from


@pytest.fixture(scope="session")
def sparse() -> Callable[..., NDArray]:
    """Whole numbers below `below` in magnitude, most of them 0; seeded by the shape. A dense tensor of
    a few kilobytes is not worth storing otherwise when they reach 1000."""

    def array(*shape: int, density: float = 0.1, dtype: Any = np.float32, below: int = 10) -> NDArray:
        rng = np.random.default_rng(list(shape))
        kept = rng.integers(1, below, shape) * (1 if np.dtype(dtype).kind == "u" else rng.choice([-1, 1], shape))
        found: NDArray = np.where(rng.random(shape) < density, kept, 0).astype(dtype)
        return found

    return array


@dataclass(frozen=True, eq=False)
class Cut(Array):
    """An array that gives its entries in pieces of the lengths asked for, over and over."""

    lengths: tuple[int, ...] = (1,)

    def chunks(self) -> Iterator[NDArray]:
        ends = np.cumsum([self.lengths[turn % len(self.lengths)] for turn in range(self.size)])
        yield from np.split(self.values.reshape(-1), ends[ends < self.size])


@pytest.fixture(scope="session")
def cut() -> Callable[[NDArray, tuple[int, ...]], Array]:
    """A source that gives an array in pieces of the lengths asked for, over and over."""
    return Cut


@pytest.fixture
def feed() -> dict[str, NDArray]:
    """Whole numbers for `x` [3, 32]."""
    return {"x": np.random.default_rng(3).integers(-4, 5, (3, 32)).astype(np.float32)}
