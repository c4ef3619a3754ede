"""Models of an opset before the decoders' first: converted with onnx's own version converter, or left as they are."""

from __future__ import annotations

import onnx
from onnx import version_converter

from ..model import Model
from ..storage import from_proto, to_proto
from .scheme import FIRST_OPSET


def upgraded(model: Model) -> tuple[Model, str]:
    """`model` converted to the first opset that decoders run at, and "" — or `model` itself and why it cannot be.

    The converter rebuilds every node; names of values and initializers stay, or the result is not taken.
    """
    try:
        converted = version_converter.convert_version(to_proto(model), FIRST_OPSET)
        onnx.checker.check_model(converted, full_check=True)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        return model, f"onnx's version converter cannot bring opset {model.opset} to {FIRST_OPSET}: {reason}"
    _keep_interface(converted, model.skeleton)
    result = from_proto(converted)
    lost = [key for key in model.initializers if key not in result.initializers and "/" not in key]
    if lost:
        return model, f"onnx's version converter renames initializers such as {lost[0]!r}"
    return Model(result.skeleton, result.initializers, model.path), ""


def _keep_interface(converted: onnx.ModelProto, before: onnx.ModelProto) -> None:
    """Put back what the converter drops: metadata, producer, doc strings of the model and graph, inputs and outputs."""
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        setattr(converted, field, getattr(before, field))
    del converted.metadata_props[:]
    converted.metadata_props.extend(before.metadata_props)
    converted.ir_version = max(before.ir_version, 4)
    converted.graph.doc_string = before.graph.doc_string
    names = [value.name for value in converted.graph.input]
    if sorted(names) != sorted(value.name for value in before.graph.input):
        return
    for side in ("input", "output"):
        values = getattr(converted.graph, side)
        del values[:]
        values.extend(getattr(before.graph, side))
