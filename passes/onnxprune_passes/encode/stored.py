"""What each encoded tensor of a model takes as it is stored, from its parts themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ..model import Model
from ..weights import find_weights
from . import coo, protos
from .apply import EncodedTensor
from .bound import bound_nbytes
from .choose import written_out_nbytes
from .coding import Size
from .counts import Counts, count
from .densify import Decoder, decoders, densify, sparse_tensors
from .inline import METADATA


def stored_tensors(model: Model) -> Iterator[EncodedTensor]:
    """Every encoded tensor of `model`, whoever encoded it.

    Raises:
        EncodeError: a stored tensor cannot be decoded.
    """
    dense = densify(model)
    axes = {weight.key: weight.uses[0].out_axis or 0 for weight in find_weights(dense, embeddings=True)}
    inline = any(entry.key == METADATA for entry in model.skeleton.metadata_props)
    for decoder in decoders(model):
        source = dense.initializers.source(decoder.key)
        counts = count(source, axes.get(decoder.key))
        yield _stored(model, decoder, counts, bound_nbytes(source, counts), inline=inline)
    for key in sparse_tensors(model):
        source = dense.initializers.source(key)
        counts = count(source)
        values = counts.kept * counts.dtype.itemsize
        name = key.rpartition("/")[2]
        sizes = {"index_nbytes": 8 * counts.kept, "value_nbytes": values, "nbytes": coo.nbytes(name, counts)}
        yield _tensor(key, name, coo.NAME, counts, bound_nbytes(source, counts), sizes)


def _stored(model: Model, decoder: Decoder, counts: Counts, bound: float, *, inline: bool) -> EncodedTensor:
    coding, whole, parts = decoder.coding, 0, list[Size]()
    for key in decoder.inputs:
        part = model.initializers.source(key)
        numbers = part.array().tolist() if part.dtype == np.int64 else ()
        whole += protos.tensor_nbytes(key.rpartition("/")[2], part.shape, part.dtype, numbers)
        parts.append((part.shape, part.size * part.dtype.itemsize))
    whole += sum(protos.node_nbytes(node) for node in decoder.nodes)
    whole += written_out_nbytes(coding, len(decoder.name.encode()), model.opset) if inline else 0
    index, values = coding.split_nbytes(parts)
    sizes = {"index_nbytes": index, "value_nbytes": values, "nbytes": whole}
    return _tensor(decoder.key, decoder.name, coding.name, counts, bound, sizes)


def _tensor(key: str, name: str, scheme: str, counts: Counts, bound: float, sizes: Mapping[str, int]) -> EncodedTensor:
    return EncodedTensor(
        key=key,
        scheme=scheme,
        shape=counts.shape,
        density=counts.kept / counts.size,
        dense_nbytes=protos.tensor_nbytes(name, counts.shape, counts.dtype),
        index_nbytes=sizes["index_nbytes"],
        value_nbytes=sizes["value_nbytes"],
        bound_nbytes=bound,
        nbytes=sizes["nbytes"],
    )
