"""What reports are made of: files, layers, comparisons, accuracies, and the rest. Typed, frozen, written as JSON."""

from __future__ import annotations

import math
import platform
from importlib.metadata import version
from typing import Literal

import msgspec

Level = Literal["off", "default"]
Wanted = Literal["measured", "equal", "within tolerance"]


class Tools(msgspec.Struct, frozen=True):
    """Versions of what made the report."""

    onnxprune: str
    onnx: str
    onnxruntime: str
    numpy: str
    python: str


class File(msgspec.Struct, frozen=True):
    """A model on disk; `bytes` counts its external data."""

    path: str
    bytes: int
    opset: int
    ir_version: int


class Layer(msgspec.Struct, frozen=True):
    """One weight tensor of the input. One that went whole has shape [], no parameters and scheme "removed" after.

    Attributes:
        name: the key of the initializer.
        kind: conv, fc, rnn or embedding.
        op: the operator that reads it first.
        shape_before, shape_after: its dims.
        parameters_before, parameters_after: its entries.
        density_before, density_after: kept / total.
        bytes_before, bytes_after: what it takes in the file, names and decoders not counted.
        scheme: how it is stored: dense, removed, coo, or the name of its coding, such as bitmask or gaps4+codes8.
        index_bytes, value_bytes: of an encoded one, the bytes that say where kept entries lie, and what they are.
        bound_bytes: of an encoded one, the entropy of both: how often entries are kept, and how often each value (or
            exponent of float32) occurs among them.
    """

    name: str
    kind: str
    op: str
    shape_before: tuple[int, ...]
    shape_after: tuple[int, ...]
    parameters_before: int
    parameters_after: int
    density_before: float
    density_after: float
    bytes_before: int
    bytes_after: int
    scheme: str
    index_bytes: int | None = None
    value_bytes: int | None = None
    bound_bytes: float | None = None


class Totals(msgspec.Struct, frozen=True):
    """Sums over the layers, and over the file.

    `compression_factor` = bytes of the input file / bytes of the output file. MACs are of one run with every batch axis
    1, null where shapes are not known before the model runs; 1 MAC = 2 FLOPs; effective ones skip zeros.
    """

    parameters_before: int
    parameters_after: int
    zeros_before: int
    zeros_after: int
    compression_factor: float
    dense_macs_before: int | None
    dense_macs_after: int | None
    effective_macs_before: int | None
    effective_macs_after: int | None


class Note(msgspec.Struct, frozen=True):
    """What a pass did."""

    by: str
    summary: str


class Left(msgspec.Struct, frozen=True):
    """What a pass left alone, and why."""

    by: str
    name: str
    reason: str


class OutputDifference(msgspec.Struct, frozen=True):
    """How far one output moved.

    Attributes:
        output, dtype: its name and element type.
        max_error, mean_error: absolute difference / largest absolute value of the first model's output, over what is
            finite in both; null where they differ in shape or type.
        rounding: how far the first model is from itself, off against default: what it makes of rounding alone.
        equal: every element is the same, NaN equal to NaN.
        agreement: share of the rows whose largest entry is at the same place, for outputs that look like class scores.
    """

    output: str
    dtype: str
    max_error: float | None
    mean_error: float | None
    rounding: float | None
    equal: bool
    agreement: float | None


class Comparison(msgspec.Struct, frozen=True):
    """Two models run in onnxruntime on the same inputs.

    Attributes:
        before, after: which two: of original, pruned, folded, shrunk, rounded, dense (what the encoded one decodes to)
            and encoded, or two files.
        optimizations: onnxruntime's graph optimisations: off, or its default level.
        wanted: what had to hold: nothing (`measured`), `equal`, or `within tolerance`.
        outputs: one entry for each graph output.
        problems: what does not hold, one line each.
    """

    before: str
    after: str
    optimizations: Level
    wanted: Wanted
    outputs: tuple[OutputDifference, ...]
    problems: tuple[str, ...] = ()


class Decoded(msgspec.Struct, frozen=True):
    """The stored tensors, decoded again and compared byte for byte with the pruned ones.

    `by` is `densify`, `onnxruntime (off)` or `onnxruntime (default)`; `different` names the tensors that did not come
    back.
    """

    by: str
    tensors: int
    different: tuple[str, ...]


class Accuracy(msgspec.Struct, frozen=True):
    """Share of the samples whose label is the top-1 of `output`."""

    output: str
    samples: int
    before: float
    after: float


class RoundingCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """One rounding of channel counts, measured.

    Attributes:
        round_to: the rounding.
        same_as: a finer rounding that gives the same shapes, whose numbers these are; null when it was measured itself.
        parameters: entries of the weights.
        dense_macs: null where shapes are not known before the model runs.
        bytes: of the model as a file, every tensor dense.
        pairs: so many times it was run beside the original.
        milliseconds: of one run, the median.
        ratio: its time / the original's in the same pair, the median.
        ratio_low, ratio_high: the 95 % interval of that median.
    """

    round_to: int
    same_as: int | None = None
    parameters: int
    dense_macs: int | None
    bytes: int
    pairs: int
    milliseconds: float
    ratio: float
    ratio_low: float
    ratio_high: float


class Rounding(msgspec.Struct, frozen=True, kw_only=True):
    """What `round_to: auto` measured in onnxruntime, denormals flushed, default optimisations.

    Attributes:
        chosen: the fastest; where the intervals of ratios overlap, that of the smaller file.
        threads: of onnxruntime, inside one operator.
        inputs_from: what was run: one batch.
        milliseconds: of one run of the original.
        candidates: one entry a rounding.
    """

    chosen: int
    threads: int
    inputs_from: str
    milliseconds: float
    candidates: tuple[RoundingCandidate, ...]


class TensorValues(msgspec.Struct, frozen=True, kw_only=True):
    """The values that one tensor took: `f32` as they were, `f16` rounded, `shared:BITS` shared."""

    name: str
    values: str


class SharedValues(msgspec.Struct, frozen=True, kw_only=True):
    """What `values: shared:auto` measured with data, in onnxruntime: the model with and without shared values.

    Attributes:
        data: what was run.
        metric: its name; null without labels.
        samples: labels that it was taken over.
        samples_of_error: how many samples outputs were compared on.
        max_drop: how much worse the metric was allowed to be, in its own unit.
        max_error: how large `error` was allowed to be.
        before, after: the metric of the model as pruned, and with shared values.
        error: root mean square of the difference of an output / root mean square of the output, the largest of all
            outputs; null when it is no number.
        measurements: how many models were measured.
        tensors: what each tensor took, the largest first.
    """

    data: str
    metric: str | None
    samples: int
    samples_of_error: int
    max_drop: float | None
    max_error: float | None
    before: float | None
    after: float | None
    error: float | None
    measurements: int
    tensors: tuple[TensorValues, ...]


def tools() -> Tools:
    """The versions in this environment."""
    names = ("onnxprune", "onnx", "onnxruntime", "numpy")
    versions = {name: version(name) for name in names}
    return Tools(**versions, python=platform.python_version())


def finite(value: float) -> float | None:
    """`value`, or None when it is infinite or NaN, which JSON cannot say."""
    return value if math.isfinite(value) else None
