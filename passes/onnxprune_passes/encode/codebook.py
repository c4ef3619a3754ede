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
from . import functions, packing
from .counts import Counts, changed
from .limits import DTYPES, Support, bfloat16_support
from .scheme import Layout

_SIGNATURE = "ReadCodes{bits} (codes, codebook) => (values)"

_DOC = """Version 1. codes ({packing}) into codebook, the filler first."""

_BODY = """
  index = Cast <to = 6> ({codes})
  values = Gather (codebook, index)
"""


@dataclass(frozen=True)
class Codebook:
    """Codes of `bits` bits, 1 to 8, into a table of at most 2^bits values."""

    bits: int

    @property
    def name(self) -> str:
        """`codes4` or the like."""
        return f"codes{self.bits}"

    @property
    def op_type(self) -> str:
        """`ReadCodes4` or the like."""
        return f"ReadCodes{self.bits}"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the initializers' names, in the node's input order."""
        return ("codes", "codebook")

    def supports(self, counts: Counts, opset: int, *, zeros: bool) -> Support:  # noqa: ARG002 - 0 is in the table
        """Every tensor with at most 2^bits - 1 distinct values beside 0."""
        distinct = counts.values.distinct
        if distinct is None or len(distinct) >= 1 << self.bits:
            found = "not counted, or more than 256" if distinct is None else f"{len(distinct)}"
            return Support(f"distinct values beside 0: {found}; codes of {self.bits} bits reach {2**self.bits - 1}")
        return bfloat16_support(counts.dtype, opset)

    def layout(self, counts: Counts, length: int, *, zeros: bool) -> tuple[Layout, ...]:  # noqa: ARG002
        """The codes uint8 [bytes] and the codebook [1 + distinct values]."""
        entries = 1 + len(counts.values.distinct or ())
        codes = Layout(np.dtype(np.uint8), (packing.packed_nbytes(length, self.bits),))
        return codes, Layout(counts.dtype, (entries,))

    def encode(self, values: NDArray, counts: Counts, *, zeros: bool) -> tuple[NDArray, ...]:  # noqa: ARG002
        """The codes and the codebook of `values`; see `ValueScheme.encode`."""
        bits = bits_of(values)
        table = np.array([0, *(counts.values.distinct or ())], bits.dtype)
        codes = np.empty(bits.size, np.uint8)
        for start in range(0, bits.size, CHUNK):
            run = bits[start : start + CHUNK]
            found = np.minimum(np.searchsorted(table, run), table.size - 1)
            if not np.array_equal(table[found], run):
                raise changed()
            codes[start : start + CHUNK] = found
        return packing.pack(codes, self.bits), table.view(values.dtype)

    def data_type(self, parts: Sequence[int]) -> int:
        """That of the codebook."""
        return parts[1]

    def decode(self, tensors: Sequence[NDArray]) -> NDArray:
        """The values, from (codes, codebook). Raises EncodeError when they do not fit together."""
        if len(tensors) != 2:
            raise EncodeError(f"{self.op_type}: found {len(tensors)} inputs, expected 2 (codes, codebook)")
        packed, table = tensors
        if packed.dtype != np.uint8 or packed.ndim != 1 or not packing.fits(packed, self.bits):
            raise EncodeError(f"{self.op_type}: codes are {packed.dtype} {list(packed.shape)}, expected uint8 [n]")
        if table.dtype not in DTYPES or table.ndim != 1 or not 1 <= table.size <= 1 << self.bits:
            raise EncodeError(f"{self.op_type}: codebook is {table.dtype} {list(table.shape)}; the file is damaged")
        codes = packing.unpack(packed, self.bits)
        if codes.size and int(codes.max()) >= table.size:
            raise EncodeError(f"{self.op_type}: code {int(codes.max())} is not in a table of {table.size} values")
        return table[codes]

    def function(self, opset: int) -> onnx.FunctionProto:
        """`ReadCodes4` or the like; see `Decodable.function`."""
        packed = self.bits != 8
        text = packing.unpack_text("codes", "code", self.bits) if packed else ""
        body = text + _BODY.format(codes="code" if packed else "codes")
        doc = _DOC.format(packing=packing.describe(self.bits))
        return functions.function_from_text(_SIGNATURE.format(bits=self.bits), body, doc, opset)
