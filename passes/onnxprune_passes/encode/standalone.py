"""Each encoded tensor of a model as a small model of its own, so that any runtime can be asked what it decodes to."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import helper

from ..errors import EncodeError
from ..model import Model
from ..storage import keys, stubs
from .densify import Decoder, decoders, sparse_tensors
from .functions import DOMAIN
from .inline import calls_restored
from .registry import function_for

OUTPUT = "decoded"
"""The name of the output of a standalone model."""
_TENSOR = "tensor"
_DOMAINS = ("", "ai.onnx", DOMAIN)


def standalone_decoders(model: Model) -> Iterator[tuple[str, Model]]:
    """For every encoded tensor of `model`, wherever it lies: its key, and a model without inputs whose one output,
    `decoded`, it is.

    Raises:
        EncodeError: a decoder node is unknown, or a part of it is missing or not stored in the model.
    """
    model = calls_restored(model, function_for)
    stored = dict(keys.tensors(model.skeleton))
    for decoder in decoders(model):
        if len(decoder.inputs) != len(decoder.coding.suffixes):
            expected = ", ".join(decoder.coding.suffixes)
            raise EncodeError(f"tensor {decoder.key!r}: found {len(decoder.inputs)} parts, expected {expected}")
        parts = [stored[key] for key in decoder.inputs]
        yield decoder.key, _small(model, decoder, parts)
    for key, sparse in sparse_tensors(model).items():
        yield key, _small_sparse(model, sparse)


def _small(model: Model, decoder: Decoder, parts: list[onnx.TensorProto]) -> Model:
    skeleton = _frame(model, decoder.coding.data_type([part.data_type for part in parts]))
    tensors = dict(zip(decoder.coding.part_names(_TENSOR), parts, strict=True))
    skeleton.graph.node.extend(decoder.coding.nodes(_TENSOR, OUTPUT))
    wanted = {(DOMAIN, name) for name in decoder.coding.functions(model.opset)}
    skeleton.functions.extend(each for each in model.skeleton.functions if (each.domain, each.name) in wanted)
    for (name, part), key in zip(tensors.items(), decoder.inputs, strict=True):
        tensor = skeleton.graph.initializer.add()
        tensor.CopyFrom(part)
        tensor.name = name
        if stubs.store_of(tensor) is not None:
            stubs.set_stub(tensor, key, "raw")
    return model.with_skeleton(skeleton)


def _small_sparse(model: Model, sparse: onnx.SparseTensorProto) -> Model:
    skeleton = _frame(model, sparse.values.data_type)
    entry = skeleton.graph.sparse_initializer.add()
    entry.CopyFrom(sparse)
    entry.values.name = "sparse"
    skeleton.graph.node.append(helper.make_node("Identity", ["sparse"], [OUTPUT]))
    return model.with_skeleton(skeleton)


def _frame(model: Model, data_type: int) -> onnx.ModelProto:
    skeleton = onnx.ModelProto(ir_version=model.skeleton.ir_version)
    skeleton.opset_import.extend(entry for entry in model.skeleton.opset_import if entry.domain in _DOMAINS)
    skeleton.graph.name = "standalone_decoder"
    skeleton.graph.output.append(helper.make_tensor_value_info(OUTPUT, data_type, None))
    return skeleton
