"""The nodes of a model with those of the bodies inside it, in the order in which they run, under names of their own.

A value `x` of a body is called prefix + x, as its tensors are (storage/keys.py), so that no two values share a name and
a node says by its inputs alone which value of which graph it reads. A node that holds bodies comes after their nodes
and reads, behind its own inputs, what its bodies give out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx

from ..edit import names_read
from ..model import Model
from ..storage import keys, stubs


@dataclass(frozen=True, eq=False)
class Placed:
    """A node and where it is.

    Attributes:
        proto: the node, its values under their full names; the file's own in the main graph, unless it holds bodies.
        prefix: what the names of its graph start with, '' for the main graph.
        path: the bodies around it, outermost first: (place of the node that holds it, name of the attribute).
        place: its own place in its graph.
    """

    proto: onnx.NodeProto
    prefix: str
    path: tuple[tuple[int, str], ...]
    place: int

    def of(self, skeleton: onnx.ModelProto) -> onnx.NodeProto:
        """The node itself in `skeleton`, a copy of the model it was listed from."""
        graph = skeleton.graph
        for place, name in self.path:
            graph = next(one.g for one in graph.node[place].attribute if one.name == name)
        node: onnx.NodeProto = graph.node[self.place]
        return node


def graphs(graph: onnx.GraphProto, prefix: str = "") -> Iterator[tuple[str, onnx.GraphProto]]:
    """`graph` and every body below it that is followed, each with what the names in it start with."""
    yield prefix, graph
    for node in graph.node:
        for attribute in node.attribute:
            if _is_body(node, attribute):
                yield from graphs(attribute.g, keys.body_prefix(prefix, node, attribute.name))


def placed(model: onnx.ModelProto) -> tuple[Placed, ...]:
    """Every node of the main graph and of the bodies below it; those of a body before the node that holds it."""
    return tuple(_placed(model.graph, "", {}, ()))


def body_of(model: Model, prefix: str) -> Model:
    """The body whose names start with `prefix` as a model of its own; what it takes from outside has no maker there."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    skeleton.graph.CopyFrom(dict(graphs(model.graph))[prefix])
    return model.with_skeleton(skeleton)


def with_body(model: Model, prefix: str, body: Model) -> Model:
    """`model` with `body`, from `body_of`, in its place again."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    graph = dict(graphs(skeleton.graph))[prefix]
    graph.CopyFrom(body.graph)
    sources = {}
    for key, tensor in keys.tensors_of_graph(graph, prefix):
        store = stubs.store_of(tensor)
        if store is not None:
            sources[key] = body.initializers.source(stubs.stub_key(tensor))
            stubs.set_stub(tensor, key, store)
    return model.with_skeleton(skeleton, sources)


def _placed(
    graph: onnx.GraphProto, prefix: str, outer: Mapping[str, str], path: tuple[tuple[int, str], ...]
) -> Iterator[Placed]:
    """The nodes of `graph`; `outer`: what the names of the graphs around it stand for."""
    names = dict(outer)
    names.update((one.name, prefix + one.name) for one in (*graph.input, *graph.initializer))
    for place, node in enumerate(graph.node):
        given: list[str] = []
        for attribute in node.attribute:
            if _is_body(node, attribute):
                inner = keys.body_prefix(prefix, node, attribute.name)
                own = {one.name for one in (*attribute.g.input, *attribute.g.initializer)}
                own.update(name for below in attribute.g.node for name in below.output)
                yield from _placed(attribute.g, inner, names, (*path, (place, attribute.name)))
                made = (one.name for one in attribute.g.output)
                given += [inner + name if name in own else names.get(name, inner + name) for name in made]
            elif attribute.HasField("g") or attribute.graphs:
                read = {name for body in (attribute.g, *attribute.graphs) for name in names_read(body)}
                given += sorted(names[name] for name in read if name in names)
        yield Placed(_named(node, prefix, names, given), prefix, path, place)
        names.update((name, prefix + name) for name in node.output)


def _is_body(node: onnx.NodeProto, attribute: onnx.AttributeProto) -> bool:
    """True for a body that is followed: one of ONNX's own ops."""
    return attribute.type == onnx.AttributeProto.GRAPH and node.domain in ("", "ai.onnx")


def _named(node: onnx.NodeProto, prefix: str, names: Mapping[str, str], given: list[str]) -> onnx.NodeProto:
    """`node` with full names, and `given` behind its inputs."""
    if not prefix and not given:
        return node
    after = onnx.NodeProto()
    after.CopyFrom(node)
    del after.input[:], after.output[:]
    after.input.extend([name and names.get(name, prefix + name) for name in node.input] + given)
    after.output.extend([name and prefix + name for name in node.output])
    return after
