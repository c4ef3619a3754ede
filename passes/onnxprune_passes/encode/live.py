"""A coding of the live slices of a tensor alone: rows, or columns, that are wholly zero are left out first.

Positions take fewer bits in what is left; a bit for each row or column says which of them that is. Weights whose inputs
are dead, or whose outputs are, have such slices where shrinking did not take them out of the graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import helper

from ..arrays import Array, NDArray, TensorSource
from ..errors import EncodeError
from . import bits, functions
from .coding import Coding, Size
from .compact import AXES, compacted, live_slices, spread
from .counts import Counts, changed, counts_of
from .functions import DOMAIN
from .limits import MAX_SIZE, Support
from .scheme import Decodable, Encoded, Layout, dims_of, shape_layout, shape_tensor

_BODY = """
  zero = Sub (dim, dim)
  axis = Squeeze (zero)
  one = Constant <value = uint8[1] {1}> ()
  every = onnxprune.ReadBits (live, one)
  keep = Slice (every, zero, dim)
  rank = CumSum (keep, axis)
  order = Mul (rank, keep)
"""

_LAST = (
    "  weight = Gather (part, order)\n",
    "  turned = Transpose (part)\n  weight = Gather <axis = 1> (turned, order)\n",
)

_DOCS = (
    "Version 1. {live} 1: next row of {part}; 0: its first.",
    "Version 1. {live} 1: next column of {part}, turned; 0: its first.",
)

MADE = "w"
"""What stands behind the label in the name of the compact tensor."""


@dataclass(frozen=True)
class Spread:
    """What puts the dead slices along `axis` (0 or 1) back, behind the node that makes the compact tensor."""

    axis: int

    @property
    def name(self) -> str:
        """`rows` or `columns`."""
        return ("rows", "columns")[self.axis]

    @property
    def op_type(self) -> str:
        """`SpreadRows` or `SpreadColumns`."""
        return f"Spread{self.name.capitalize()}"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the names of the node's inputs; the first is made by the node before it."""
        return ("part", "live", "dim")

    def function(self, opset: int) -> onnx.FunctionProto:
        """`SpreadRows` or `SpreadColumns`; see `Decodable.function`."""
        signature = f"{self.op_type} (part, live, dim) => (weight)"
        return functions.function_from_text(signature, _BODY + _LAST[self.axis], _DOCS[self.axis], opset)


SPREADS = tuple(map(Spread, AXES))


@dataclass(frozen=True)
class Live(Coding):
    """`inner` for what `axis` has of slices that are not wholly zero; made by `live_coding`."""

    inner: Coding = field(kw_only=True)
    spread: Spread = field(kw_only=True)

    @property
    def name(self) -> str:
        """`rice+split2+columns` and the like."""
        return f"{self.inner.name}+{self.spread.name}"

    @property
    def schemes(self) -> tuple[Decodable, ...]:
        """Those of `inner`, and what puts the slices back."""
        return (*self.inner.schemes, self.spread)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Those of `inner`, and of the bits and their number."""
        return (*self.inner.suffixes, *self.spread.suffixes[1:])

    def _inner(self, counts: Counts) -> Counts | None:
        """Counts of the compact tensor, whose values are those of the whole; None when there is no such."""
        found = counts.live.get(self.spread.axis)
        return None if found is None else replace(found, values=counts.values)

    def _known(self, counts: Counts) -> Counts:
        found = self._inner(counts)
        if found is None:
            raise changed()
        return found

    def supports(self, counts: Counts, opset: int) -> Support:
        """Tensors with enough dead slices, and what `inner` can store."""
        found = self._inner(counts)
        if found is None:
            return Support(f"too few {self.spread.name} are wholly zero")
        return self.inner.supports(found, opset)

    def layout(self, counts: Counts) -> tuple[Layout, ...]:
        """That of `inner`, the bits uint8 [1, bytes, 1], and how many of them count, int64 [1]."""
        dim = counts.shape[self.spread.axis]
        return (*self.inner.layout(self._known(counts)), bits.rows_layout(dim, 1), shape_layout((dim,)))

    def split_nbytes(self, parts: Sequence[Size]) -> tuple[int, int]:
        """See `Coding.split_nbytes`; the bits say where entries lie."""
        *inner, (_, live), _ = parts
        index, values = self.inner.split_nbytes(inner)
        return index + live, values

    def encode(self, source: TensorSource, counts: Counts | None = None) -> Encoded:
        """Store a tensor; see `Scheme.encode`. Needs a copy of what is not left out."""
        known = self._known(counts_of(source, counts))
        live = live_slices(source, self.spread.axis)
        found = self.inner.encode(Array(compacted(source, live, self.spread.axis)), known)
        inputs = (*found.inputs, bits.pack(live.astype(np.uint8), 1), shape_tensor((live.size,)))
        return Encoded(self.name, inputs, source.shape, source.dtype)

    def decode(self, tensors: Sequence[NDArray]) -> NDArray:
        """The tensor. Raises EncodeError when its parts do not fit together."""
        op_type, axis = self.spread.op_type, self.spread.axis
        if len(tensors) != len(self.suffixes):
            raise EncodeError(f"{op_type}: found {len(tensors)} parts, expected {', '.join(self.suffixes)}")
        *inner, rows, size = tensors
        part, dims = self.inner.decode(inner), dims_of(op_type, size)
        every = bits.unpack(bits.checked(op_type, "live", rows, bits.powers(1)))
        dim = math.prod(dims)
        live = every[:dim].astype(np.bool_)
        at = 0 if axis == 0 else part.ndim - 2
        fits = len(dims) == 1 and every.size == bits.padded(dim) and not np.any(every[dim:])
        if not fits or at < 0 or part.shape[at] != 1 + np.count_nonzero(live):
            raise EncodeError(
                f"{op_type}: {np.count_nonzero(every)} of {every.size} bits, dim {size.tolist()} and a part "
                f"{list(part.shape)} do not fit; the file is damaged"
            )
        if part.size // part.shape[at] * dim > MAX_SIZE:
            raise EncodeError(f"{op_type}: {dim} of {list(part.shape)} are more than {MAX_SIZE} entries")
        return spread(part, live, axis)

    def data_type(self, parts: Sequence[int]) -> int:
        """The ONNX element type of the tensor, from those of its parts."""
        return self.inner.data_type(parts[:-2])

    def nodes(self, label: str, weight: str) -> tuple[onnx.NodeProto, ...]:
        """The nodes that compute a weight from its parts; the last puts the slices back."""
        part = label + MADE
        last = helper.make_node(self.spread.op_type, [part, *self.part_names(label)[-2:]], [weight], domain=DOMAIN)
        return (*self.inner.nodes(label, part), last)


def live_coding(inner: Coding, spread: Spread) -> Live:
    """The coding that stores with `inner` what `spread` puts back in its place."""
    return Live(inner.index, inner.values, inner=inner, spread=spread)


def spread_of(node: onnx.NodeProto) -> Spread | None:
    """What a node that puts slices back is; None for any other."""
    if node.domain != DOMAIN:
        return None
    return next((one for one in SPREADS if one.op_type == node.op_type), None)
