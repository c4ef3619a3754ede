"""Fold what constant neurons contribute into the biases of the weights that read them, exactly as far as it is right.

bias' = bias + scale × Σ_c value_c × (Σ_window W[out, c, window])
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from ..arrays import CHUNK, NDArray
from ..masks import Masks
from ..model import Model
from ..storage.keys import first_output
from .bodies import placed
from .cut import Cut
from .decide import Decision
from .graph import Graph
from .records import Site
from .rewire import BEHIND, New, rewire
from .slices import BoolArray, cut
from .trace import Trace

_Readers = dict[str, list[onnx.NodeProto | None]]


@dataclass(frozen=True, eq=False)
class Fold:
    """What the node that makes `output` has to add along its neurons.

    Attributes:
        addend: one number a neuron that it makes, float64.
        dtype: that of its weight.
        behind: the shape of `addend` when it is added to the output itself.
        only_behind: the node has no bias.
    """

    output: str
    addend: NDArray
    dtype: np.dtype[Any]
    behind: tuple[int, ...]
    only_behind: bool = False


def folds(trace: Trace, decision: Decision, removal: Cut) -> list[Fold]:
    """What each reader of a constant that goes must add, cut to the neurons that it keeps making."""
    graph, found = trace.graph, []
    for one in trace.sums:
        total = one.values[decision.gone(one.ids)].astype(np.float64).sum() * one.scale
        if total != 0:
            found.append(Fold(first_output(one.node.proto), np.asarray(total), one.values.dtype, (), only_behind=True))
    for site in trace.sites:
        used = decision.gone(site.ids) & ~site.zero & (site.values != 0)
        if not used.any():
            continue
        const = graph.constants[site.node.input(site.index)]
        delta = site.scale * _contribution(graph, site, used)
        keep = removal.keep(site.node.input(site.index)).get(site.out_axis)
        delta = delta if keep is None else delta[keep]
        convolves = site.node.op_type in ("Conv", "FusedConv")
        trailing = len(const.axes) - 2 if convolves else 1 if site.index == 0 else 0
        found.append(Fold(first_output(site.node.proto), delta, const.dtype, (-1,) + (1,) * trailing))
    return found


def _contribution(graph: Graph, site: Site, used: BoolArray) -> NDArray:
    """Σ value × W over the `used` coordinates, one number for each slice of the out axis; float64."""
    const = graph.constants[site.node.input(site.index)]
    shape = const.shape
    total = np.zeros(shape[site.out_axis])
    places = np.flatnonzero(used)
    step = max(1, CHUNK * shape[site.in_axis] // math.prod(shape))
    for start in range(0, places.size, step):
        some = places[start : start + step]
        picked = np.zeros(used.size, np.bool_)
        picked[some] = True
        if const.turned and const.dtype == graph.source(const).dtype:
            block = cut(graph.source(const), {const.axes[site.in_axis]: picked}).array().transpose(const.axes)
        else:
            block = graph.array(const).compress(picked, axis=site.in_axis)
        weights = np.moveaxis(block.astype(np.float64), (site.out_axis, site.in_axis), (0, 1))
        weights = weights.reshape(*weights.shape[:2], -1).sum(axis=2)
        total += weights @ site.values[some].astype(np.float64)
    return total


def fold(model: Model, masks: Masks, found: list[Fold]) -> Model:
    """`model` (already cut) with `found` added: into a bias that only this node has, else a new one, else by an Add."""
    nodes = [one.proto for one in placed(model.skeleton)] if found else []
    readers = _readers(model, nodes)
    changes: dict[str, NDArray] = {}
    new: list[New] = []
    for one in found:
        if one.only_behind:
            new.append(New(one.output, BEHIND, one.addend.astype(one.dtype), "bias"))
            continue
        node, index, name = _slot(model, nodes, readers, one.output)
        vector = index == 2 and node.op_type in ("Conv", "FusedConv")
        after = one.addend if vector else one.addend.reshape(one.behind)
        beta = next((attribute.f for attribute in node.attribute if attribute.name == "beta"), 1.0)
        if name:
            after = model.initializers[name].astype(np.float64) * beta + after
        same = bool(name) and beta == 1.0 and after.shape == model.initializers.source(name).shape
        if same and name not in masks and _private(model, readers, name):
            changes[name] = after.astype(model.initializers.source(name).dtype)
        else:
            new.append(New(first_output(node), index, after.astype(one.dtype), "bias"))
    return rewire(model.with_initializers(changes) if changes else model, new)


def _slot(model: Model, nodes: list[onnx.NodeProto], readers: _Readers, output: str) -> tuple[onnx.NodeProto, int, str]:
    """Where to add: a node, the index of its input (or BEHIND), and the constant that is there now ('': none)."""
    node = next(node for node in nodes if output in node.output)
    if node.op_type in ("MatMul", "FusedMatMul"):
        reader = readers[output][0] if len(readers.get(output, ())) == 1 else None
        if reader is not None and reader.op_type == "Add" and reader.domain in ("", "ai.onnx"):
            other = 1 - list(reader.input).index(output)
            if reader.input[other] in model.initializers:
                return reader, other, reader.input[other]
        return node, BEHIND, ""
    name = node.input[2] if len(node.input) > 2 else ""
    return (node, 2, name) if not name or name in model.initializers else (node, BEHIND, "")


def _readers(model: Model, nodes: list[onnx.NodeProto]) -> _Readers:
    """Value → the nodes that read it, once for each input; None for the graph's output."""
    found: _Readers = {value.name: [None] for value in model.graph.output}
    for node in nodes:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def _private(model: Model, readers: _Readers, name: str) -> bool:
    """True when one node alone reads the tensor `name`, and no one outside can see or set it."""
    return (
        len(readers[name]) == 1
        and readers[name][0] is not None
        and all(value.name != name for value in model.graph.input)
    )
