"""Codebook: a table of the distinct values, and a code of few bits for each value.

Weight sharing in the sense of Deep Compression (Han, Mao, Dally 2016, section 3) makes such tensors; any other with few
distinct values is stored so too. Nothing is rounded here: the table is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from ..arrays import CHUNK, NDArray, bits_of
from ..errors import EncodeError
from . import bits, functions
from .counts import Counts, changed
from .limits import DTYPES, Support, bfloat16_support
from .scheme import Layout

_SIGNATURE = "ReadCodes (codes, code_powers, codebook) => (values)"
_BYTES_SIGNATURE = "ReadBytes (codes, codebook) => (values)"

_DOC = """Version 1. {codes} ({code_powers}) into {codebook}, filler first."""
_BYTES_DOC = """Version 1. {codes} into {codebook}, filler first."""

_BODY = """
  index = onnxprune.ReadBits (codes, code_powers)
  values = Gather (codebook, index)
"""
_BYTES_BODY = """
  index = Cast <to = 6> (codes)
  values = Gather (codebook, index)
"""
"""Bytes need no unpacking, which would take eight times their memory when a model is loaded."""


@dataclass(frozen=True)
class Codebook:
    """Codes of `width` bits, 1 to 8, into a table of at most 2^width values."""

    width: int

    @property
    def name(self) -> str:
        """`codes4` or the like."""
        return f"codes{self.width}"

    @property
    def op_type(self) -> str:
        """`ReadCodes`; of 8 bits `ReadBytes`."""
        return "ReadBytes" if self.width == 8 else "ReadCodes"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the initializers' names, in the node's input order."""
        return ("codes", "codebook") if self.width == 8 else ("codes", "code_powers", "codebook")

    def supports(self, counts: Counts, opset: int, *, zeros: bool) -> Support:  # noqa: ARG002 - 0 is in the table
        """Every tensor with at most 2^width - 1 distinct values beside 0."""
        distinct = counts.values.distinct
        if distinct is None or len(distinct) >= 1 << self.width:
            found = "not counted, or more than 256" if distinct is None else f"{len(distinct)}"
            return Support(f"distinct values beside 0: {found}; codes of {self.width} bits reach {2**self.width - 1}")
        return bfloat16_support(counts.dtype, opset)

    def layout(self, counts: Counts, length: int, *, zeros: bool) -> tuple[Layout, ...]:  # noqa: ARG002
        """The codes uint8 [bits, bytes, 1] (of 8 bits [codes]), `powers`, and the codebook [1 + distinct values]."""
        table = Layout(counts.dtype, (1 + len(counts.values.distinct or ()),))
        if self.width == 8:
            return Layout(np.dtype(np.uint8), (length,)), table
        return bits.rows_layout(length, self.width), bits.powers_layout(self.width), table

    def encode(self, values: NDArray, counts: Counts, *, zeros: bool) -> tuple[NDArray, ...]:  # noqa: ARG002
        """The codes and the codebook of `values`; see `ValueScheme.encode`."""
        patterns = bits_of(values)
        table = np.array([0, *(counts.values.distinct or ())], patterns.dtype)
        codes = np.empty(patterns.size, np.uint8)
        for start in range(0, patterns.size, CHUNK):
            run = patterns[start : start + CHUNK]
            found = np.minimum(np.searchsorted(table, run), table.size - 1)
            if not np.array_equal(table[found], run):
                raise changed()
            codes[start : start + CHUNK] = found
        if self.width == 8:
            return codes, table.view(values.dtype)
        return bits.pack(codes, self.width), bits.powers(self.width), table.view(values.dtype)

    def data_type(self, parts: Sequence[int]) -> int:
        """That of the codebook."""
        return parts[-1]

    def decode(self, tensors: Sequence[NDArray]) -> NDArray:
        """The values, from (codes, powers, codebook). Raises EncodeError when they do not fit together."""
        if len(tensors) != len(self.suffixes):
            raise EncodeError(f"{self.op_type}: found {len(tensors)} inputs, expected {', '.join(self.suffixes)}")
        stored, table = tensors[0], tensors[-1]
        if self.width == 8 and (stored.dtype != np.uint8 or stored.ndim != 1):
            raise EncodeError(f"{self.op_type}: codes are {stored.dtype} {list(stored.shape)}, expected uint8 [n]")
        if table.dtype not in DTYPES or table.ndim != 1 or not 1 <= table.size <= 1 << self.width:
            raise EncodeError(f"{self.op_type}: codebook is {table.dtype} {list(table.shape)}; the file is damaged")
        codes = stored if self.width == 8 else bits.unpack(bits.checked(self.op_type, "codes", stored, tensors[1]))
        if codes.size and int(codes.max()) >= table.size:
            raise EncodeError(f"{self.op_type}: code {int(codes.max())} is not in a table of {table.size} values")
        return table[codes]

    def function(self, opset: int) -> onnx.FunctionProto:
        """`ReadCodes` or `ReadBytes`; see `Decodable.function`."""
        if self.width == 8:
            return functions.function_from_text(_BYTES_SIGNATURE, _BYTES_BODY, _BYTES_DOC, opset)
        return functions.function_from_text(_SIGNATURE, _BODY, _DOC, opset)
