"""The self-decoding schemes there are, and the way from a node back to its scheme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import onnx

from ..errors import EncodeError
from .bitmask import Bitmask
from .blocks import Blocks
from .codebook import Codebook
from .coding import Coding
from .full import Full
from .functions import DOMAIN, READ_BITS, read_bits
from .gaps import Gaps
from .indices import Indices
from .int8 import Int8
from .live import SPREADS, live_coding
from .narrow import Narrow
from .patterns import BLOCK_SIZES
from .rice import Rice
from .rice_codes import RiceCodes
from .scheme import Decodable, Scheme, ValueScheme
from .split import Split
from .two_of_four import TwoOfFour

_Some = TypeVar("_Some", bound=Decodable)

SCHEMES: tuple[Scheme, ...] = (
    *(Full(), Bitmask()),
    *(Gaps(2), Gaps(3), Gaps(4), Gaps(6), Gaps(8), Rice(), Indices()),
    TwoOfFour(),
    *(Blocks(size) for size in BLOCK_SIZES),
)
"""Every index scheme, in the order in which equal sizes are decided."""

VALUE_SCHEMES: tuple[ValueScheme, ...] = (
    *(Codebook(bits) for bits in range(1, 9)),
    Narrow("f16"),
    Narrow("bf16"),
    *(Split(bits) for bits in range(1, 5)),
)
"""Every value scheme, in the same order."""

CODINGS: tuple[Coding, ...] = (
    *(
        Coding(index, values)
        for index in SCHEMES
        for values in (None, *VALUE_SCHEMES)
        if values is not None or index != Full()
    ),
    RiceCodes(),
)
"""Every index scheme with the values as they are and with every value scheme (storing all as it is has no sense), and
what does both in one.
"""


SCALED: tuple[Coding, ...] = tuple(Coding(index, scaled=True) for index in SCHEMES)
"""Every index scheme of int8 with a scale for each channel."""

LIVE: tuple[Coding, ...] = tuple(
    live_coding(coding, spread) for spread in SPREADS for coding in CODINGS if coding.index != Full()
)
"""Every coding that leaves zeros out, for tensors with wholly zero rows or columns, and for matrices worth turning."""

_OTHERS: tuple[Decodable, ...] = (*RiceCodes().schemes, Int8(), *SPREADS)
"""What is neither an index scheme nor a value scheme."""

_WIDTH_AT: Mapping[type, tuple[int, int]] = {Gaps: (0, 0), Codebook: (0, 0), Split: (1, 0), Blocks: (2, 1)}
"""Scheme → which input of its node says how wide its codes or blocks are, and at which place of what is known of that
input, where one function serves every width.
"""


def scheme_of(node: onnx.NodeProto, shapes: Sequence[Sequence[int]] = ()) -> Scheme | None:
    """The index scheme that a node undoes; None for a node of another domain, of a value scheme, of both in one, of
    scales, and of what puts slices back.

    `shapes`: of its inputs, which say how wide its codes are; of one that is int64, which is a shape itself, what is in
    it; of one that another node makes nothing. Without them it is a scheme with that function.

    Raises EncodeError for an operator of the domain `onnxprune` that no scheme here has.
    """
    if node.domain != DOMAIN or values_of(node) is not None or any(one.op_type == node.op_type for one in _OTHERS):
        return None
    found = _with_width([scheme for scheme in SCHEMES if scheme.op_type == node.op_type], shapes)
    if found is not None:
        return found
    known = ", ".join(sorted({scheme.op_type for scheme in (*SCHEMES, *VALUE_SCHEMES, *_OTHERS)}))
    raise EncodeError(
        f"node of {list(node.output)}: found {DOMAIN}::{node.op_type}, expected one of {known}; "
        "the file may come from another version of onnxprune"
    )


def function_for(op_type: str, opset: int) -> onnx.FunctionProto:
    """The function of the domain `onnxprune` with this name, for models of this ai.onnx opset. Raises EncodeError."""
    if op_type == READ_BITS:
        return read_bits(opset)
    for scheme in (*SCHEMES, *VALUE_SCHEMES, *_OTHERS):
        if scheme.op_type == op_type:
            return scheme.function(opset)
    raise EncodeError(
        f"{DOMAIN}::{op_type} is no decoder of this version; the file may come from another version of onnxprune"
    )


def values_of(node: onnx.NodeProto, shapes: Sequence[Sequence[int]] = ()) -> ValueScheme | None:
    """The value scheme that a node undoes (`shapes`: see `scheme_of`); None for any other node."""
    if node.domain != DOMAIN:
        return None
    return _with_width([scheme for scheme in VALUE_SCHEMES if scheme.op_type == node.op_type], shapes)


def _with_width(schemes: Sequence[_Some], shapes: Sequence[Sequence[int]]) -> _Some | None:
    """That of `schemes`, which have a function in common, whose width is what `shapes` say; else the first."""
    for scheme in schemes:
        turn, place = _WIDTH_AT.get(type(scheme), (0, 0))
        if turn < len(shapes) and list(shapes[turn][place : place + 1]) == [getattr(scheme, "width", None)]:
            return scheme
    return schemes[0] if schemes else None


def is_scaling(node: onnx.NodeProto) -> bool:
    """Whether a node multiplies an int8 weight by its scales."""
    return node.domain == DOMAIN and node.op_type == Int8().op_type
