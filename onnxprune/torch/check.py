"""The comparison with onnxruntime when a module is made: a wrong operator is an error, not a wrong model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxprune_passes.errors import DataError, OnnxPruneError, VerifyError
from onnxprune_passes.model import Model
from onnxprune_passes.storage import save

from onnxprune.feeds import Feeds, feeds_as_float32, synthesize_feeds
from onnxprune.runtime import NoKernelError
from onnxprune.torch import stepwise
from onnxprune.torch.dtypes import array_from_tensor, tensor_from_array
from onnxprune.torch.module import OnnxModule
from onnxprune.torch.parts import Check
from onnxprune.verify import Reference, compare_references, float32_copy, quantised_steps, run_all

_SEED = 0
_PRECISIONS = ("int8", "uint8", "bfloat16", "float16")
"""From the coarsest; a model none of whose weights is one of them is held to float32."""


def tensors_from_feeds(module: OnnxModule, feeds: Mapping[str, NDArray[Any]]) -> list[torch.Tensor]:
    """The module's inputs out of a batch, name → array. Raises DataError when one is missing."""
    missing = [name for name in module.input_names if name not in feeds]
    if missing:
        raise DataError(f"input {', '.join(missing)} is not among the feeds ({', '.join(sorted(feeds))})")
    return [tensor_from_array(np.array(feeds[name]), f"input {name!r}") for name in module.input_names]


def run_module(module: OnnxModule, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The module's outputs as arrays by name, in eval mode and without gradients; sequences as `name[0]`, `name[1]`…"""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            found = module(*tensors_from_feeds(module, feeds))
    finally:
        module.train(was_training)
    flat: dict[str, NDArray[Any]] = {}
    for name, value in zip(module.output_names, found, strict=True):
        if isinstance(value, list):
            flat.update({f"{name}[{at}]": array_from_tensor(one) for at, one in enumerate(value)})
        elif value is not None:
            flat[name] = array_from_tensor(value)
    return flat


def check_against_onnxruntime(module: OnnxModule, model: Model, feeds: Mapping[str, NDArray[Any]] | None) -> None:
    """Run a batch in both and refuse what differs; then try two batches in one, where the file declares its size.

    Where outputs differ, every node is compared on onnxruntime's own values (`stepwise`): a model that only makes
    rounding large is taken, and `module.check` says so.

    Raises:
        VerifyError: a node differs by more than `onnxprune.verify` allows, or onnxruntime cannot run the model.
        DataError: no feeds could be made up.
    """
    precision = precision_of(model)
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        path = save(with_outputs(model, module.output_names), Path(folder) / "model.onnx")
        given, expected, cast = _expected(module, path, feeds)
        steps = quantised_steps(path)
    outputs: tuple[Mapping[str, NDArray[Any]], ...] = tuple(run_module(module, one) for one in given.batches)
    outputs = feeds_as_float32(Feeds(outputs, None, "")).batches if cast else outputs
    found = Reference("the torch module", False, 1, outputs, ())
    comparison = replace(compare_references(expected, found), steps=steps)
    failures = comparison.failures(precision)
    problems = failures
    if failures and not cast:
        problems = node_problems(module, model, given.batches[0], precision)
    if problems:
        raise VerifyError(
            f"the torch module and onnxruntime differ: {'; '.join(failures[:3])}; first at {problems[0]}; if the model "
            "draws random numbers pass check=False, else give the operator an implementation with register_op"
        )
    module.check = Check(comparison.max_error, bool(failures))
    module.batch_problem = _batch_problem(module, given.batches, precision)


def _expected(
    module: OnnxModule, path: Path, feeds: Mapping[str, NDArray[Any]] | None
) -> tuple[Feeds, Reference, bool]:
    """The batches, what onnxruntime gives for them, and whether it was a copy cast to float32 that ran: for bfloat16,
    float16 and double it lacks the kernels of some operators.
    """
    given = Feeds((feeds,), None, "given") if feeds is not None else None
    try:
        given = given or synthesize_feeds(path, 2, _SEED, threads=1)
        return given, run_all(path, given, optimize=False, threads=1), False
    except NoKernelError:
        copy = path.with_name("float32.onnx")
        float32_copy(path, copy)
        wide = feeds_as_float32(given) if given is not None else synthesize_feeds(copy, 2, _SEED, threads=1)
        own = tuple(_as_declared(module, batch) for batch in wide.batches)
        return Feeds(own, None, wide.note), run_all(copy, wide, optimize=False, threads=1), True


def _as_declared(module: OnnxModule, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """A batch in the types that the file declares."""
    dtypes = {spec.name: onnx.helper.tensor_dtype_to_np_dtype(spec.element) for spec in module.specs if spec.element}
    return {name: array.astype(dtypes.get(name, array.dtype)) for name, array in batch.items()}


def node_problems(
    module: OnnxModule, model: Model, feeds: Mapping[str, NDArray[Any]], precision: str
) -> tuple[str, ...]:
    """What differs when every node runs on onnxruntime's values, one line a node; empty when all is well.

    Args:
        module: the module; it is left in eval mode.
        model: the model that onnxruntime runs, with the same graph.
        feeds: a batch.
        precision: of the weights, as `precision_of` says.
    """
    module.eval()
    names = stepwise.comparable_values(module)
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        path = save(with_outputs(model, names), Path(folder) / "model.onnx")
        expected = run_all(path, Feeds((feeds,), None, "given"), optimize=False, threads=1).outputs[0]
    return stepwise.differences(module, tensors_from_feeds(module, feeds), expected, precision)


def precision_of(model: Model) -> str:
    """The coarsest type among the weights of `model`, by numpy's name, as tolerances depend on it."""
    dtypes = {model.initializers.source(key).dtype.name for key in model.initializers}
    quantises = any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node)
    for precision in _PRECISIONS:
        if precision in dtypes and (quantises or precision not in ("int8", "uint8")):
            return precision
    return "float32"


def with_outputs(model: Model, names: Sequence[str]) -> Model:
    """`model` with the values `names` as its outputs."""
    if [value.name for value in model.graph.output] == list(names):
        return model
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    known = {value.name: value for value in (*model.graph.output, *model.graph.value_info)}
    del skeleton.graph.output[:]
    for name in names:
        skeleton.graph.output.append(known.get(name, onnx.ValueInfoProto(name=name)))
    return model.with_skeleton(skeleton)


def _batch_problem(module: OnnxModule, batches: Sequence[Mapping[str, NDArray[Any]]], precision: str) -> str | None:
    """Why two batches cannot run as one of twice the size; None when they can, or the file leaves the size open."""
    dims = module.first_dims
    if not dims or dims[0] is None:
        return None
    feeds = batches[0]
    other = batches[1] if len(batches) > 1 else {name: _changed(array) for name, array in feeds.items()}
    both = {name: np.concatenate([feeds[name], other[name]]) for name in module.input_names if feeds[name].ndim}
    both |= {name: feeds[name] for name in module.input_names if name not in both}
    apart = [run_module(module, one) for one in (feeds, other)]
    try:
        together = run_module(module, both)
    except (RuntimeError, ValueError, IndexError, OnnxPruneError) as error:
        return f"{error}".splitlines()[0]
    whole = {name: np.concatenate([one[name] for one in apart]) for name in apart[0] if apart[0][name].ndim}
    if whole.keys() != together.keys():
        return "an output has no batch axis"
    before, after = (Reference(text, False, 1, (one,), ()) for text, one in (("apart", whole), ("together", together)))
    failures = compare_references(before, after).failures(precision)
    return f"a batch of two gives other answers: {failures[0]}" if failures else None


def _changed(array: NDArray[Any]) -> NDArray[Any]:
    """Other numbers of the same kind: floats in reverse order and smaller, everything else as it is."""
    return np.flip(array, -1) * array.dtype.type(0.7) if array.ndim and array.dtype.kind == "f" else array
