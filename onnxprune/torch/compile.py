"""From a model's graph to a draft: names resolved, functions unfolded, operators looked up.

A call of a model-local function, or of an operator that is only a function of others, is replaced by the function's
nodes. An operator whose body depends on the types of its inputs is unfolded when these are known (`late.py`). All
operators that nobody knows are named at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto
from onnxprune_passes.errors import ModelError
from onnxprune_passes.model import Initializers, Model
from onnxprune_passes.storage import keys

from onnxprune.torch import late, lower, registry
from onnxprune.torch.draft import ABSENT, UNREAD, Constant, Draft, DraftStep
from onnxprune.torch.dtypes import tensor_from_array
from onnxprune.torch.node import Node, RunState
from onnxprune.torch.plan import Plan
from onnxprune.torch.scope import Scope, opsets_of, plain_domain

MISSING = registry.Entry(1, lambda *_: None)
"""Stands where an operator has no implementation, until it is known whether its outputs are needed."""


class Compiler:
    """Makes the draft of a model; `values` has the step and output index behind every value's key."""

    def __init__(self, model: Model, state: RunState) -> None:
        self.state = state
        self.values: dict[str, tuple[DraftStep, int]] = {}
        self.inputs: dict[str, int] = {}
        self._model = model
        self._functions = {(plain_domain(one.domain), one.name, one.overload): one for one in model.skeleton.functions}
        self._calls: list[tuple[str, str]] = []

    def main(self, outputs: Sequence[str]) -> Draft:
        """The draft of the main graph that makes `outputs`, and no more.

        Raises:
            ModelError: operators without an implementation (all of them named), a value that nothing makes, or an
                opset below 7.
        """
        opsets = opsets_of(self._model.skeleton.opset_import)
        if opsets.get("", registry.OLDEST_OPSET) < registry.OLDEST_OPSET:
            raise ModelError(
                f"the model imports opset {opsets['']}, the torch adapter knows opset {registry.OLDEST_OPSET} and "
                "newer: convert it first (onnx.version_converter)"
            )
        draft = Draft()
        scope = Scope(draft, "", opsets)
        self._open(scope, self._model.graph)
        self.inputs = {value.name: scope.names[value.name] for value in self._formal(self._model.graph)}
        self._nodes(scope, self._model.graph.node)
        draft.outputs.extend(scope.resolve(name) for name in outputs)
        lower.keep_live(draft)
        _refuse_missing(draft)
        return draft

    def function(
        self, function: onnx.FunctionProto, attributes: Iterable[AttributeProto], opsets: Mapping[str, int]
    ) -> Draft:
        """The draft of a function's body on its own; outputs that it does not make are absent. Raises as `main`."""
        scope = Scope(Draft(), "", {**opsets, **opsets_of(function.opset_import)}, keyed=False)
        scope.attributes = {one.name: (one, "") for one in attributes}
        for name in function.input:
            scope.names[name] = scope.draft.new_slot()
            scope.draft.inputs.append(scope.names[name])
        self._nodes(scope, function.node)
        scope.draft.outputs.extend(scope.names.get(name, ABSENT) for name in function.output)
        lower.keep_live(scope.draft)
        _refuse_missing(scope.draft)
        return scope.draft

    def _formal(self, graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
        stored = {tensor.name for tensor in graph.initializer} | {one.values.name for one in graph.sparse_initializer}
        return [value for value in graph.input if value.name not in stored]

    def _open(self, scope: Scope, graph: onnx.GraphProto) -> None:
        for tensor in graph.initializer:
            key = scope.prefix + tensor.name if scope.keyed else None
            scope.names[tensor.name] = scope.draft.constant(Constant(key, tensor))
        for sparse in graph.sparse_initializer:
            scope.names[sparse.values.name] = scope.draft.constant(Constant(None, sparse))
        for value in self._formal(graph):
            scope.names[value.name] = scope.draft.new_slot()
            scope.draft.inputs.append(scope.names[value.name])

    def _nodes(self, scope: Scope, nodes: Iterable[onnx.NodeProto]) -> None:
        for proto in nodes:
            self._node(scope, proto)

    def _node(self, scope: Scope, proto: onnx.NodeProto) -> None:
        domain = plain_domain(proto.domain)
        if keys.is_constant(proto):
            scope.names[proto.output[0]] = self._constant(scope, proto)
            return
        opset = scope.opsets.get(domain, 1)
        entry = registry.lookup(domain, proto.op_type, opset)
        local = self._functions.get((domain, proto.op_type, proto.overload))
        if local is not None and not (entry is not None and entry.own):
            self._call(scope, proto, local, keys.function_prefix(local))
        elif entry is not None:
            self._step(scope, proto, entry, opset)
        elif (schema := late.function_schema(domain, proto.op_type, opset)) is not None:
            if schema.has_function:
                body = late.function_body(schema, opset)
                self._call(scope, proto, late.with_defaults(body, schema), None)
            else:
                function = late.LateFunction(schema, self._bound(scope, proto), scope.opsets, unfolded)
                self._step(scope, proto, registry.Entry(schema.since_version, function), opset)
        else:
            self._step(scope, proto, MISSING, opset)

    def _bound(self, scope: Scope, proto: onnx.NodeProto) -> onnx.NodeProto:
        """The node with references to a function's attributes replaced by what the function was called with."""
        if not any(one.ref_attr_name for one in proto.attribute):
            return proto
        bound = onnx.NodeProto()
        bound.CopyFrom(proto)
        del bound.attribute[:]
        for name, (attribute, _) in self._attributes(scope, proto).items():
            own = bound.attribute.add()
            own.CopyFrom(attribute)
            own.name = name
        return bound

    def _attributes(self, scope: Scope, proto: onnx.NodeProto) -> dict[str, tuple[AttributeProto, str]]:
        """Name → attribute and the key of the tensor it may hold, references to a function's attributes resolved."""
        found: dict[str, tuple[AttributeProto, str]] = {}
        prefix = scope.prefix + keys.first_output(proto)
        for attribute in proto.attribute:
            if attribute.ref_attr_name:
                if attribute.ref_attr_name in scope.attributes:
                    found[attribute.name] = scope.attributes[attribute.ref_attr_name]
            else:
                whole = keys.is_constant(proto) and attribute.name == "value"
                found[attribute.name] = attribute, prefix + ("" if whole else f".{attribute.name}")
        return found

    def _constant(self, scope: Scope, proto: onnx.NodeProto) -> int:
        for name, (attribute, key) in self._attributes(scope, proto).items():
            if name == "value":
                return scope.draft.constant(Constant(key if scope.keyed else None, attribute.t))
            if name == "sparse_value":
                return scope.draft.constant(Constant(None, attribute.sparse_tensor))
            if name.startswith("value_float"):
                values = attribute.f if name == "value_float" else list(attribute.floats)
                return scope.draft.constant(Constant(None, np.array(values, np.float32)))
            if name.startswith("value_int"):
                values = attribute.i if name == "value_int" else list(attribute.ints)
                return scope.draft.constant(Constant(None, np.array(values, np.int64)))
        node = Node("", "Constant of strings", proto.output[0], scope.opsets.get("", 1), {}, 1, self.state)
        step = DraftStep(node, MISSING, [], [scope.draft.new_slot()])
        scope.draft.steps.append(step)
        return step.outputs[0]

    def _step(self, scope: Scope, proto: onnx.NodeProto, entry: registry.Entry, opset: int) -> None:
        attributes: dict[str, Any] = {}
        bodies: dict[str, Draft] = {}
        for name, (attribute, key) in self._attributes(scope, proto).items():
            if attribute.HasField("g"):
                bodies[name] = self._body(scope, attribute.g, f"{key}/")
            else:
                attributes[name] = self._decoded(attribute, key)
        name = proto.name or keys.first_output(proto)
        node = Node(plain_domain(proto.domain), proto.op_type, name, opset, attributes, len(proto.output), self.state)
        step = DraftStep(node, entry, [scope.resolve(one) for one in proto.input], [], bodies)
        node.n_formal = len(step.inputs)
        for index, output in enumerate(proto.output):
            slot = scope.draft.new_slot() if output else UNREAD
            step.outputs.append(slot)
            if output:
                scope.names[output] = slot
                if scope.keyed:
                    self.values.setdefault(scope.prefix + output, (step, index))
        scope.draft.steps.append(step)

    def _body(self, scope: Scope, graph: onnx.GraphProto, prefix: str) -> Draft:
        inner = Scope(Draft(scope.draft), prefix, scope.opsets, scope, {}, scope.attributes, scope.keyed)
        self._open(inner, graph)
        self._nodes(inner, graph.node)
        inner.draft.outputs.extend(inner.resolve(value.name) for value in graph.output)
        return inner.draft

    def _decoded(self, attribute: AttributeProto, key: str) -> Any:
        """The attribute as Python numbers, str, lists of them, or a tensor."""
        if attribute.HasField("t"):
            array = Constant(key, attribute.t).load(self._model)
            return tensor_from_array(np.array(array), f"attribute {key!r}")
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if attribute.type == AttributeProto.STRINGS:
            return [one.decode("utf-8", "replace") for one in value]
        return list(value) if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS) else value

    def _call(self, scope: Scope, proto: onnx.NodeProto, function: onnx.FunctionProto, prefix: str | None) -> None:
        """Put the nodes of a function in the place of its call."""
        call = (plain_domain(function.domain), function.name)
        if call in self._calls:
            raise ModelError(f"the function {call[0]}::{call[1]} calls itself: the model is not valid")
        opsets = {**scope.opsets, **opsets_of(function.opset_import)}
        inner = Scope(scope.draft, prefix or "", opsets, keyed=prefix is not None)
        given = self._attributes(scope, proto)
        inner.attributes = {
            one.name: (one, f"{inner.prefix}@{one.name}") for one in function.attribute_proto if one.name not in given
        } | given
        for index, name in enumerate(function.input):
            inner.names[name] = scope.resolve(proto.input[index]) if index < len(proto.input) else ABSENT
        self._calls.append(call)
        self._nodes(inner, function.node)
        self._calls.pop()
        for outer_name, name in zip(proto.output, function.output, strict=False):
            if outer_name:
                scope.names[outer_name] = inner.resolve(name)


def _refuse_missing(draft: Draft) -> None:
    """Raise ModelError naming every operator of a live draft that has no implementation."""
    nodes = [step.node for one in draft.drafts() for step in one.steps if step.entry is MISSING]
    if not nodes:
        return
    counts = Counter((node.domain or "ai.onnx", node.op_type, node.opset) for node in nodes)
    listed = ", ".join(
        f"{domain}::{op_type} (opset {opset}, {count} node{'s' if count > 1 else ''})"
        for (domain, op_type, opset), count in sorted(counts.items())
    )
    raise ModelError(
        f"the torch adapter has no implementation of {listed}: give one for each with "
        "onnxprune.torch.register_op, or choose outputs that do not need them"
    )


def unfolded(
    function: onnx.FunctionProto, attributes: Iterable[AttributeProto], opsets: Mapping[str, int], state: RunState
) -> Plan:
    """A plan of a function's body on its own, attributes bound. Raises ModelError as `Compiler.main`."""
    nothing = Model(onnx.ModelProto(), Initializers({}))
    return lower.plan_of_function(Compiler(nothing, state).function(function, attributes, opsets))
