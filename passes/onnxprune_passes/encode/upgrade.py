"""Models of an opset before the decoders' first: converted with onnx's own version converter, or left as they are."""

from __future__ import annotations

import onnx
from onnx import checker, shape_inference, version_converter

from ..model import Model
from ..storage import keys, stubs
from .limits import FIRST_OPSET

_NO_FILE = "#"
"""A location that the checker does not look for in the file system (see onnx.model_container)."""
_REFUSALS = (
    RuntimeError,
    ValueError,
    checker.ValidationError,
    shape_inference.InferenceError,
    version_converter.ConvertError,
)
"""What the converter and the checker raise; the last three are plain Exceptions."""
_ORIGIN = ("ir_version", "producer_name", "producer_version", "domain", "model_version")
_GRAPH_FIELDS = ("input", "output", "value_info", "quantization_annotation")


def upgraded(model: Model) -> tuple[Model, str]:
    """`model` converted to the first opset that decoders run at, and "" — or `model` itself and why it cannot be.

    Only the skeleton is converted: the values of its stubs are the same objects afterwards.
    """
    if model.skeleton.functions or model.skeleton.training_info:
        return model, "onnx's version converter drops model-local functions and training information"
    try:
        converted = version_converter.convert_version(model.skeleton, FIRST_OPSET)
        _check(converted)
    except _REFUSALS as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        return model, f"onnx's version converter cannot bring opset {model.opset} to {FIRST_OPSET}: {first}"
    _put_back(converted, model.skeleton, (*_ORIGIN, "doc_string", "metadata_props"))
    _restore(converted.graph, model.skeleton.graph)
    return model.with_skeleton(converted), ""


def _check(converted: onnx.ModelProto) -> None:
    """Raise ValidationError or InferenceError when the skeleton `converted` is not a valid model."""
    copy = onnx.ModelProto()
    copy.CopyFrom(converted)
    for _, tensor in keys.tensors(copy):
        if (store := stubs.store_of(tensor)) is not None:
            stubs.set_stub(tensor, _NO_FILE, store)
    checker.check_model(copy, full_check=True)


def _restore(converted: onnx.GraphProto, before: onnx.GraphProto) -> None:
    """Put back what the converter drops of a graph and the bodies below it, and drop the value_infos that it adds."""
    _put_back(converted, before, (*_GRAPH_FIELDS, "doc_string", "metadata_props"))
    originals = {tensor.name: tensor for tensor in before.initializer}
    for tensor in converted.initializer:
        if tensor.name in originals:
            tensor.CopyFrom(originals[tensor.name])
    nodes = {keys.first_output(node): node for node in before.node}
    for node in converted.node:
        original = nodes.get(keys.first_output(node))
        if original is None:
            continue
        _put_back(node, original, ("metadata_props",))
        bodies = {attribute.name: attribute.g for attribute in original.attribute if attribute.HasField("g")}
        for attribute in node.attribute:
            if attribute.name in bodies:
                _restore(attribute.g, bodies[attribute.name])


def _put_back(
    converted: onnx.ModelProto | onnx.GraphProto | onnx.NodeProto,
    before: onnx.ModelProto | onnx.GraphProto | onnx.NodeProto,
    fields: tuple[str, ...],
) -> None:
    """Make `fields` of `converted` what they are in `before`."""
    for field in fields:
        converted.ClearField(field)
    for descriptor, value in before.ListFields():
        if descriptor.name not in fields:
            continue
        if isinstance(value, (str, int)):
            setattr(converted, descriptor.name, value)
        else:
            getattr(converted, descriptor.name).extend(value)
