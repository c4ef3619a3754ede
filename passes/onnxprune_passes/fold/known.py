"""What is known of values in a draft: shapes and element types that follow from the inputs and the operators alone.

The value_infos of a file are claims of whoever wrote it (an exporter's batch of 1, say), so they are not believed.
"""

from __future__ import annotations

import onnx
from onnx import shape_inference

from ..model import Model
from .blocks import Block, blocks_of

Dims = tuple[int | None, ...]


class Known:
    """Shapes and element types of the values of `model`; nothing is known where inference fails."""

    def __init__(self, model: Model) -> None:
        self._types: dict[str, onnx.TypeProto.Tensor] = {}
        for block in blocks_of(_inferred(model)):
            for value in (*block.graph.value_info, *block.graph.output, *block.graph.input):
                if value.type.HasField("tensor_type"):
                    self._types[block.prefix + value.name] = value.type.tensor_type
        for block in blocks_of(model.graph):
            for tensor in block.graph.initializer:
                stored = onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
                self._types[block.prefix + tensor.name] = stored.tensor_type

    def dims(self, block: Block, name: str) -> Dims | None:
        """The size of each axis, None where it is not fixed; None when not even the rank is known."""
        found = self._type(block, name)
        if found is None or not found.HasField("shape"):
            return None
        return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in found.shape.dim)

    def element(self, block: Block, name: str) -> int:
        """The ONNX element type; 0 (UNDEFINED) when it is not known."""
        found = self._type(block, name)
        return 0 if found is None else found.elem_type

    def _type(self, block: Block, name: str) -> onnx.TypeProto.Tensor | None:
        home = block.home(name)
        return None if home is None else self._types.get(home.prefix + name)


def _inferred(model: Model) -> onnx.GraphProto:
    """The graph with inferred value_infos alone; without any where inference fails."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    for block in blocks_of(skeleton.graph):
        del block.graph.value_info[:]
        for value in (*block.graph.output, *(() if block.outer is None else block.graph.input)):
            if value.type.HasField("tensor_type"):
                value.type.tensor_type.ClearField("shape")
    try:
        return shape_inference.infer_shapes(skeleton, data_prop=True).graph
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        return skeleton.graph
