"""Positions in Rice codes and values by a codebook, in one node: what shared weights mostly take.

A code belongs to each number of `low` (see `rice`), so both lie in the same rows of bits, one below the other, and
`ReadBits` makes both of them at once: `powers` has two rows, 1, 2, 4, ... for the rests and 0, then 0 and 1, 2, 4, ...
for the codes. The same bits as `rice` with a codebook, with a node, an initializer and a function fewer. Rests may have
no bits at all here: then the code is as long as a bitmask, the least where most entries are kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper

from ..arrays import NDArray, TensorSource
from ..errors import EncodeError
from . import bits, functions
from .codebook import Codebook
from .coding import Coding, Size
from .counts import REST_BITS, Counts, counts_of
from .functions import DOMAIN
from .limits import FIRST_BFLOAT16_OPSET, Support, require_encodable
from .rice import Rice, coded, decoded, layout_of
from .scheme import SPARE, Decodable, Encoded, Layout, Scheme, ValueScheme, shape_tensor

_SIGNATURE = "DecodeRiceCodes (high, low, powers, codebook, shape) => (weight)"

_DOC = """Version 1. From the end, gaps in a Rice code: {high} unary, {low} ({powers}) rest and code in {codebook}."""

_BODY = """
  back = Constant <value = int32 {-1}> ()
  first = Sub (back, back)
  one = Constant <value = uint8[1] {1}> ()
  keep = onnxprune.ReadBits (high, one)
  rank = CumSum (keep, back)
  order = Mul (rank, keep)
  both = onnxprune.ReadBits (low, powers)
  each = Gather <axis = 1> (both, order)
  rest = Gather (each, first)
  step = Sub (back, rest)
  at = CumSum (step, back)
  code = Gather (each, back)
  got = Gather (codebook, code)
  fill = Gather (codebook, first)
"""

_RICE = Rice()


@dataclass(frozen=True)
class _Function:
    """`DecodeRiceCodes`."""

    name: str = "ricecodes"
    op_type: str = "DecodeRiceCodes"
    suffixes: tuple[str, ...] = ("high", "low", "powers", "codebook", "shape")

    def function(self, opset: int) -> onnx.FunctionProto:
        """See `Decodable.function`."""
        body = functions.SIZE + _BODY + functions.SCATTER
        return functions.function_from_text(_SIGNATURE, body, _DOC, opset)


_FUNCTION = _Function()


@dataclass(frozen=True)
class RiceCodes(Coding):
    """Rice codes, and codes into a codebook of as many bits as it needs, 1 to 7."""

    index: Scheme = field(default=_RICE, init=False)
    values: ValueScheme | None = field(default=None, init=False)
    scaled: bool = field(default=False, init=False)

    @property
    def name(self) -> str:
        """`ricecodes`."""
        return _FUNCTION.name

    @property
    def schemes(self) -> tuple[Decodable, ...]:
        """One for both."""
        return (_FUNCTION,)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the initializers' names, in the order of `layout`, `encode` and `decode`."""
        return _FUNCTION.suffixes

    def supports(self, counts: Counts, opset: int) -> Support:
        """Tensors with at most 127 distinct values beside 0."""
        codebook = Codebook(min(7, _width(counts)))
        return _RICE.supports(counts.shape, counts.dtype, opset) and codebook.supports(counts, opset, zeros=False)

    def layout(self, counts: Counts) -> tuple[Layout, ...]:
        """High uint8 [1, bytes, 1], low uint8 [rests and codes, bytes, 1], powers uint8 [2, rests and codes], the
        codebook [1 + distinct values], shape int64 [rank].
        """
        return min((_layout(counts, rests) for rests in REST_BITS), key=_nbytes)

    def split_nbytes(self, parts: Sequence[Size]) -> tuple[int, int]:
        """See `Coding.split_nbytes`; of `low` the last rows are codes."""
        (_, high), ((rows, *_), low), (_, powers), ((entries,), table), _ = parts
        codes = low * max(1, (entries - 1).bit_length()) // rows
        return high + low - codes + powers, codes + table

    def encode(self, source: TensorSource, counts: Counts | None = None) -> Encoded:
        """Store a tensor; see `Scheme.encode`."""
        counts = counts_of(source, counts)
        if not (support := self.supports(counts, FIRST_BFLOAT16_OPSET)):
            raise EncodeError(f"{self.name}: {support.reason}; keep the tensor dense")
        require_encodable(self.name, source)
        width = _width(counts)
        rests = self.layout(counts)[1].shape[0] - width
        high, low, values = coded(source, counts, rests)
        codes, _, table = Codebook(width).encode(values, counts, zeros=False)
        inputs = (high, np.concatenate((low, codes)), _powers(rests, width), table, shape_tensor(source.shape))
        return Encoded(self.name, inputs, source.shape, source.dtype)

    def decode(self, tensors: Sequence[NDArray]) -> NDArray:
        """The tensor, from (high, low, powers, codebook, shape). Raises EncodeError when they do not fit together."""
        if len(tensors) != len(self.suffixes):
            raise EncodeError(f"{_FUNCTION.op_type}: found {len(tensors)} inputs, expected {', '.join(self.suffixes)}")
        high, low, powers, table, shape = tensors
        known = powers.dtype == np.uint8 and powers.ndim == 2 and len(powers) == 2
        width = int(np.count_nonzero(powers[1])) if known else 0
        rests = low.shape[0] - width if low.ndim == 3 else 0
        if not (1 <= width <= 7 and 0 <= rests <= 8 and np.array_equal(powers, _powers(rests, width))):
            found = f"powers {list(powers.shape)} and rows {list(low.shape)}"
            raise EncodeError(f"{_FUNCTION.op_type}: {found} do not fit; the file is damaged")
        try:
            values = Codebook(width).decode((low[rests:], bits.powers(width), table))
        except EncodeError as error:
            raise EncodeError(f"{_FUNCTION.op_type}, as {error}") from error
        return decoded(_FUNCTION.op_type, high, bits.unpack(low[:rests]), values, shape, SPARE)

    def data_type(self, parts: Sequence[int]) -> int:
        """That of the codebook."""
        return parts[self.suffixes.index("codebook")]

    def nodes(self, label: str, weight: str) -> tuple[onnx.NodeProto, ...]:
        """The node that computes a weight from its parts; it has no name."""
        return (helper.make_node(_FUNCTION.op_type, self.part_names(label), [weight], domain=DOMAIN),)


def is_rice_codes(node: onnx.NodeProto) -> bool:
    """Whether a node is one of this coding."""
    return node.domain == DOMAIN and node.op_type == _FUNCTION.op_type


def _width(counts: Counts) -> int:
    """Bits of a code into the codebook, entry 0 for the filler; 1 at least."""
    return max(1, len(counts.values.distinct or ()).bit_length())


def _layout(counts: Counts, rests: int) -> tuple[Layout, ...]:
    """What encoding with rests of `rests` bits would build."""
    high, low, _, values, shape = layout_of(counts, rests)
    codes, _, table = Codebook(_width(counts)).layout(counts, values.shape[0], zeros=False)
    rows = rests + codes.shape[0]
    return high, Layout(low.dtype, (rows, *low.shape[1:])), Layout(low.dtype, (2, rows)), table, shape


def _nbytes(layout: tuple[Layout, ...]) -> int:
    return sum(math.prod(part.shape) * part.dtype.itemsize for part in layout)


def _powers(rests: int, codes: int) -> NDArray:
    """What each row of `low` stands for in the two numbers; uint8 [2, rests + codes]."""
    powers = np.zeros((2, rests + codes), np.uint8)
    powers[0, :rests] = bits.powers(rests)
    powers[1, rests:] = bits.powers(codes)
    return powers
