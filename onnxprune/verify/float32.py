"""A float32 copy of a model whose own type onnxruntime has no kernels for.

onnxruntime's CPU provider has, for instance, no bfloat16 MatMul and no double Conv. Pruning such a model can still be
checked on a copy in which every bfloat16, float16 and double value is float32: float32 holds the first two exactly,
and doubles rounded to it are the same in the models before and after.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

_CAST = frozenset({TensorProto.BFLOAT16, TensorProto.FLOAT16, TensorProto.DOUBLE})
# Integer attributes that hold an ONNX element type, whatever the operator.
_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype", "output_datatype", "stash_type", "softmax_precision"})
_LARGEST_FILE = 1 << 30  # bytes of weights that go into the .onnx file itself; protobuf ends at 2 GiB


def float32_copy(path: str | Path, out_path: str | Path) -> None:
    """Write a copy of a model that computes in float32 wherever it computed in bfloat16, float16 or double.

    Cast are initializers, tensors in attributes (Constant, ConstantOfShape), element types asked for by attributes
    (Cast, RandomNormal…), and the types of inputs, outputs and value_info, in the bodies of If, Loop and Scan and in
    model-local functions too. Integers, strings, 4- and 8-bit types stay. Doubles beyond float32's range become its
    largest finite value. Everything else is written as it was; weights over 1 GiB go to `OUT_PATH.data`.

    The whole model is held in memory. Feed the copy with `onnxprune.feeds.feeds_as_float32`.
    """
    model = onnx.load(str(path))
    _cast_graph(model.graph)
    for function in model.functions:
        _cast_nodes(function.node)
        _cast_attributes(function.attribute_proto)
        _cast_values(function.value_info)
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    location = f"{Path(out_path).name}.data"
    onnx.save_model(model, str(out_path), save_as_external_data=size > _LARGEST_FILE, location=location)


def _cast_graph(graph: onnx.GraphProto) -> None:
    for values in (graph.input, graph.output, graph.value_info):
        _cast_values(values)
    for tensor in graph.initializer:
        _cast_tensor(tensor)
    for sparse in graph.sparse_initializer:
        _cast_tensor(sparse.values)
    _cast_nodes(graph.node)


def _cast_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        _cast_attributes(node.attribute)


def _cast_attributes(attributes: Iterable[onnx.AttributeProto]) -> None:
    for attribute in attributes:
        if attribute.type == onnx.AttributeProto.INT and attribute.name in _TYPE_ATTRIBUTES and attribute.i in _CAST:
            attribute.i = TensorProto.FLOAT
        for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
            _cast_tensor(tensor)
        sparse_tensors = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for sparse in (*sparse_tensors, *attribute.sparse_tensors):
            _cast_tensor(sparse.values)
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            _cast_graph(graph)
        for kind in (*([attribute.tp] if attribute.HasField("tp") else []), *attribute.type_protos):
            _cast_type(kind)


def _cast_values(values: Iterable[onnx.ValueInfoProto]) -> None:
    for value in values:
        _cast_type(value.type)


def _cast_type(kind: onnx.TypeProto) -> None:
    """Cast the element type at the bottom of a tensor, sequence, optional or map type."""
    case = kind.WhichOneof("value")
    if case in ("tensor_type", "sparse_tensor_type"):
        tensor = getattr(kind, case)
        if tensor.elem_type in _CAST:
            tensor.elem_type = TensorProto.FLOAT
    elif case in ("sequence_type", "optional_type"):
        _cast_type(getattr(kind, case).elem_type)
    elif case == "map_type":
        _cast_type(kind.map_type.value_type)


def _cast_tensor(tensor: onnx.TensorProto) -> None:
    """Replace the values in place; name, dims and doc string stay."""
    if tensor.data_type not in _CAST:
        return
    array = numpy_helper.to_array(tensor)
    if tensor.data_type == TensorProto.DOUBLE:
        limit = np.finfo(np.float32).max
        array = np.where(np.isfinite(array), np.clip(array, -limit, limit), array)
    for field in ("raw_data", "double_data", "int32_data", "float_data"):
        tensor.ClearField(field)
    tensor.data_type = TensorProto.FLOAT
    tensor.raw_data = array.astype("<f4").tobytes()
