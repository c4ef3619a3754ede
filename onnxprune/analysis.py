"""What is in a model, read only: weights with their densities and MACs, groups of neurons, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from onnxprune_passes.channel_groups import find_channels
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.encode import densify
from onnxprune_passes.errors import ModelError
from onnxprune_passes.fixed import fixed_transform
from onnxprune_passes.model import Model
from onnxprune_passes.neurons.groups import NeuronGroup, find_groups
from onnxprune_passes.pipeline import Change, Skip, State
from onnxprune_passes.storage import load
from onnxprune_passes.weights import Weight, find_weights

from .files import file_of
from .layers.costs import LayerTable
from .macs import BATCH_NOTE, NodeShapes, total
from .records import File, Left, finite
from .report import SCHEMA_VERSION
from .stored import StoredTensor, stored
from .zeros import count_zeros


class WeightAnalysis(msgspec.Struct, frozen=True):
    """One weight tensor.

    Attributes:
        name: the key of the initializer.
        kind: conv, fc, rnn or embedding.
        ops: the operators that read it.
        nodes: the nodes that read it, in the same order.
        shape, dtype: as stored.
        parameters, zeros: entries, and how many of them are zero (of a quantised weight: the zero point).
        bytes: of the dense tensor.
        dense_macs, effective_macs: of one run, and the same without the zeros; None where shapes are not known.
    """

    name: str
    kind: str
    ops: tuple[str, ...]
    nodes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    parameters: int
    zeros: int
    bytes: int
    dense_macs: int | None
    effective_macs: int | None

    @property
    def density(self) -> float:
        """Kept / total; 1 for an empty tensor."""
        return 1 - self.zeros / self.parameters if self.parameters else 1.0


class GroupAnalysis(msgspec.Struct, frozen=True):
    """Neurons that one weight makes, and what is coupled to them.

    Attributes:
        name: the weight.
        neurons: how many it makes.
        input_dead: those whose incoming weights are all zero.
        output_dead: those that nothing reads.
        coupled: the axes of initializers that shrink with them.
        pinned_by: what keeps them where they are; empty when nothing does.
    """

    name: str
    neurons: int
    input_dead: int
    output_dead: int
    coupled: tuple[str, ...]
    pinned_by: tuple[str, ...]


class ChannelAnalysis(msgspec.Struct, frozen=True):
    """Channels that lie along the same axes, so that each may go in place of another.

    Attributes:
        path: the axes in the order of the graph: "conv1.weight out 64 -> bn1 -> conv2.weight in".
        channels: how many.
        kinds: what they are: "head" alone, or the kinds of the weights that make them: conv, fc, rnn, embedding.
        norms: the smallest, the quartiles and the largest L2 norm of a channel, over all weights that make or read it;
            null where one is infinite or NaN.
        pinned_by: what keeps them whatever their weights are; null when nothing does.
    """

    path: str
    channels: int
    kinds: tuple[str, ...]
    norms: tuple[float | None, ...]
    pinned_by: str | None


class Analysis(msgspec.Struct, frozen=True, kw_only=True):
    """What `analyze` finds.

    Attributes:
        schema_version: of this format.
        file: the file; null when the model came from elsewhere.
        weights: in file order of their first use.
        groups: the neurons, by the weight that makes them; empty where shapes cannot be inferred.
        channels: the coupled groups that `PruneChannels` chooses from, in the order of the graph; empty likewise.
        removable: the dead neurons that `RemoveDeadNeurons` would take out now, in words; null when there are none.
        refused: what no pass would touch, and why.
        parameters, zeros: sums over the weights.
        dense_macs, effective_macs: the same; null where one is not known.
        other_parameters: entries of all other tensors (biases, statistics, constants).
        encoded: tensor -> the scheme that it is stored by, for those that are not dense.
        stored: how they are stored, in the same order: bytes, bounds, and gzip and zstd where that was asked for.
        notes: what the numbers rest on.
        layers: what each layer costs, where that was asked for; see `onnxprune.layers.layer_table`.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    file: File | None = None
    weights: tuple[WeightAnalysis, ...]
    groups: tuple[GroupAnalysis, ...]
    channels: tuple[ChannelAnalysis, ...]
    removable: str | None
    refused: tuple[Left, ...]
    parameters: int
    zeros: int
    dense_macs: int | None
    effective_macs: int | None
    other_parameters: int
    encoded: dict[str, str]
    stored: tuple[StoredTensor, ...] = ()
    notes: tuple[str, ...]
    layers: LayerTable | None = None


def analyze(model: Model, *, compare: bool = False) -> Analysis:
    """What is in `model`; nothing is changed. An encoded model is looked at as the dense one that it stands for.

    `compare`: say what gzip and zstd make of the encoded tensors too, dense; slow for large ones.

    Raises:
        EncodeError: a stored tensor cannot be decoded.
    """
    dense = densify(model)
    weights = find_weights(dense, embeddings=True)
    names = {weight.key for weight in weights}
    log = RemoveDeadNeurons()(State(dense)).log
    sources = (dense.initializers.source(key) for key in dense.initializers if key not in names)
    rows = weight_rows(dense)
    found = stored(model, compare=compare)
    return Analysis(
        weights=rows,
        groups=_groups(dense),
        channels=_channels(dense),
        removable=next((entry.summary for entry in log if isinstance(entry, Change)), None),
        refused=(
            *_refused_weights(dense, weights),
            *(Left(entry.by, entry.name, entry.reason) for entry in log if isinstance(entry, Skip)),
        ),
        parameters=sum(row.parameters for row in rows),
        zeros=sum(row.zeros for row in rows),
        dense_macs=total(row.dense_macs for row in rows),
        effective_macs=total(row.effective_macs for row in rows),
        other_parameters=sum(source.size for source in sources),
        encoded={one.name: one.scheme for one in found},
        stored=found,
        notes=(BATCH_NOTE,),
    )


def analyze_file(path: str | Path, *, compare: bool = False) -> Analysis:
    """`analyze` of the model in a file. Raises ModelError when it cannot be read, and as `analyze`."""
    model = load(path)
    return msgspec.structs.replace(analyze(model, compare=compare), file=file_of(model, path))


def _groups(model: Model) -> tuple[GroupAnalysis, ...]:
    """The groups; none where shapes cannot be inferred, which `RemoveDeadNeurons` says as a Skip."""
    try:
        return tuple(_group(found) for found in find_groups(model))
    except ModelError:
        return ()


def _group(found: NeuronGroup) -> GroupAnalysis:
    return GroupAnalysis(found.name, found.size, found.input_dead, found.output_dead, found.axes, found.pinned_by)


def _channels(model: Model) -> tuple[ChannelAnalysis, ...]:
    try:
        return tuple(
            ChannelAnalysis(one.path, one.size, one.kinds, tuple(map(finite, one.norms)), one.pinned_by)
            for one in find_channels(model)
        )
    except ModelError:
        return ()


def _refused_weights(model: Model, weights: tuple[Weight, ...]) -> list[Left]:
    refused = []
    for weight in weights:
        if not _is_finite(model, weight):
            refused.append(Left("magnitude-prune", weight.key, "holds NaN or infinity"))
        elif (looks := fixed_transform(model, weight)) is not None:
            refused.append(Left("magnitude-prune", weight.key, f"looks like a fixed transform ({looks})"))
    return refused


def _is_finite(model: Model, weight: Weight) -> bool:
    if weight.quantised:
        return True
    chunks = model.initializers.source(weight.key).chunks()
    return all(bool(np.isfinite(chunk).all()) for chunk in chunks)


def weight_rows(model: Model) -> tuple[WeightAnalysis, ...]:
    """One row for each weight of `model`, embedding tables included."""
    shapes = NodeShapes(model)
    return tuple(_row(model, weight, shapes.macs(weight)) for weight in find_weights(model, embeddings=True))


def _row(model: Model, weight: Weight, macs: int | None) -> WeightAnalysis:
    zeros = count_zeros(model, weight)
    density = 1 - zeros / weight.size if weight.size else 1.0
    return WeightAnalysis(
        name=weight.key,
        kind=weight.kind,
        ops=tuple(use.op_type for use in weight.uses),
        nodes=tuple(use.node for use in weight.uses),
        shape=weight.shape,
        dtype=weight.dtype.name,
        parameters=weight.size,
        zeros=zeros,
        bytes=weight.size * weight.dtype.itemsize,
        dense_macs=macs,
        effective_macs=None if macs is None else round(macs * density),
    )
