"""The parts of encoded tensors in a model under construction: their labels, and the small ones that tensors share."""

from __future__ import annotations

from collections.abc import Collection
from itertools import count
from string import ascii_lowercase

import onnx

from ..arrays import Array, NDArray
from .coding import Coding
from .places import Form, Place, tensor_for
from .scheme import Encoded

_SHARED = ("shape", "powers", "code_powers")
"""Suffixes of parts of a few bytes that are often the same."""


class Parts:
    """Gives out names that nothing in the model has, and gathers the arrays of large parts in `sources`.

    Attributes:
        sources: key of a part → its array, for those whose bytes are not in the skeleton.
    """

    def __init__(self, names: Collection[str]) -> None:
        """`names`: every name in use, in whatever graph or function: a part might hide it, or be hidden."""
        self.sources: dict[str, Array] = {}
        self._names = frozenset(names)
        self._numbers = count()
        self._shared: dict[tuple[str, str, tuple[int, ...], bytes], str] = {}

    def form(self, place: Place, name: str, coding: Coding, encoded: Encoded, *, outside: bool) -> Form:
        """What to put in the place of the dense tensor `name`; `outside`: large parts go to the data file."""
        label = self._label()
        renamed: dict[str, str] = {}
        tensors: list[onnx.TensorProto] = []
        for suffix, part, array in zip(coding.suffixes, coding.part_names(label), encoded.inputs, strict=True):
            known = self._known(place, suffix, part, array)
            if known != part:
                renamed[part] = known
            else:
                tensors.append(tensor_for(part, place.prefix + part, array, self.sources, outside=outside))
        nodes = coding.nodes(label, name)
        for node in nodes:
            node.input[:] = [renamed.get(each, each) for each in node.input]
        return Form(nodes=nodes, tensors=tuple(tensors))

    def _known(self, place: Place, suffix: str, part: str, array: NDArray) -> str:
        """The name of an equal part that is stored in `place` already, else `part`."""
        if suffix not in _SHARED:
            return part
        return self._shared.setdefault((place.prefix, array.dtype.name, array.shape, array.tobytes()), part)

    def _label(self) -> str:
        """The next number that makes no name in use."""
        label = str(next(self._numbers))
        while not self._names.isdisjoint(label + letter for letter in ascii_lowercase):
            label = str(next(self._numbers))
        return label
