"""`module_from_model`: from a Model to a module that has been compared with onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxprune_passes.encode import decoders
from onnxprune_passes.errors import ModelError, SelectionError
from onnxprune_passes.masks import Masks, apply_masks
from onnxprune_passes.model import Model
from onnxprune_passes.weights import find_weights
from torch import Tensor

from onnxprune.torch import host_ops, ops
from onnxprune.torch.assign import HOST, LATENT, PARAMETER, STATISTIC, Assignment, assign, latent_values
from onnxprune.torch.check import check_against_onnxruntime
from onnxprune.torch.compile import Compiler
from onnxprune.torch.dtypes import tensor_from_array
from onnxprune.torch.escape import name_from_key
from onnxprune.torch.host import Host, host_from_tensor
from onnxprune.torch.lower import freeze
from onnxprune.torch.memory import FrozenMemory, own_tensor
from onnxprune.torch.module import OnnxModule
from onnxprune.torch.node import RunState
from onnxprune.torch.parts import Bound, InputSpec, Parts

_REGISTERED = (host_ops, ops)  # importing them fills the registry


def module_from_model(
    model: Model,
    masks: Masks | None = None,
    *,
    outputs: Sequence[str] | None = None,
    trainable: Sequence[str] = (),
    frozen: Sequence[str] = (),
    batch_norm: str = "frozen",
    dropout: Mapping[str, float] | None = None,
    wide: bool = False,
    check: bool = True,
    feeds: Mapping[str, NDArray[np.generic]] | None = None,
) -> OnnxModule:
    """A torch module that computes what the graph computes, its weights trainable under their ONNX names.

    Floating point tensors that reach a weight role (`onnxprune.torch.roles`), and masked ones, become parameters, in
    memory of their own; quantised weights behind DequantizeLinear become parameters in real numbers. Frozen tensors
    share the pages of the model's file. `module.parameters_table()` says what became of each.

    Args:
        model: the model; it is not changed.
        masks: which entries are kept; the others are 0 in the module. `hold_masks` keeps them so while training.
        outputs: names of the values that `forward` gives, instead of the graph's outputs; what they do not need is left
            out.
        trainable, frozen: globs over tensor keys that override the roles. Weights that look like fixed transforms (a
            Fourier basis) are frozen unless `trainable` names them.
        batch_norm: `frozen` or `train`, see `OnnxModule.batch_norm`.
        dropout: see `OnnxModule.set_dropout`.
        wide: hold what is trained of a float16 or bfloat16 file in float32, and round it where it is used (the master
            weights of Micikevicius et al. 2018, section 3.1): narrow ones lose small steps, and Adam's epsilon is 0 in
            float16. `write_back` rounds to the file's type.
        check: compare one batch with onnxruntime, and refuse the model beyond 1e-5 of the largest output (float32).
        feeds: the batch to compare on, name → array of the declared dtype and shape; None makes one up.

    Raises:
        ModelError: operators without an implementation (all are named), an opset below 7, encoded weights, masks of
            another model, or a form of an operator that is not supported.
        SelectionError: an output, glob or dropout names nothing, or a mode is unknown.
        VerifyError: the module and onnxruntime differ, or onnxruntime cannot run the model.
        DataError: `feeds` do not fit, or no feeds could be made up.
    """
    _require_dense(model)
    masks = Masks() if masks is None else masks
    weights = find_weights(model)
    fills = {one.key: one.zero_point for one in weights if one.zero_point is not None and one.key in masks}
    pruned = apply_masks(model, masks, fills)
    names = tuple(outputs) if outputs is not None else tuple(value.name for value in model.graph.output)
    state = RunState()
    compiler = Compiler(pruned, state)
    _require_outputs(model.graph, names)
    draft = compiler.main(names)
    assignments = assign(draft, pruned, frozenset(masks), trainable, frozen)
    known, bound, tensors = _tensors(assignments, pruned, wide)
    plan = freeze(draft, known)
    made = {id(step.node): step for one in plan.below() for step in one.steps}
    values = {
        key: (made[id(step.node)], index) for key, (step, index) in compiler.values.items() if id(step.node) in made
    }
    specs = tuple(_spec(value) for value in model.graph.input if value.name in compiler.inputs)
    order = [bound[slot] for slot in plan.inputs[len(draft.inputs) :]]
    rows = tuple(one.row for one in assignments)
    module = OnnxModule(Parts(plan, state, specs, names, tuple(order), rows, values, masks), tensors)
    module.batch_norm = batch_norm
    module.set_dropout(dropout or {})
    module.eval()
    if check:
        check_against_onnxruntime(module, pruned, feeds)
    return module.train()


def _require_dense(model: Model) -> None:
    """Raise ModelError when weights are stored encoded: what a decoder makes has no tensor to be written back to."""
    encoded = [one.key for one in decoders(model)]
    if encoded:
        raise ModelError(
            f"{len(encoded)} tensors of the model are stored encoded ({', '.join(encoded[:3])}): make them dense first "
            "(onnxprune.passes.densify)"
        )


def _require_outputs(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    """Raise SelectionError when a requested output is no value of the main graph."""
    known = {name for node in graph.node for name in node.output}
    known.update(value.name for value in graph.input)
    known.update(tensor.name for tensor in graph.initializer)
    for name in names:
        if name not in known:
            raise SelectionError(f"output {name!r} is no value of the model's main graph: name an output of a node")


def _tensors(
    assignments: Sequence[Assignment], model: Model, wide: bool
) -> tuple[dict[int, Host], dict[int, Bound], dict[str, Tensor]]:
    """Hosts by slot; for the other slots what they are bound to; and the tensors to register by name."""
    memory = FrozenMemory()
    known: dict[int, Host] = {}
    bound: dict[int, Bound] = {}
    tensors: dict[str, Tensor] = {}
    for one in assignments:
        row, key = one.row, one.constant.key
        where = f"tensor {row.key!r}"
        source = (
            model.initializers.source(key)
            if key is not None and key in model.initializers
            else one.constant.load(model)
        )
        if row.kind == HOST:
            known[one.slot] = host_from_tensor(own_tensor(source, where), keep=True)
            continue
        name = name_from_key(row.key) if row.key else f"c:{one.slot}"
        if row.kind == LATENT and one.weight is not None:
            bound[one.slot] = _latent(name, one, model, tensors)
            continue
        own = row.kind == STATISTIC or (row.kind == PARAMETER and row.trained)
        tensor = tensors[name] = own_tensor(source, where) if own else memory.tensor(source, where)
        narrow = wide and row.trained and tensor.dtype in (torch.float16, torch.bfloat16)
        if narrow:
            tensors[name] = tensor.float()
        bound[one.slot] = Bound(name, row.kind == PARAMETER, dtype=tensor.dtype if narrow else None)
    return known, bound, tensors


def _latent(name: str, one: Assignment, model: Model, tensors: dict[str, Tensor]) -> Bound:
    """Register the real numbers behind a quantised weight, with its scale and zero point."""
    weight = one.weight
    assert weight is not None
    stored = model.initializers[weight.key]
    tensors[name] = tensor_from_array(latent_values(weight, stored), name)
    scale, zero = f"scale:{name}", f"zero:{name}"
    tensors[scale] = tensor_from_array(np.array(weight.scale, np.float32), scale)
    tensors[zero] = tensor_from_array(np.array(weight.zero_point), zero)
    return Bound(name, True, scale, zero, tensor_from_array(stored[:0].copy(), name).dtype)


def _spec(value: onnx.ValueInfoProto) -> InputSpec:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        return InputSpec(value.name, None, kind.elem_type)
    dims = (dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in kind.shape.dim)
    return InputSpec(value.name, tuple(dims), kind.elem_type)
