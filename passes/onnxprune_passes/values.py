"""Passes that change the values of weights so that they take fewer bytes: `RoundValues`, `QuantizeValues`,
`ShareValues`.

Both are lossy, and both come after pruning and before encoding, which finds what they leave: values that two bytes hold
exactly, or so few distinct ones that a codebook pays. Zeros stay zeros; biases and other constants are not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import ml_dtypes
import numpy as np

from .arrays import NDArray, TensorSource
from .encode.int8 import quantized
from .errors import PassError
from .fixed import fixed_transform
from .model import Model
from .pipeline import Change, Skip, State
from .sharing import MAX_BITS, codebook, shared
from .weights import find_weights

_NARROW = {"f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}


@dataclass(frozen=True)
class RoundValues:
    """Round every float32 weight to the nearest value of a narrower dtype; the weights stay float32.

    Attributes:
        to: `f16` or `bf16`.

    A weight with an entry beyond the range of float16 (65,504) is left alone. Entries too small for it become 0.
    """

    to: Literal["f16", "bf16"]
    name: str = "round-values"

    def __call__(self, state: State) -> State:
        """`state` with rounded weights; the same object when all are exact already."""
        dtype = _NARROW[self.to]

        def rounded(_key: str, source: TensorSource) -> NDArray | str:
            values = source.array()
            with np.errstate(over="ignore", invalid="ignore"):
                found: NDArray = values.astype(dtype).astype(np.float32)
            return found if np.all(np.isfinite(found)) else f"an entry is beyond the range of {dtype.name}"

        return _changed(state, self.name, rounded, f"rounded to {dtype.name}")


@dataclass(frozen=True)
class QuantizeValues:
    """Round every float32 weight to int8 multiples of a scale for each output channel; the weights stay float32.

    Symmetric: the scale of a channel is its largest magnitude ÷ 127, and 0 stays 0 (see `encode.int8`). The channels
    lie along the axis that counts output neurons, axis 0 where that was lost. Entries nearer to 0 than to the scale
    become 0. Encoding then stores whole numbers and scales.
    """

    name: str = "quantize-values"

    def __call__(self, state: State) -> State:
        """`state` with rounded weights; the same object when all are so already."""
        axes = {weight.key: weight.uses[0].out_axis or 0 for weight in find_weights(state.model, embeddings=True)}

        def rounded(key: str, source: TensorSource) -> NDArray | str:
            return quantized(source, axes[key])

        return _changed(state, self.name, rounded, "rounded to int8 with a scale for each channel")


@dataclass(frozen=True)
class ShareValues:
    """Give the kept entries of every float32 weight one of 2^bits - 1 values, the centres of their clusters.

    Weight sharing of Han, Mao, Dally 2016, section 3 (see `sharing`); code 0 is for zeros.

    Attributes:
        bits: width of a code, 1 to 8.
        error: when given, each weight takes the fewest bits, up to `bits`, at which the root of the mean square error
            of its kept entries is at most this share of the root of their mean square.

    Raises:
        PassError: `bits` or `error` is out of range.
    """

    bits: int = 4
    error: float | None = None
    name: str = "share-values"

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= MAX_BITS:
            raise PassError(f"share-values: found {self.bits} bits, expected 1 to {MAX_BITS}")
        if self.error is not None and not 0 < self.error < 1:
            raise PassError(f"share-values: found an error of {self.error}, expected a share between 0 and 1")

    def __call__(self, state: State) -> State:
        """`state` with shared values; the same object when every weight has so few already."""

        def few(_key: str, source: TensorSource) -> NDArray | str:
            try:
                return self._shared(source)
            except PassError as error:
                return str(error)

        return _changed(state, self.name, few, f"shared among {2**self.bits - 1} values each, or fewer")

    def _shared(self, source: TensorSource) -> NDArray:
        for bits in range(1 if self.error else self.bits, self.bits + 1):
            found, _ = shared(source, codebook(source, 2**bits - 1))
            if self.error is None or bits == self.bits or _relative_error(source, found) <= self.error:
                return found
        raise AssertionError("the last width always returns")


def _relative_error(source: TensorSource, found: NDArray) -> float:
    """Root mean square of the difference, as a share of that of `source`; in float64."""
    flat, start, off, own = found.reshape(-1), 0, 0.0, 0.0
    for chunk in source.chunks():
        wide = chunk.astype(np.float64)
        off += float(np.sum((wide - flat[start : start + chunk.size]) ** 2))
        own += float(np.sum(wide**2))
        start += chunk.size
    return float(np.sqrt(off / own)) if own else 0.0


def _changed(state: State, name: str, change: Callable[[str, TensorSource], NDArray | str], what: str) -> State:
    """`state` with `change` applied to its float32 weights; a string is the reason to leave one alone."""
    changes: dict[str, NDArray] = {}
    skips: list[Skip] = []
    for key, reason in _weights(state.model).items():
        if reason:
            skips.append(Skip(name, key, reason))
            continue
        source = state.model.initializers.source(key)
        found = change(key, source)
        if isinstance(found, str):
            skips.append(Skip(name, key, found))
        elif not _equal(source, found):
            changes[key] = found
    if not changes:
        return state.noted(*skips)
    model = state.model.with_initializers(changes)
    return replace(state, model=model).noted(Change(name, f"{len(changes)} weights {what}"), *skips)


def _weights(model: Model) -> dict[str, str]:
    """Key of every float32 weight, embeddings too → why it is left alone, or ""."""
    found = {}
    for weight in find_weights(model, embeddings=True):
        if model.initializers.source(weight.key).dtype == np.float32:
            looks = fixed_transform(model, weight)
            found[weight.key] = f"looks like a fixed transform ({looks})" if looks else ""
    return found


def _equal(source: TensorSource, found: NDArray) -> bool:
    flat, start = found.reshape(-1), 0
    for chunk in source.chunks():
        if not np.array_equal(chunk, flat[start : start + chunk.size]):
            return False
        start += chunk.size
    return True
