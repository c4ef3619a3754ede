"""How one tensor is stored: an index scheme, and a value scheme or the values as they are.

In the graph that is the node of the index scheme; its input `values` is an initializer, or comes from the node of the
value scheme before it. A `scaled` tensor is stored so as int8, and one node more multiplies it by its scales. The parts
have a label in common: "3a", "3b" and so on, in the order of `suffixes`. Names that spell out the tensor and the part
would take more bytes than the codes of a small tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import ascii_lowercase

import numpy as np
import onnx
from onnx import helper

from ..arrays import Array, NDArray, TensorSource
from ..errors import EncodeError
from . import protos
from .counts import Counts, Values, changed, counts_of
from .functions import DOMAIN, with_called
from .int8 import Int8, scales_of, scales_shape, to_int8
from .limits import DTYPES, FIRST_BFLOAT16_OPSET, Support
from .scheme import SPARE, VALUES, Decodable, Encoded, Layout, Scheme, ValueScheme

_INT8 = Int8()
_SCALES = _INT8.suffixes[1]
_SHAPE = "shape"

Size = tuple[tuple[int, ...], int]
"""Shape and bytes of a part."""

MADE = "v"
"""What stands behind the label in the name of what one node makes for another; no coding has so many parts."""


@dataclass(frozen=True)
class Coding:
    """Where the kept entries lie (`index`) and what they are (`values`; None: as they are).

    `scaled`: they are int8, with a scale for each channel (see `int8`), and have no value scheme.
    """

    index: Scheme
    values: ValueScheme | None = None
    scaled: bool = False

    @property
    def name(self) -> str:
        """`gaps4`, `gaps4+codes8` and so on: what reports say."""
        if self.scaled:
            return f"{self.index.name}+{_INT8.name}"
        return self.index.name if self.values is None else f"{self.index.name}+{self.values.name}"

    @property
    def schemes(self) -> tuple[Decodable, ...]:
        """What it is made of, in the order of the nodes."""
        if self.scaled:
            return self.index, _INT8
        return (self.index,) if self.values is None else (self.values, self.index)

    def functions(self, opset: int) -> dict[str, onnx.FunctionProto]:
        """Name → each function that the model needs, those that others call first."""
        return with_called((scheme.function(opset) for scheme in self.schemes), opset)

    @property
    def _unscaled(self) -> Coding:
        return Coding(self.index, self.values)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the initializers' names, in the order of `layout`, `encode` and `decode`."""
        if self.scaled:
            return (*self.index.suffixes, _SCALES)
        if self.values is None:
            return self.index.suffixes
        return (*(suffix for suffix in self.index.suffixes if suffix != VALUES), *self.values.suffixes)

    def part_names(self, label: str) -> tuple[str, ...]:
        """Names of the initializers of an encoded weight, in the order of `suffixes`."""
        return tuple(label + letter for letter, _ in zip(ascii_lowercase, self.suffixes, strict=False))

    def _zeros(self, counts: Counts) -> bool:
        if not self.index.stores_zeros:
            return False
        return self.index.layout(counts)[self.index.suffixes.index(VALUES)].shape[0] > 1 + counts.kept

    def supports(self, counts: Counts, opset: int) -> Support:
        """Whether a model of this ai.onnx opset can store such a tensor so."""
        if self.scaled:
            if counts.values.channel_axis is None:
                return Support("entries are no multiples of a scale for each channel, or that was not looked for")
            return self._unscaled.supports(_as_int8(counts), opset)
        support = self.index.supports(counts.shape, counts.dtype, opset)
        if support and self.values is not None:
            return self.values.supports(counts, opset, zeros=self._zeros(counts))
        return support

    def layout(self, counts: Counts) -> tuple[Layout, ...]:
        """What `encode` would build for such a tensor."""
        if self.scaled:
            scales = Layout(np.dtype(np.float32), scales_shape(counts.shape, counts.values.channel_axis or 0))
            return (*self._unscaled.layout(_as_int8(counts)), scales)
        whole = self.index.layout(counts)
        if self.values is None:
            return whole
        place = self.index.suffixes.index(VALUES)
        length = whole[place].shape[0]
        return (*whole[:place], *whole[place + 1 :], *self.values.layout(counts, length, zeros=self._zeros(counts)))

    def index_nbytes(self, counts: Counts) -> int:
        """Bytes of the parts that say where the entries lie; the dims are not counted."""
        return self.split_nbytes(_sizes(self.layout(counts)))[0]

    def value_nbytes(self, counts: Counts) -> int:
        """Bytes of the parts that say what the entries are."""
        return self.split_nbytes(_sizes(self.layout(counts)))[1]

    def split_nbytes(self, parts: Sequence[Size]) -> tuple[int, int]:
        """Bytes that say where entries lie, and bytes that say what they are, of parts in the order of `suffixes`.

        Neither of them says the shape.
        """
        named = list(zip(self.suffixes, parts, strict=True))
        where = set(self.index.suffixes) - {VALUES, _SHAPE}
        index = sum(nbytes for suffix, (_, nbytes) in named if suffix in where)
        return index, sum(nbytes for suffix, (_, nbytes) in named if suffix not in where | {_SHAPE})

    def encode(self, source: TensorSource, counts: Counts | None = None) -> Encoded:
        """Store a tensor; see `Scheme.encode`."""
        counts = counts_of(source, counts)
        if self.scaled:
            return self._encode_scaled(source, counts)
        if self.values is not None:
            support = self.values.supports(counts, FIRST_BFLOAT16_OPSET, zeros=self._zeros(counts))
            if not support:
                raise EncodeError(f"{self.name}: {support.reason}; keep the tensor dense")
        found = self.index.encode(source, counts)
        if self.values is None:
            return found
        place = self.index.suffixes.index(VALUES)
        values = self.values.encode(found.inputs[place], counts, zeros=self._zeros(counts))
        inputs = (*found.inputs[:place], *found.inputs[place + 1 :], *values)
        return Encoded(self.name, inputs, found.shape, found.dtype)

    def _encode_scaled(self, source: TensorSource, counts: Counts) -> Encoded:
        axis = counts.values.channel_axis or 0
        scales = scales_of(source, axis)
        if scales is None:
            raise changed()
        whole = self._unscaled.encode(Array(to_int8(source, scales, axis)), _as_int8(counts))
        inputs = (*whole.inputs, scales.reshape(scales_shape(source.shape, axis)))
        return Encoded(self.name, inputs, source.shape, source.dtype)

    def _decode_scaled(self, tensors: Sequence[NDArray]) -> NDArray:
        if len(tensors) != len(self.suffixes):
            raise EncodeError(f"{_INT8.op_type}: found {len(tensors)} parts, expected {', '.join(self.suffixes)}")
        *parts, scales = tensors
        whole = self._unscaled.decode(parts)
        axes = [axis for axis, dim in enumerate(scales.shape) if dim != 1]
        fits = len(axes) < 2 and scales.ndim == whole.ndim and all(scales.shape[at] == whole.shape[at] for at in axes)
        if whole.dtype != np.int8 or scales.dtype != np.float32 or not fits:
            raise EncodeError(
                f"{_INT8.op_type}: {whole.dtype} {list(whole.shape)} and scales {scales.dtype} {list(scales.shape)} do "
                "not fit; the file is damaged"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            scaled: NDArray = whole.astype(np.float32) * scales
        return scaled

    def decode(self, tensors: Sequence[NDArray]) -> NDArray:
        """The tensor. Raises EncodeError when its parts do not fit together."""
        if self.scaled:
            return self._decode_scaled(tensors)
        if self.values is None:
            return self.index.decode(tensors)
        place = self.index.suffixes.index(VALUES)
        own = len(self.index.suffixes) - 1
        values = self.values.decode(tensors[own:])
        return self.index.decode((*tensors[:place], values, *tensors[place:own]), SPARE)

    def data_type(self, parts: Sequence[int]) -> int:
        """The ONNX element type of the tensor, from those of its parts."""
        if self.scaled:
            return DTYPES[np.dtype(np.float32)]
        own = len(self.index.suffixes) - 1
        return parts[self.index.suffixes.index(VALUES)] if self.values is None else self.values.data_type(parts[own:])

    def nodes(self, label: str, weight: str) -> tuple[onnx.NodeProto, ...]:
        """The nodes that compute a weight from its parts; they have no names, the last has the weight as output."""
        if self.scaled:
            return self._scaled_nodes(label, weight)
        names = dict(zip(self.suffixes, self.part_names(label), strict=True))
        made = label + MADE
        index = [names.get(suffix, made) for suffix in self.index.suffixes]
        last = helper.make_node(self.index.op_type, index, [weight], domain=DOMAIN)
        if self.values is None:
            return (last,)
        values = [names[suffix] for suffix in self.values.suffixes]
        return helper.make_node(self.values.op_type, values, [made], domain=DOMAIN), last

    def _scaled_nodes(self, label: str, weight: str) -> tuple[onnx.NodeProto, ...]:
        names = dict(zip(self.suffixes, self.part_names(label), strict=True))
        made = label + MADE
        index = [names[suffix] for suffix in self.index.suffixes]
        return (
            helper.make_node(self.index.op_type, index, [made], domain=DOMAIN),
            helper.make_node(_INT8.op_type, [made, names[_SCALES]], [weight], domain=DOMAIN),
        )

    def initializers(self, label: str, encoded: Encoded) -> tuple[onnx.TensorProto, ...]:
        """The initializers of an encoded weight."""
        return tuple(map(protos.tensor_proto, self.part_names(label), encoded.inputs))

    def nbytes(self, label: str, weight: str, counts: Counts) -> int:
        """Bytes that such a weight adds to a graph: its initializers and its nodes."""
        parts = zip(self.part_names(label), self.layout(counts), strict=True)
        tensors = sum(protos.tensor_nbytes(name, part.shape, part.dtype, part.numbers) for name, part in parts)
        return tensors + sum(protos.node_nbytes(node) for node in self.nodes(label, weight))


def _as_int8(counts: Counts) -> Counts:
    """`counts` of the int8 tensor behind one that is scaled."""
    return replace(counts, dtype=np.dtype(np.int8), values=Values())


def _sizes(parts: Sequence[Layout]) -> list[Size]:
    return [(part.shape, math.prod(part.shape) * part.dtype.itemsize) for part in parts]
