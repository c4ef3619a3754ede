"""Operators that ONNX defines as functions of others, used where they have no implementation of their own.

Some of these functions depend on the types of the inputs, which are known when the node runs for the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnx
import torch
from onnx import defs
from onnxprune_passes.errors import ModelError

from onnxprune.torch import dtypes

if TYPE_CHECKING:
    from onnxprune.torch.node import Node, RunState
    from onnxprune.torch.plan import Plan

Schema = Any
"""An onnx.defs.OpSchema, whose type information lacks what is needed here."""
Unfold = Callable[[onnx.FunctionProto, Iterable[onnx.AttributeProto], Mapping[str, int], "RunState"], "Plan"]
"""Function, bound attributes, the opsets of what calls it, how the module runs → the function as a plan."""


def function_schema(domain: str, op_type: str, opset: int) -> Schema | None:
    """The schema of an operator that ONNX defines as a function; None when it does not."""
    try:
        schema: Schema = defs.get_schema(op_type, opset, domain)
    except defs.SchemaError:
        return None
    return schema if schema.has_function or schema.has_context_dependent_function else None


def function_body(schema: Schema, opset: int) -> onnx.FunctionProto:
    """The function of a schema, in the newest form that is not above `opset`."""
    version = max((one for one in schema.function_opset_versions if one <= opset), default=None)
    if version is None:
        whole: onnx.FunctionProto = schema.function_body
        return whole
    body: onnx.FunctionProto = onnx.FunctionProto.FromString(schema.get_function_with_opset_version(version))
    return body


def with_defaults(function: onnx.FunctionProto, schema: Schema) -> onnx.FunctionProto:
    """The function with the schema's default for every attribute that has one."""
    whole = onnx.FunctionProto()
    whole.CopyFrom(function)
    known = {one.name for one in whole.attribute_proto}
    for name, attribute in schema.attributes.items():
        if attribute.default_value.type and name not in known:
            whole.attribute_proto.add().CopyFrom(attribute.default_value)
    return whole


class LateFunction:
    """Runs a node by its schema's function; makes one plan for each combination of input types and ranks."""

    def __init__(self, schema: Schema, proto: onnx.NodeProto, opsets: Mapping[str, int], unfold: Unfold) -> None:
        self._name, self._domain, self._opset = schema.name, schema.domain, opsets.get(schema.domain, 1)
        self._opsets = dict(opsets)
        self._proto = proto.SerializeToString()
        self._unfold = unfold
        self._plans: dict[Any, Plan] = {}

    def __call__(self, node: Node, *inputs: torch.Tensor | None) -> tuple[Any, ...]:
        """The node's outputs. Raises ModelError when the function cannot be unfolded for these types."""
        if not all(one is None or isinstance(one, torch.Tensor) for one in inputs):
            raise node.refuse("inputs that are no tensors are not supported")
        types = tuple(None if one is None else (one.dtype, one.ndim) for one in inputs)
        sizes = tuple(None if one is None else (one.dtype, *one.shape) for one in inputs)
        plan = self._plans.get(types) or self._plans.get(sizes)
        if plan is None:
            plan, sized = self._plan(node, inputs)
            self._plans[sizes if sized else types] = plan
        given = (*inputs, *(None for _ in range(len(plan.inputs) - len(inputs))))
        return tuple(plan.run(node.state, given))

    def _plan(self, node: Node, inputs: Sequence[torch.Tensor | None]) -> tuple[Plan, bool]:
        schema: Schema = defs.get_schema(self._name, self._opset, self._domain)
        version = max(one for one in schema.context_dependent_function_opset_versions if one <= self._opset)
        function = onnx.FunctionProto()
        for sized in (False, True):  # few functions need the sizes of axes too
            types = [_type_of(one, sized=sized).SerializeToString() for one in inputs]
            content = schema.get_context_dependent_function_with_opset_version(version, self._proto, types)
            function = onnx.FunctionProto.FromString(content)
            if function.node:
                break
        else:
            found = ", ".join(str(one.dtype) for one in inputs if one is not None)
            raise ModelError(
                f"{node} cannot be unfolded for inputs of type {found}: give register_op an implementation"
            )
        whole = with_defaults(function, schema)
        own = onnx.NodeProto.FromString(self._proto).attribute
        given = {one.name for one in own}
        bound = [*own, *(one for one in whole.attribute_proto if one.name not in given)]
        return self._unfold(whole, bound, self._opsets, node.state), sized


def _type_of(value: torch.Tensor | None, *, sized: bool) -> onnx.TypeProto:
    if value is None:
        return onnx.TypeProto()
    shape = [int(size) if sized else None for size in value.shape]
    proto: onnx.TypeProto = onnx.helper.make_tensor_type_proto(dtypes.onnx_from_torch(value.dtype), shape)
    return proto
