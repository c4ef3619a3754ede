"""What onnxruntime computes for single tensors of a model, such as the weights that an encoded file decodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import external_data_helper
from onnxprune_passes.errors import VerifyError

from onnxprune.runtime import Array, open_session, run

_FETCHED = "onnxprune_fetched"


def fetch_tensors(
    path: str | Path, names: Iterable[str], *, optimize: bool, threads: int | None = None
) -> Iterator[tuple[str, Array]]:
    """Compute tensors of the top-level graph that do not depend on its inputs, one after the other.

    For each name a small model is built of the nodes that lead to it, their initializers and the model's local
    functions, and run; so only one tensor's model is in memory beside the file's own content (without its external
    data, of which only what is needed is read).

    Args:
        path: the model file.
        names: initializers or node outputs of the top-level graph.
        optimize: True for onnxruntime's default level of graph optimisation, False for none.
        threads: threads inside one operator, None for onnxruntime's default.

    Yields:
        (name, array) in the order asked for; the array has the tensor's own dtype and shape.

    Raises:
        VerifyError: no such tensor at the top level, it depends on an input, or onnxruntime failed.
        ModelError, NoKernelError: onnxruntime does not load the small model.
    """
    model = onnx.load(str(path), load_external_data=False)
    index = _Index(path, model)
    for name in names:
        small, output = index.model_of(name)
        with open_session(small, optimize=optimize, threads=threads) as session:
            del small
            yield name, run(session, {})[output]


def same_bytes(before: Array, after: Array) -> bool:
    """Whether two arrays have equal dtype, shape and bytes (−0.0 differs from 0.0, a NaN equals itself)."""
    if before.dtype != after.dtype or before.shape != after.shape:
        return False
    if before.dtype.kind == "O":
        return bool(np.array_equal(before, after))
    flat_before, flat_after = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (before, after))
    return bool(np.array_equal(flat_before, flat_after))


class _Index:
    """Where each tensor of a graph comes from."""

    def __init__(self, path: str | Path, model: onnx.ModelProto) -> None:
        self.path = path
        self.model = model
        graph = model.graph
        self.positions = {name: at for at, node in enumerate(graph.node) for name in node.output if name}
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.sparse = {tensor.values.name: tensor for tensor in graph.sparse_initializer}

    def model_of(self, name: str) -> tuple[bytes, str]:
        """A serialised model that computes one tensor, and the name of its output."""
        positions, leaves = self._ancestors(name)
        small = onnx.ModelProto(ir_version=self.model.ir_version)
        small.opset_import.extend(self.model.opset_import)
        small.functions.extend(self.model.functions)
        small.graph.name = "fetch"
        small.graph.node.extend(self.model.graph.node[position] for position in positions)
        small.graph.node.add(op_type="Identity", input=[name], output=[_FETCHED])
        for leaf in leaves:
            if leaf in self.sparse:
                small.graph.sparse_initializer.append(self.sparse[leaf])
            else:
                small.graph.initializer.append(self.initializers[leaf])
        external_data_helper.load_external_data_for_model(small, str(Path(self.path).parent))
        small.graph.output.add(name=_FETCHED)
        return small.SerializeToString(), _FETCHED

    def _ancestors(self, name: str) -> tuple[list[int], list[str]]:
        """Positions of the nodes that lead to a tensor, in graph order, and the initializers they read."""
        positions: set[int] = set()
        leaves: dict[str, None] = {}
        waiting = [name]
        while waiting:
            wanted = waiting.pop()
            if wanted in self.initializers or wanted in self.sparse:
                leaves[wanted] = None
            elif wanted in self.positions:
                position = self.positions[wanted]
                if position not in positions:
                    positions.add(position)
                    waiting.extend(_outer_names(self.model.graph.node[position]))
            elif any(value.name == wanted for value in self.model.graph.input):
                raise VerifyError(f"{self.path}: tensor {name} depends on input {wanted}; fetch only constant tensors")
            else:
                raise VerifyError(
                    f"{self.path}: no tensor {wanted} in the top-level graph (looking for {name}); give the name of an "
                    f"initializer or of a node's output"
                )
        return sorted(positions), list(leaves)


def _outer_names(node: onnx.NodeProto) -> list[str]:
    """Names a node reads from the graph around it, those its bodies read included."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        bodies = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
        for body in bodies:
            own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
            own.update(tensor.values.name for tensor in body.sparse_initializer)
            own.update(name for inner in body.node for name in inner.output)
            names += [name for inner in body.node for name in _outer_names(inner) if name not in own]
            names += [value.name for value in body.output if value.name not in own]
    return names
