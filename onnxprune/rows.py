"""The tables of a report: one row for each weight, and the sums."""

from __future__ import annotations

from collections.abc import Iterable

from onnxprune_passes.encode import EncodedTensor

from .analysis import WeightAnalysis
from .macs import total
from .records import Layer, Totals

Weights = tuple[WeightAnalysis, ...]


def layers_from(before: Weights, after: Weights, encoded: Iterable[EncodedTensor]) -> tuple[Layer, ...]:
    """A row for each weight of the input, matched by name with the shrunk model's and with how that one is stored."""
    rest = {weight.name: weight for weight in after}
    stored = {tensor.key: tensor for tensor in encoded}
    return tuple(_layer(weight, rest.get(weight.name), stored.get(weight.name)) for weight in before)


def _layer(before: WeightAnalysis, after: WeightAnalysis | None, stored: EncodedTensor | None) -> Layer:
    if after is None:
        scheme, nbytes = "removed", 0
    elif stored is None:
        scheme, nbytes = "dense", after.bytes
    else:
        scheme, nbytes = stored.scheme, stored.nbytes
    return Layer(
        name=before.name,
        kind=before.kind,
        op=before.ops[0],
        shape_before=before.shape,
        shape_after=after.shape if after else (),
        parameters_before=before.parameters,
        parameters_after=after.parameters if after else 0,
        density_before=before.density,
        density_after=after.density if after else 0.0,
        bytes_before=before.bytes,
        bytes_after=nbytes,
        scheme=scheme,
        index_bytes=stored.index_nbytes if stored else None,
        value_bytes=stored.value_nbytes if stored else None,
        bound_bytes=stored.bound_nbytes if stored else None,
    )


def totals_from(before: Weights, after: Weights, bytes_before: int, bytes_after: int) -> Totals:
    """Sums over the weights of the input and of the output, and the two files' sizes against each other."""
    return Totals(
        parameters_before=sum(weight.parameters for weight in before),
        parameters_after=sum(weight.parameters for weight in after),
        zeros_before=sum(weight.zeros for weight in before),
        zeros_after=sum(weight.zeros for weight in after),
        compression_factor=bytes_before / bytes_after,
        dense_macs_before=total(weight.dense_macs for weight in before),
        dense_macs_after=total(weight.dense_macs for weight in after),
        effective_macs_before=total(weight.effective_macs for weight in before),
        effective_macs_after=total(weight.effective_macs for weight in after),
    )
