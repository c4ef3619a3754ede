"""Shared hypothesis strategies: arrays, weights and models."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
from builders import NDArray, body, proto, stored, value
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper

FLOATS = (np.float32, np.float16, np.float64, ml_dtypes.bfloat16)
STORES: dict[str, tuple[str, ...]] = {
    "float32": ("raw", "float_data"),
    "float64": ("raw", "double_data"),
    "float16": ("raw", "int32_data"),
    "bfloat16": ("raw", "int32_data"),
    "int8": ("raw", "int32_data"),
    "uint8": ("raw", "int32_data"),
    "int32": ("raw", "int32_data"),
    "int64": ("raw", "int64_data"),
    "bool": ("raw", "int32_data"),
}
"""dtype → the TensorProto fields that may hold its values."""

SHAPES = st.sampled_from([(), (0,), (1,), (2, 0, 3), (64,), (65,), (5, 13), (3, 4, 6), (200,)])


def integers_as(dtype: Any, shape: tuple[int, ...] | st.SearchStrategy[tuple[int, ...]], most: int = 8) -> Any:
    """Arrays of small whole numbers, with many ties and zeros, of any numeric dtype."""
    return hnp.arrays(np.int8, shape, elements=st.integers(-most, most)).map(lambda array: array.astype(dtype))


@st.composite
def tensors(draw: st.DrawFn, name: str) -> TensorProto:
    """A tensor of any storable dtype, size and field."""
    dtype = draw(st.sampled_from(sorted(STORES)))
    low = 0 if dtype in ("uint8", "bool") else -100
    shape = draw(SHAPES)
    count = int(np.prod(shape))
    start = draw(st.integers(low, 27))
    array = (np.arange(count) % 100 + start).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype).reshape(shape)
    tensor = stored(name, array, draw(st.sampled_from(STORES[dtype])))
    if draw(st.booleans()):
        tensor.doc_string = draw(st.text(max_size=3))
    if draw(st.booleans()):
        tensor.data_location = TensorProto.DEFAULT
    return tensor


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """Models with tensors as initializers, graph inputs, Constant nodes, attributes, in bodies and functions."""
    count = draw(st.integers(1, 6))
    names = [f"t{index}" for index in range(count)]
    nodes, initializers, inputs, functions = [], [], [], []
    for name in names:
        tensor = draw(tensors(name))
        place = draw(st.sampled_from(["initializer", "input", "constant", "attribute", "body", "function"]))
        if place in ("initializer", "input"):
            initializers.append(tensor)
            if place == "input":
                inputs.append(value(name, list(tensor.dims), tensor.data_type))
        elif place == "constant":
            nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        elif place == "attribute":
            nodes.append(helper.make_node("Other", [], [name], domain="o", one=tensor, many=[tensor, tensor]))
        elif place == "body":
            inner = body("b", [helper.make_node("Constant", [], ["c"], value=tensor)], [tensor])
            nodes.append(helper.make_node("If", ["cond"], [name], then_branch=inner, else_branch=inner))
        else:
            const = helper.make_node("Constant", [], ["k"], value=tensor)
            functions.append(helper.make_function("f", name, [], ["k"], [const], [helper.make_opsetid("", 18)]))
            nodes.append(helper.make_node(name, [], [name], domain="f"))
    model = proto(
        nodes, initializers, inputs=inputs, outputs=[value(name, None) for name in names], functions=functions
    )
    model.doc_string = draw(st.text(max_size=4))
    model.metadata_props.add(key="k", value=draw(st.text(max_size=4)))
    return model


@st.composite
def weight_sets(draw: st.DrawFn, dtypes: tuple[Any, ...] = FLOATS) -> dict[str, NDArray]:
    """One to four 2-D weights of whole numbers: ties within and between them, zeros, negative zeros, all-zero ones."""
    weights: dict[str, NDArray] = {}
    for index in range(draw(st.integers(1, 4))):
        shape = (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
        array = draw(integers_as(draw(st.sampled_from(dtypes)), shape, draw(st.sampled_from([0, 1, 8, 100]))))
        if draw(st.booleans()):
            array = np.where(array == 0, -array, array)
        weights[f"w{index}"] = array
    return weights
