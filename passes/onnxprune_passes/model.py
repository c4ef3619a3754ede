"""`Model`: the skeleton of an ONNX graph beside the numbers of its tensors.

The skeleton is a ModelProto whose big tensors are stubs (name, dims, type; no bytes). The numbers are in
`initializers`, a read-only mapping from a tensor's key (storage/keys.py) to an array, shared between models and
never copied unless changed. A Model is never changed: `with_initializers` and `edit` give new ones. Do not write to
`skeleton`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from onnx import numpy_helper

from .arrays import Array, Masked, NDArray, as_source
from .errors import ModelError
from .storage import keys, stubs


class Initializers(Mapping[str, NDArray]):
    """Read-only mapping from a tensor's key to its values.

    `initializers[key]` is a read-only ndarray of the whole tensor (computed when the tensor is masked);
    `initializers.source(key)` reads it in chunks without ever holding it whole.
    """

    def __init__(self, sources: Mapping[str, Array | Masked]) -> None:
        self._sources = dict(sources)

    def __getitem__(self, key: str) -> NDArray:
        return self._sources[key].array()

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def __contains__(self, key: object) -> bool:
        return key in self._sources

    def source(self, key: str) -> Array | Masked:
        """The chunked source of the tensor `key`. Raises KeyError."""
        return self._sources[key]

    def with_sources(self, changes: Mapping[str, Array | Masked]) -> Initializers:
        """A mapping with `changes` in place of or beside what is here; everything else is shared."""
        return Initializers({**self._sources, **changes})


@dataclass(frozen=True, eq=False)
class Model:
    """An ONNX model.

    Attributes:
        skeleton: the graph, big tensors as stubs. Read it, do not write to it.
        initializers: key → values, for every tensor of whole-byte numbers (initializers, Constant values, tensor
            attributes).
        path: the file it was loaded from; None when it was not.
    """

    skeleton: onnx.ModelProto
    initializers: Initializers
    path: Path | None = None

    @property
    def graph(self) -> onnx.GraphProto:
        """The main graph of the skeleton."""
        return self.skeleton.graph

    @property
    def opset(self) -> int:
        """The version of the ai.onnx operators that the main graph imports; 1 when the file names none."""
        return next((entry.version for entry in self.skeleton.opset_import if entry.domain in ("", "ai.onnx")), 1)

    def with_initializers(self, changes: Mapping[str, NDArray | Array | Masked]) -> Model:
        """A model with new values under some keys; dims follow the new shapes, dtypes must stay.

        An initializer that is a graph input or output too, or has a value_info, keeps those entries in step.

        Raises:
            ModelError: a key is unknown, or an array has another dtype than the tensor.
        """
        sources = {key: as_source(value) for key, value in changes.items()}
        for key, source in sources.items():
            if key not in self.initializers:
                raise ModelError(f"tensor {key!r} is not in the model, so its values cannot be replaced")
            old = self.initializers.source(key)
            if old.dtype != source.dtype:
                raise ModelError(f"tensor {key!r} is {old.dtype}, its new values are {source.dtype}: cast them first")
        moved = {key for key, source in sources.items() if source.shape != self.initializers.source(key).shape}
        skeleton = self.skeleton
        written = moved | {
            key for key, tensor in keys.tensors(skeleton) if key in sources and stubs.store_of(tensor) is None
        }
        if written:
            skeleton = onnx.ModelProto()
            skeleton.CopyFrom(self.skeleton)
            for key, tensor in keys.tensors(skeleton):
                if key in written:
                    _write(tensor, key, sources[key])
            resize_values(skeleton.graph, {key: sources[key].shape for key in moved})
        return replace(self, skeleton=skeleton, initializers=self.initializers.with_sources(sources))

    def with_skeleton(self, skeleton: onnx.ModelProto, sources: Mapping[str, Array | Masked] | None = None) -> Model:
        """A model on `skeleton` (which it takes over), tensors found by their stubs in `sources` and in this model.

        Tensors of the new skeleton that hold their own bytes are taken in: big ones become stubs.

        Raises:
            ModelError: a stub points to a tensor that neither holds.
        """
        known = self.initializers if sources is None else self.initializers.with_sources(sources)
        return replace(self, skeleton=skeleton, initializers=absorb(skeleton, known))


def absorb(skeleton: onnx.ModelProto, known: Initializers) -> Initializers:
    """The sources of every tensor in `skeleton`, stubs looked up in `known`; big tensors with bytes become stubs in
    place.

    Raises:
        ModelError: two tensors have the same key, a stub points nowhere, or a tensor's values do not fit its dims.
    """
    sources: dict[str, Array | Masked] = {}
    for key, tensor in keys.tensors(skeleton):
        if key in sources:
            raise ModelError(f"two tensors are named {key!r}, so that either could be meant: rename one")
        if stubs.store_of(tensor) is not None:
            pointed = stubs.stub_key(tensor)
            if pointed not in known:
                raise ModelError(
                    f"tensor {key!r} has no values: its stub points to {pointed!r}, which is not in the model"
                )
            sources[key] = known.source(pointed)
            if pointed != key:
                stubs.set_stub(tensor, key, stubs.store_of(tensor) or "raw")
            continue
        if stubs.dtype_from_onnx(tensor.data_type) is None:
            continue
        try:
            sources[key] = as_source(numpy_helper.to_array(tensor))
        except (ValueError, TypeError) as error:
            raise ModelError(
                f"the values of tensor {key!r} do not fit its dims {list(tensor.dims)}: the file is damaged, export it "
                "again"
            ) from error
        if not stubs.keeps_values(tensor.data_type, sources[key].size) and tensor.HasField("raw_data"):
            stubs.set_stub(tensor, key, "raw")
    return Initializers(sources)


def resize_values(graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]], prefix: str = "") -> None:
    """Write the dims of `shapes` (tensor key → shape) into the inputs, outputs and value_info of `graph`, whose keys
    start with `prefix`, and of the bodies below it.
    """
    for value in (*graph.input, *graph.output, *graph.value_info):
        if prefix + value.name in shapes and value.type.tensor_type.HasField("shape"):
            del value.type.tensor_type.shape.dim[:]
            for size in shapes[prefix + value.name]:
                value.type.tensor_type.shape.dim.add(dim_value=size)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                resize_values(attribute.g, shapes, keys.body_prefix(prefix, node, attribute.name))


def _write(tensor: onnx.TensorProto, key: str, source: Array | Masked) -> None:
    """Bring `tensor` of a skeleton under construction in step with `source`: dims, and its bytes or its stub."""
    store = stubs.store_of(tensor) or "raw"
    del tensor.dims[:]
    tensor.dims.extend(source.shape)
    stubs.set_stub(tensor, key, store)
    if stubs.keeps_values(tensor.data_type, source.size):
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = source.array().tobytes()
