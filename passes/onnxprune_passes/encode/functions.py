"""Decoder functions as ONNX text: the pieces that several of them share, and the way from text to FunctionProto.

The text is what a graph viewer shows. A body imports the model's own ai.onnx opset: onnxruntime runs it under the
model's opset whatever it says, and the checker refuses any other. Every operator here has the same signature from opset
11 on (axes are never passed, so Unsqueeze and its kin do not appear) and is folded by onnxruntime when the model is
loaded. Constants are int32 or uint8; nothing names the weight's dtype.

A function is in every file that uses it, so all its values get names of one letter (the text here has longer ones, and
{name} in a doc string becomes the letter), what can be computed from what is there is no Constant (`size - size` is 0
in fewer bytes), and its doc string says no more than is needed to read it; docs/encoding.md says it at length.
`ReadBits`, which most of them call, turns stored bits into numbers.

onnxruntime 1.31 keeps every intermediate result until folding ends: load time and memory follow the number of tensors
in a body that are as long as the weight (3 in the gap decoders; in the bitmask's 6, and 3 of one byte an entry; in that
of 2 of 4 6; in that of blocks 2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from string import ascii_letters

import onnx
import onnx.parser
from onnx import helper, numpy_helper

from ..errors import EncodeError
from .limits import FIRST_OPSET

DOMAIN = "onnxprune"
DOMAIN_VERSION = 1

READ_BITS = "ReadBits"
"""The function that the others call for what is stored in bits."""

_READ_BITS = "ReadBits (bits, powers) => (numbers)"

_READ_BITS_DOC = "Version 1. Row i: bit i of each number; {powers}: 2^i."

_READ_BITS_BODY = """
  by = Constant <value = uint8[8] {0, 1, 2, 3, 4, 5, 6, 7}> ()
  moved = BitShift <direction = "RIGHT"> (bits, by)
  base = Constant <value = uint8 {2}> ()
  bit = Mod (moved, base)
  rows = Flatten (bit)
  numbers = MatMulInteger (powers, rows)
"""

_PLAIN_READ_BITS_BODY = """
  by = Constant <value = int32[8] {1, 2, 4, 8, 16, 32, 64, 128}> ()
  wide = Cast <to = 6> (bits)
  moved = Div (wide, by)
  base = Constant <value = int32 {2}> ()
  bit = Mod (moved, base)
  rows = Flatten (bit)
  real = Cast <to = 1> (rows)
  each = Cast <to = 1> (powers)
  sum = MatMul (each, real)
  numbers = Cast <to = 6> (sum)
"""
"""The same in operators that more tools compute right, in four times the memory: OpenVINO 2026.4 has other bits after
BitShift and another rank after MatMulInteger.
"""

SIZE = """
  size = ReduceProd (shape)
"""
"""shape → size, int64 [1]."""

ZERO = """
  zero = Sub (size, size)
"""
"""size → 0, int64 [1]."""

STORED = """
  rank = CumSum (keep, back)
  order = Mul (rank, keep)
  got = Gather (values, order)
"""
"""keep (int32, 1 or 0) and back (int32, -1) → order and got: the next value for every 1, values[0] for every 0."""

FILL = """
  fill = Gather (values, zero)
"""
"""values and zero → fill: what is put where nothing else is."""

SCATTER = """
  past = Cast <to = 6> (size)
  place = Mod (at, past)
  empty = Expand (fill, size)
  all = ScatterElements (empty, place, got)
  weight = Reshape (all, shape)
"""
"""at (int32; positions that are not in the tensor are counted from its other end), got and fill → weight."""


def read_bits(opset: int, *, plain: bool = False) -> onnx.FunctionProto:
    """`ReadBits`; see `function_from_text`. `plain`: as it is written out for tools that do not know functions."""
    return function_from_text(_READ_BITS, _PLAIN_READ_BITS_BODY if plain else _READ_BITS_BODY, _READ_BITS_DOC, opset)


def written_out(functions: Mapping[str, onnx.FunctionProto], opset: int) -> dict[str, onnx.FunctionProto]:
    """`functions` as they are written out where they are called: with the plain `ReadBits`."""
    return {**functions, READ_BITS: read_bits(opset, plain=True)}


def add_functions(skeleton: onnx.ModelProto, functions: Mapping[str, onnx.FunctionProto]) -> None:
    """Put decoder functions that are not there into a model: before its own, which may call them, `ReadBits` first."""
    decoders = {each.name: each for each in skeleton.functions if each.domain == DOMAIN}
    missing = {name: function for name, function in functions.items() if name not in decoders}
    if missing:
        others = [each for each in skeleton.functions if each.domain != DOMAIN]
        ordered = sorted((decoders | missing).values(), key=calls_read_bits)
        copies = [onnx.FunctionProto.FromString(each.SerializeToString()) for each in (*ordered, *others)]
        del skeleton.functions[:]
        skeleton.functions.extend(copies)


def with_called(functions: Iterable[onnx.FunctionProto], opset: int) -> dict[str, onnx.FunctionProto]:
    """Name → each of `functions`, behind `ReadBits` where one of them calls it: some tools want to see that first."""
    found = {function.name: function for function in functions}
    if any(calls_read_bits(function) for function in found.values()):
        return {READ_BITS: read_bits(opset)} | found
    return found


def calls_read_bits(function: onnx.FunctionProto) -> bool:
    """Whether a decoder function calls `ReadBits`."""
    return any(node.domain == DOMAIN for node in function.node)


@lru_cache(maxsize=256)
def function_from_text(signature: str, body: str, doc: str, opset: int) -> onnx.FunctionProto:
    """A function of the domain `onnxprune` for models of the ai.onnx `opset`; `doc` has its values' names in braces.

    The same object for the same text, which nobody may change. Raises EncodeError when the opset is older than
    `FIRST_OPSET`.
    """
    if opset < FIRST_OPSET:
        name = signature.split()[0]
        raise EncodeError(
            f"{name}: found ai.onnx opset {opset}, expected {FIRST_OPSET} or newer; convert the model first"
        )
    text = f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>\n{signature}\n{{{body}}}'
    function = onnx.parser.parse_function(text)
    names = {name: _short(number) for number, name in enumerate((*function.input, *function.output))}
    function.doc_string = doc.format_map(names)
    for field in (function.input, function.output):
        field[:] = [names[name] for name in field]
    for node in function.node:
        if not node.domain:
            node.ClearField("domain")  # the parser writes the empty one
        for name in node.output:
            names.setdefault(name, _short(len(names)))
        for field, values in (("input", list(node.input)), ("output", list(node.output))):
            node.ClearField(field)
            getattr(node, field).extend(names[value] for value in values)
        for attribute in node.attribute:
            if attribute.HasField("t"):
                attribute.t.CopyFrom(_smallest(attribute.t))
    if calls_read_bits(function):
        function.opset_import.append(helper.make_opsetid(DOMAIN, DOMAIN_VERSION))
    return function


def _short(number: int) -> str:
    """A name of one letter, or of two."""
    return ascii_letters[number] if number < len(ascii_letters) else ascii_letters[number - len(ascii_letters)] * 2


def _smallest(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """`tensor` without a name, in the field that takes the fewest bytes: numbers of several bytes are short as varints,
    but negative ones are not.
    """
    tensor.ClearField("name")
    raw = numpy_helper.from_array(numpy_helper.to_array(tensor))
    return min(tensor, raw, key=lambda each: each.ByteSize())
