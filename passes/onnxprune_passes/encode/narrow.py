"""Narrow floats: float32 values that float16 or bfloat16 hold exactly, stored so. Nothing is rounded here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from ..arrays import NDArray, bits_of
from ..errors import EncodeError
from . import functions
from .counts import Counts, changed
from .limits import DTYPES, Support, bfloat16_support
from .scheme import Layout

NARROW: Mapping[str, np.dtype[Any]] = {"f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
"""Short name → dtype."""

_DOC = """Version 1. {narrow} has float32 values, filler first, that DTYPE holds exactly."""


@dataclass(frozen=True)
class Narrow:
    """Two bytes a value; `short`: `f16` or `bf16`."""

    short: str

    @property
    def name(self) -> str:
        """`f16` or `bf16`."""
        return self.short

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the values are stored in."""
        return NARROW[self.short]

    @property
    def op_type(self) -> str:
        """`WidenFloat16` or `WidenBfloat16`."""
        return f"Widen{self.dtype.name.capitalize()}"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The end of the initializer's name."""
        return ("narrow",)

    def supports(self, counts: Counts, opset: int, *, zeros: bool) -> Support:  # noqa: ARG002 - 0 is exact
        """float32 tensors of which every value is exact; bfloat16 from opset 13 on."""
        if self.dtype.name not in counts.values.narrow:
            return Support(f"some value is not exact in {self.dtype.name}, or that was not counted")
        return bfloat16_support(self.dtype, opset)

    def layout(self, counts: Counts, length: int, *, zeros: bool) -> tuple[Layout, ...]:  # noqa: ARG002
        """The values in the narrow dtype."""
        return (Layout(self.dtype, (length,)),)

    def encode(self, values: NDArray, counts: Counts, *, zeros: bool) -> tuple[NDArray, ...]:  # noqa: ARG002
        """`values` in the narrow dtype; see `ValueScheme.encode`."""
        with np.errstate(over="ignore", invalid="ignore"):
            narrow = values.astype(self.dtype)
            if not np.array_equal(bits_of(narrow.astype(np.float32)), bits_of(values)):
                raise changed()
        return (narrow,)

    def data_type(self, parts: Sequence[int]) -> int:  # noqa: ARG002 - whatever they are
        """float32."""
        return DTYPES[np.dtype(np.float32)]

    def decode(self, tensors: Sequence[NDArray]) -> NDArray:
        """The values as float32. Raises EncodeError for another dtype or rank."""
        if len(tensors) != 1 or tensors[0].dtype != self.dtype or tensors[0].ndim != 1:
            found = ", ".join(f"{one.dtype} {list(one.shape)}" for one in tensors)
            raise EncodeError(f"{self.op_type}: found {found}, expected {self.dtype} [n]; the file is damaged")
        wide: NDArray = tensors[0].astype(np.float32)
        return wide

    def function(self, opset: int) -> onnx.FunctionProto:
        """`WidenFloat16` or `WidenBfloat16`; see `Decodable.function`."""
        signature = f"{self.op_type} (narrow) => (values)"
        doc = _DOC.replace("DTYPE", self.dtype.name)
        return functions.function_from_text(signature, "\n  values = Cast <to = 1> (narrow)\n", doc, opset)
