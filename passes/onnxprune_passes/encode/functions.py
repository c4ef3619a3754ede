"""Decoder functions as ONNX text: the pieces that several of them share, and the way from text to FunctionProto.

The text is what a graph viewer shows. A body imports the model's own ai.onnx opset: onnxruntime runs it under the
model's opset whatever it says, and the checker refuses any other. Every operator here has the same signature from opset
11 on (axes are never passed, so Unsqueeze and its kin do not appear) and is folded by onnxruntime when the model is
loaded. Constants are int32, int64 or uint8; nothing names the weight's dtype.

A function is in every file that uses it, so the values in its body get names of one letter (the text here has longer
ones) and its doc string says no more than is needed to read it; docs/encoding.md says it at length.

onnxruntime 1.31 keeps every intermediate result until folding ends: load time and memory follow the number of tensors
in a body that are as long as the weight (3 in the gap decoders; in the bitmask's 5, and 4 of one byte an entry).
"""

from __future__ import annotations

from string import ascii_letters

import onnx
import onnx.parser
from onnx import numpy_helper

from ..errors import EncodeError
from .limits import FIRST_OPSET

DOMAIN = "onnxprune"
DOMAIN_VERSION = 1

SIZE = """
  size = ReduceProd (shape)
"""
"""shape → size, int64 [1]."""

STORED = """
  axis = Constant <value = int32 {0}> ()
  rank = CumSum (keep, axis)
  order = Mul (rank, keep)
  got = Gather (values, order)
"""
"""keep (int32, 1 or 0), values → got: the next value for every 1, values[0] for every 0."""


def function_from_text(signature: str, body: str, doc: str, opset: int) -> onnx.FunctionProto:
    """A function of the domain `onnxprune` for models of the ai.onnx `opset`.

    Raises EncodeError when the opset is older than `FIRST_OPSET`.
    """
    if opset < FIRST_OPSET:
        name = signature.split()[0]
        raise EncodeError(
            f"{name}: found ai.onnx opset {opset}, expected {FIRST_OPSET} or newer; convert the model first"
        )
    text = f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>\n{signature}\n{{{body}}}'
    function = onnx.parser.parse_function(text)
    function.doc_string = doc
    names = {name: name for name in (*function.input, *function.output)}
    for node in function.node:
        node.ClearField("domain")  # the parser writes the empty one
        for name in node.output:
            names.setdefault(name, _short(len(names)))
        for field, values in (("input", list(node.input)), ("output", list(node.output))):
            node.ClearField(field)
            getattr(node, field).extend(names[value] for value in values)
        for attribute in node.attribute:
            if attribute.HasField("t"):
                attribute.t.CopyFrom(_smallest(attribute.t))
    return function


def _short(number: int) -> str:
    """A name of one letter, or of two: no input or output of a function is that short."""
    return ascii_letters[number] if number < len(ascii_letters) else ascii_letters[number - len(ascii_letters)] * 2


def _smallest(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """`tensor` without a name, in the field that takes the fewest bytes: numbers of several bytes are short as varints,
    but negative ones are not.
    """
    tensor.ClearField("name")
    raw = numpy_helper.from_array(numpy_helper.to_array(tensor))
    return min(tensor, raw, key=lambda each: each.ByteSize())
