"""A skeleton under construction. A change keeps makers and readers in step, so that the next one sees it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..arrays import NDArray
from ..model import Model
from ..pipeline import State
from ..storage.keys import is_constant
from .blocks import Block, Read, blocks_of

_INITIALIZERS_ALONE = 4
"""The IR version from which an initializer need not be a graph input, and one that is can be set by the caller."""
_NUMBERS: dict[str, tuple[Callable[[onnx.AttributeProto], object], type]] = {
    "value_int": (lambda attribute: attribute.i, np.int64),
    "value_ints": (lambda attribute: list(attribute.ints), np.int64),
    "value_float": (lambda attribute: attribute.f, np.float32),
    "value_floats": (lambda attribute: list(attribute.floats), np.float32),
}


class Draft:
    """The skeleton of `before` to be changed.

    Attributes:
        before: the model as it was.
        blocks: the main graph, then the bodies; a body comes after what holds it.
    """

    def __init__(self, before: Model) -> None:
        self.before = before
        self._skeleton = onnx.ModelProto()
        self._skeleton.CopyFrom(before.skeleton)
        self.blocks = blocks_of(self._skeleton.graph)
        self._defined = [{*block.made, *block.stored} for block in self.blocks]
        annotations = [one for block in self.blocks for one in block.graph.quantization_annotation]
        self._annotated = {one.tensor_name for one in annotations}
        self._annotated |= {entry.value for one in annotations for entry in one.quant_parameter_tensor_names}

    @property
    def main(self) -> Block:
        """The main graph."""
        return self.blocks[0]

    def is_annotated(self, name: str) -> bool:
        """True when a quantization annotation names the value."""
        return name in self._annotated

    def may_be_set(self, block: Block, name: str) -> bool:
        """True when `name` is an initializer that a caller may set, since it is a graph input too."""
        settable = self.before.skeleton.ir_version >= _INITIALIZERS_ALONE
        return settable and name in self.main.given and block.home(name) is self.main

    def key(self, block: Block, name: str) -> str | None:
        """The key of the tensor that `name` shows, an initializer or a Constant; None when it is computed or given."""
        home = block.home(name)
        if home is None:
            return None
        key = home.prefix + name
        stored = name in home.stored or (name in home.made and is_constant(home.made[name]))
        return key if stored and key in self.before.initializers else None

    def constant(self, block: Block, name: str, *, default: bool = False) -> NDArray | None:
        """The values of a constant, whole; None for any other value.

        One that a caller may set counts only when `default`: its values are what it is when no one sets it.
        """
        home = block.home(name)
        if home is None or (self.may_be_set(block, name) and not default):
            return None
        key = self.key(block, name)
        if key is not None:
            return self.before.initializers[key]
        node = home.made.get(name)
        if node is None or not is_constant(node) or not node.attribute or node.attribute[0].name not in _NUMBERS:
            return None
        read, dtype = _NUMBERS[node.attribute[0].name]
        return np.array(read(node.attribute[0]), dtype)

    def remove(self, block: Block, node: onnx.NodeProto) -> None:
        """Take `node`, which holds no bodies, out of `block`."""
        block.nodes[:] = [other for other in block.nodes if other is not node]
        for name in node.output:
            if block.made.get(name) is node:
                del block.made[name]
        for name in node.input:
            _forget(block, name, node)

    def redirect(self, block: Block, old: str, new: str) -> bool:
        """Let every reader of the value `old`, which `block` defines, read `new`; False when one of them cannot.

        One cannot where it is the output of a graph or body, or where `new` means something else.
        """
        home, reads = block.home(new), block.reads.get(old, [])
        if home is None or any(read.node is None or read.block.home(new) is not home for read in reads):
            return False
        _rewrite(reads, new)
        home.reads.setdefault(new, []).extend(block.reads.pop(old, []))
        return True

    def rename(self, block: Block, old: str, new: str) -> bool:
        """Let the node of `block` that makes `old` make it as `new`, which nothing makes now; False when it cannot.

        It cannot where an output has the old name, where a reader knows something else as `new`, or where the node
        holds tensors or bodies, whose keys come from its output.
        """
        node, reads = block.made.get(old), block.reads.get(old, [])
        if node is None or any(one.HasField("t") or one.HasField("g") or one.tensors for one in node.attribute):
            return False
        block.made[new] = node
        if any(read.node is None or read.block.home(new) is not block for read in reads):
            del block.made[new]
            return False
        del block.made[old]
        node.output[list(node.output).index(old)] = new
        _rewrite(reads, new)
        block.reads.setdefault(new, []).extend(block.reads.pop(old, []))
        return True

    def set_input(self, block: Block, node: onnx.NodeProto, index: int, name: str) -> None:
        """Let input `index` of `node` be `name`."""
        if index < len(node.input):
            _forget(block, node.input[index], node, index)
        node.input.extend([""] * (index + 1 - len(node.input)))
        node.input[index] = name
        block.note(name, Read(block, node, index))

    def insert(self, block: Block, node: onnx.NodeProto, before: onnx.NodeProto) -> None:
        """Put a new node into `block`, before another one."""
        block.nodes.insert(next(place for place, other in enumerate(block.nodes) if other is before), node)
        block.made.update(dict.fromkeys((name for name in node.output if name), node))
        block.note_inputs(node)

    def add_constant(self, block: Block, wanted: str, values: NDArray) -> str:
        """Put a new constant into `block`; its name is `wanted` or one like it, and is given back."""
        name = self.free_name(wanted)
        tensor = numpy_helper.from_array(np.ascontiguousarray(values), name)
        old = self.before.skeleton.ir_version < _INITIALIZERS_ALONE
        if old and block is not self.main:
            node = helper.make_node("Constant", [], [name], value=tensor)
            block.nodes.insert(0, node)
            block.made[name] = node
        else:
            block.graph.initializer.append(tensor)
            block.stored.add(name)
            if old:
                block.graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, values.shape))
                block.given.add(name)
        return name

    def free_name(self, wanted: str) -> str:
        """`wanted`, with a number behind it when a block uses the name."""
        name, count = wanted, 1
        while any(block.defines(name) for block in self.blocks):
            count += 1
            name = f"{wanted}_{count}"
        return name

    def drop_unread(self, block: Block, names: Iterable[str], *, keep_inputs: bool = False) -> None:
        """Drop those of `names` (as `block` sees them) that are constants and that nothing reads any more.

        An initializer that is a graph input goes with that; with `keep_inputs` one that a caller may set stays.
        """
        for name in dict.fromkeys(names):
            home = block.home(name)
            if home is None or home.reads.get(name) or self.is_annotated(name):
                continue
            if name in home.stored and not (keep_inputs and self.may_be_set(block, name)):
                drop_initializers(home, {name})
            elif name in home.made and is_constant(home.made[name]):
                self.remove(home, home.made[name])

    @property
    def functions(self) -> list[onnx.FunctionProto]:
        """The model-local functions."""
        return list(self._skeleton.functions)

    def drop_functions(self, names: Collection[tuple[str, str]]) -> None:
        """Drop the functions of these (domain, name)."""
        keep_entries(self._skeleton.functions, [(one.domain, one.name) not in names for one in self.functions])

    def model(self) -> Model:
        """The model as changed, without the value_infos of values that are there no more."""
        for block, defined in zip(reversed(self.blocks), reversed(self._defined), strict=True):
            if len(block.nodes) != len(block.graph.node) or any(map(_differ, block.nodes, block.graph.node)):
                nodes = list(block.nodes)
                del block.graph.node[:]
                block.graph.node.extend(nodes)
            gone = {name for name in defined if not block.defines(name)}
            keep_entries(block.graph.value_info, [one.name not in gone for one in block.graph.value_info])
        return self.before.with_skeleton(self._skeleton)

    def state(self, before: State) -> State:
        """`before` with the model as changed, and the masks of the tensors that are left."""
        model = self.model()
        gone = {key for key in before.masks if key not in model.initializers}
        return replace(before, model=model, masks=before.masks.without(gone) if gone else before.masks)


def drop_initializers(block: Block, names: Collection[str]) -> None:
    """Take the initializers `names` out of `block`, with the graph inputs of their names."""
    graph = block.graph
    keep_entries(graph.initializer, [tensor.name not in names for tensor in graph.initializer])
    keep_entries(graph.sparse_initializer, [one.values.name not in names for one in graph.sparse_initializer])
    keep_entries(graph.input, [value.name not in names for value in graph.input])
    block.stored.difference_update(names)
    block.given.difference_update(names)


def keep_entries(repeated: object, wanted: list[bool]) -> None:
    """Leave only the wanted entries of a repeated protobuf field; the same objects stay."""
    for index in reversed(range(len(wanted))):
        if not wanted[index]:
            del repeated[index]  # type: ignore[attr-defined]


def _differ(one: onnx.NodeProto, other: onnx.NodeProto) -> bool:
    return one is not other


def _rewrite(reads: list[Read], name: str) -> None:
    for read in reads:
        if read.node is not None:
            read.node.input[read.index] = name


def _forget(block: Block, name: str, node: onnx.NodeProto, index: int | None = None) -> None:
    """Strike `node` from the readers of `name`, at one input or at all."""
    home = block.home(name)
    if home is not None:
        home.reads[name] = [
            read for read in home.reads.get(name, []) if read.node is not node or index not in (None, read.index)
        ]
