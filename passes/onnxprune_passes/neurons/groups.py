"""`NeuronGroup`: what can be said of the neurons that one weight makes, without changing anything."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ..model import Model
from .decide import Decision, decide
from .graph import Graph
from .records import Producer
from .rules import REGISTRY
from .slices import ZeroSlices
from .trace import Trace


@dataclass(frozen=True)
class NeuronGroup:
    """The neurons that one weight makes, and what is coupled to them.

    Attributes:
        name: the key of the weight.
        axes: every axis of a tensor that is cut with them: "fc1.weight axis 0", the weight's own first.
        size: how many neurons there are.
        input_dead: how many are made by nothing but zeros.
        output_dead: how many are read by weights, by zeros only.
        pinned_by: what keeps some of them whatever their weights are, in the order of the graph.
    """

    name: str
    axes: tuple[str, ...]
    size: int
    input_dead: int
    output_dead: int
    pinned_by: tuple[str, ...]


def traced(model: Model, zeros: ZeroSlices | None = None) -> Trace:
    """A finished walk over the graph. Raises ModelError when its shapes cannot be inferred."""
    trace = Trace(Graph(model), zeros or ZeroSlices())
    trace.run(REGISTRY)
    return trace


def find_groups(model: Model) -> tuple[NeuronGroup, ...]:
    """The neurons of `model`, one group for each weight that makes some, in the order of the graph; nothing is changed.

    Raises:
        ModelError: the shapes of the graph cannot be inferred.
    """
    trace = traced(model)
    decision = decide(trace)
    return tuple(_group(trace, decision, producer) for producer in producers(trace))


def producers(trace: Trace) -> list[Producer]:
    """The weights' axes that make neurons, each once."""
    return list({(one.key, one.axis): one for one in reversed(trace.producers)}.values())[::-1]


def _group(trace: Trace, decision: Decision, producer: Producer) -> NeuronGroup:
    has_id = producer.ids >= 0
    own = np.unique(decision.label[producer.ids[has_id]])
    axes = [f"{producer.key} axis {producer.axis}"]
    for (key, axis), ids in trace.bases.items():
        if np.isin(decision.label[ids[ids >= 0]], own).any():
            axes.append(f"{key} axis {axis}")
    pinned = [pin.reason for pin in trace.pins if np.isin(decision.label[pin.ids], own).any()]
    return NeuronGroup(
        name=producer.key,
        axes=tuple(dict.fromkeys(axes)),
        size=producer.zero.size,
        input_dead=int(producer.zero.sum()),
        output_dead=int(decision.output_dead(producer.ids).sum()),
        pinned_by=tuple(dict.fromkeys(pinned)),
    )


def in_the_way(trace: Trace, decision: Decision) -> list[tuple[str, int, str]]:
    """Dead neurons that stay: the key of the weight that makes them, how many, and why; one entry for each reason."""
    found: list[tuple[str, int, str]] = []
    for producer in producers(trace):
        dead = producer.zero | decision.output_dead(producer.ids)
        stays = dead & (producer.ids >= 0) & ~decision.gone(producer.ids)
        why = Counter(reason for reason in decision.reasons_of(producer.ids[stays]) if reason)
        found.extend((producer.key, count, reason) for reason, count in why.items())
    return found
