"""How large one quantisation step of an output is."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import numpy_helper

_KEEPS_VALUES = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")


def quantised_steps(path: str | Path) -> dict[str, float]:
    """Output -> scale of the DequantizeLinear that makes it, the largest one where each channel has its own.

    Outputs that a float operator computes are absent. The scale is read from the file itself or from its external
    data; a scale that another node computes is treated as unknown.
    """
    folder = str(Path(path).parent)
    graph = onnx.load(str(path), load_external_data=False).graph
    producers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants.update((node.output[0], item.t) for item in node.attribute if item.name == "value")
    steps: dict[str, float] = {}
    for output in graph.output:
        producer = producers.get(output.name)
        while producer is not None and producer.op_type in _KEEPS_VALUES:
            producer = producers.get(producer.input[0])
        if producer is not None and producer.op_type == "DequantizeLinear" and producer.input[1] in constants:
            scale = numpy_helper.to_array(constants[producer.input[1]], folder)
            steps[output.name] = float(scale.astype("float64").max())
    return steps
