"""The forms that a tensor's values can take, from the most bytes to the fewest, and the model in any choice of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnxprune_passes.arrays import TensorSource
from onnxprune_passes.encode.plan import Encoding
from onnxprune_passes.encode.prices import smallest_nbytes, tensors_to_encode, with_distinct, with_float16
from onnxprune_passes.errors import PassError
from onnxprune_passes.fixed import fixed_transform
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Skip
from onnxprune_passes.sharing import codebooks, shared
from onnxprune_passes.weights import find_weights

from ..runtime import Array

BITS = tuple(range(8, 0, -1))
"""Widths of a code, from the widest."""
_WORTH = 0.002
"""Tensors that take a smaller share than this of all that could be shared are left as they are."""
State = tuple[int, ...]
"""For each tensor the place of its form among its forms."""


@dataclass(frozen=True, eq=False)
class Form:
    """Values of one tensor: `f32` as they are, `f16` rounded, or `shared:BITS` with the codebook `table`."""

    name: str
    nbytes: int
    table: Array | None = None

    @property
    def bits(self) -> int:
        """Width of a code; 16 and 32 of floats."""
        return int(self.name.removeprefix("shared:").removeprefix("f"))

    def of(self, source: TensorSource) -> Array:
        """The tensor in this form, float32."""
        if self.table is not None:
            return shared(source, self.table)[0]
        values: Array = source.array().astype(np.float16).astype(np.float32)
        return values


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor and its forms, each of fewer bytes than the one before; the first is `f32`."""

    key: str
    forms: tuple[Form, ...]
    is_weight: bool = True

    def place_of(self, bits: int) -> int:
        """The last form of at least so many bits."""
        return max(place for place, form in enumerate(self.forms) if place == 0 or form.bits >= bits)


class Forms:
    """What the tensors of a model can be. The model in the last state asked for is kept, and nothing of those before.

    Attributes:
        tensors: float32 weights, and vectors such as biases, that fewer bits make smaller; the largest first.
        skips: those that are left alone, and why.
    """

    def __init__(self, model: Model, encoding: Encoding, by: str, *, keep_inputs: bool, inline: bool) -> None:
        self._model = model
        self._arrays: dict[tuple[int, int], Array] = {}
        self.tensors: tuple[Tensor, ...] = ()
        self.skips: tuple[Skip, ...] = ()
        usable: Encoding = "auto" if encoding in ("coo", "dense") else encoding
        found, skips = [], []
        weights = {weight.key: weight for weight in find_weights(model, embeddings=True)}
        counted = {
            key: counts
            for key, counts in tensors_to_encode(model, keep_inputs=keep_inputs).items()
            if counts.dtype == np.float32 and (key in weights or sum(dim > 1 for dim in counts.shape) == 1)
        }
        prices = {key: smallest_nbytes(key, each, model.opset, usable, inline=inline) for key, each in counted.items()}
        for key, counts in counted.items():
            looks = fixed_transform(model, weights[key]) if key in weights else None
            if looks is not None or prices[key] < _WORTH * sum(prices.values()):
                why = f"looks like a fixed transform ({looks})" if looks else "takes too few bytes to count"
                skips.append(Skip(by, key, why))
                continue
            source = model.initializers.source(key)
            forms = [Form("f32", prices[key])]
            if _fits_float16(source):
                rounded = with_float16(counts)
                forms.append(Form("f16", smallest_nbytes(key, rounded, model.opset, usable, inline=inline)))
            try:
                tables = codebooks(source, [2**bits - 1 for bits in BITS])
            except PassError as error:
                skips.append(Skip(by, key, str(error)))
                continue
            for bits, table in zip(BITS, tables, strict=True):
                few = with_distinct(counts, table.size)
                price = smallest_nbytes(key, few, model.opset, usable, inline=inline)
                forms.append(Form(f"shared:{bits}", price, table))
            forms = [form for place, form in enumerate(forms) if _is_smaller(forms, place)]
            if len(forms) > 1:
                found.append(Tensor(key, tuple(forms), key in weights))
        found.sort(key=lambda tensor: -tensor.forms[0].nbytes)
        self.tensors, self.skips = tuple(found), tuple(skips)

    def model(self, state: State) -> Model:
        """The model with every tensor in its form of `state`."""
        wanted = {(number, place) for number, place in enumerate(state) if place}
        self._arrays = {
            (number, place): self._arrays[number, place]
            if (number, place) in self._arrays
            else self._made(number, place)
            for number, place in sorted(wanted)
        }
        changes = {self.tensors[number].key: array for (number, _), array in self._arrays.items()}
        return self._model.with_initializers(changes) if changes else self._model

    def _made(self, number: int, place: int) -> Array:
        tensor = self.tensors[number]
        return tensor.forms[place].of(self._model.initializers.source(tensor.key))


def _is_smaller(forms: Sequence[Form], place: int) -> bool:
    return all(forms[place].nbytes < form.nbytes for form in forms[:place])


def _fits_float16(source: TensorSource) -> bool:
    most = np.finfo(np.float16).max
    return all(bool(np.all(np.abs(chunk) <= most)) for chunk in source.chunks())
