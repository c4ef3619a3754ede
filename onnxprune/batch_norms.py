"""The BatchNormalizations of a graph: whose statistics may be replaced, in what order, and what comes before them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx
from onnxprune_passes.edit import drop_unread, names_read
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Skip
from onnxprune_passes.storage.keys import first_output

_OPS = ("", "ai.onnx")


def part_before(model: Model, wanted: Mapping[str, str]) -> Model:
    """The part of `model` that computes some values; `wanted`: new output → value."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    graph = skeleton.graph
    needed, nodes = set(wanted.values()), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(_read(node))
            nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(nodes)]
    del graph.node[:]
    graph.node.extend(kept)
    graph.node.extend(onnx.helper.make_node("Identity", [value], [name]) for name, value in wanted.items())
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    del graph.quantization_annotation[:]
    drop_unread(graph)
    return model.with_skeleton(skeleton)


def in_levels(model: Model, nodes: Sequence[onnx.NodeProto]) -> list[list[onnx.NodeProto]]:
    """`nodes` in the order in which they can be measured: none depends on another one of its own level, or of later."""
    chosen = {node.output[0] for node in nodes}
    depth: dict[str, int] = {}
    levels: dict[int, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        before = max((depth.get(name, 0) for name in _read(node)), default=0)
        is_chosen = first_output(node) in chosen
        if is_chosen:
            levels.setdefault(before, []).append(node)
        depth.update(dict.fromkeys(node.output, before + is_chosen))
    return [levels[level] for level in sorted(levels)]


def replaceable(model: Model, by: str) -> tuple[list[onnx.NodeProto], list[Skip]]:
    """The BatchNormalizations of the main graph whose statistics may be replaced, and a Skip for every other one."""
    readers: dict[str, int] = {}
    for name in (name for node in model.graph.node for name in _read(node)):
        readers[name] = readers.get(name, 0) + 1
    outputs = {value.name for value in model.graph.output}
    nodes, skips = [], []
    for node in (node for node in model.graph.node if _is_batchnorm(node)):
        shared = [name for name in node.input[3:5] if readers[name] > 1 or name in outputs]
        flags = {attribute.name: attribute.i for attribute in node.attribute}
        if flags.get("training_mode") or any(node.output[1:]) or not flags.get("spatial", 1):
            skips.append(Skip(by, name_of(node), "it computes statistics of its input, or of each position"))
        elif any(name not in model.initializers for name in node.input[3:5]):
            skips.append(Skip(by, name_of(node), "its statistics are computed"))
        elif shared:
            skips.append(Skip(by, name_of(node), f"its statistics '{shared[0]}' are read elsewhere too"))
        else:
            nodes.append(node)
    inside = [*(body for node in model.graph.node for body in _bodies(node)), *model.skeleton.functions]
    skips += [Skip(by, name_of(node), "it is inside a body or a function") for body in inside for node in _within(body)]
    return nodes, skips


def _within(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """The BatchNormalizations of `graph` and of the bodies below it."""
    for node in graph.node:
        if _is_batchnorm(node):
            yield node
        for body in _bodies(node):
            yield from _within(body)


def _is_batchnorm(node: onnx.NodeProto) -> bool:
    return node.op_type == "BatchNormalization" and node.domain in _OPS


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _read(node: onnx.NodeProto) -> list[str]:
    """The values that `node` and the bodies in it read; an input as often as it is there."""
    return [*node.input, *(name for body in _bodies(node) for name in names_read(body))]


def name_of(node: onnx.NodeProto) -> str:
    """The node's name, or its first output when it has none."""
    return node.name or first_output(node)
