"""Gradients of the operators against differences, on the inputs of onnx's own operator tests, in float64."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from onnxprune_passes.errors import ModelError
from onnxprune_passes.storage import from_proto
from torch.autograd.gradcheck import GradcheckError

from onnxprune.torch import module_from_model, register_op
from onnxprune.torch.registry import lookup

NO_GRADIENT_BY_DESIGN = {
    "BatchNormalization": {3, 4},  # running statistics
    "NegativeLogLikelihoodLoss": {2},  # class weights
    "SoftmaxCrossEntropyLoss": {2},
}
FLOAT32_INSIDE = {"LinearAttention", "CausalConvWithState"}
"""Functions of ONNX whose body casts to float32: differences are too coarse."""
NOT_SMOOTH = {"Bernoulli", "BitCast", "Mod", "QuantizeLinear", "RoiAlign"}
"""Steps, or kinks so close that a small move crosses one."""
MASKED_OUT = ("nan_robustness", "structural_empty", "fullymasked", "local_window_gqa_rank4_mask", "mask_causal")
"""Attention in which a row sees nothing, or whose scores of -inf are an output: differences of -inf are no numbers."""
LARGEST = 4000


@cache
def cases() -> tuple[Any, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case import node

        return tuple(node.collect_testcases(None))


def differentiable_inputs(case: Any) -> list[int]:
    """The floating point inputs whose values the operator takes as tensors."""
    (node,), arrays = case.model.graph.node, case.data_sets[0][0]
    entry = lookup(node.domain, node.op_type, case.model.opset_import[0].version)
    places = [index for index, name in enumerate(node.input) if name]
    left_out = NO_GRADIENT_BY_DESIGN.get(node.op_type, set()) | (entry.host if entry else set())
    return [
        at
        for at, array in enumerate(arrays)
        if array.dtype in (np.float32, np.float64) and array.size and places[at] not in left_out
    ]


def suited(case: Any) -> bool:
    nodes, arrays = case.model.graph.node, case.data_sets[0][0]
    if len(nodes) != 1 or "_expanded" in case.name or not all(isinstance(one, np.ndarray) for one in arrays):
        return False
    if nodes[0].op_type in FLOAT32_INSIDE | NOT_SMOOTH or any(part in case.name for part in MASKED_OUT):
        return False
    at = differentiable_inputs(case)
    return bool(at) and sum(arrays[one].size for one in at) <= LARGEST


def moved(array: Any, seed: int) -> torch.Tensor:
    """The input in float64, moved a little so that it stands on no kink and no two entries are equal."""
    generator = np.random.default_rng(seed)
    return torch.from_numpy(np.asarray(array.astype(np.float64) + generator.uniform(0.01, 0.04, array.shape)))


def check(case: Any) -> bool:
    """Whether the gradients hold; False when no output depends smoothly on an input."""
    try:
        module = module_from_model(from_proto(case.model), check=False).eval()
    except ModelError:
        return False
    at, arrays = differentiable_inputs(case), case.data_sets[0][0]
    inputs = [torch.from_numpy(np.array(one)) for one in arrays]

    def outputs(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        whole = list(inputs)
        for place, value in zip(at, values, strict=True):
            whole[place] = value
        for index, one in enumerate(whole):
            if one.is_floating_point():
                whole[index] = one.double()
        found = module(*whole)
        first = found[:1] if case.model.graph.node[0].op_type == "BatchNormalization" else found
        return tuple(one for one in first if isinstance(one, torch.Tensor) and one.requires_grad)

    values = [moved(arrays[place], index).requires_grad_() for index, place in enumerate(at)]
    if case.model.graph.node[0].op_type in ("Acosh", "Pow"):
        values = [(1.1 + one.detach().abs() % 2).requires_grad_() for one in values]
    elif case.model.graph.node[0].op_type in ("Asin", "Acos", "Atanh"):
        values = [(one.detach() * 0.9).requires_grad_() for one in values]
    if not outputs(*values):
        return False
    assert torch.autograd.gradcheck(outputs, values, eps=1e-6, atol=1e-4, rtol=1e-3, fast_mode=True)
    return True


SUITED = [case for case in cases() if suited(case)]


@pytest.mark.parametrize("case", SUITED, ids=lambda case: str(case.name))
def test_gradients_equal_differences(case: Any) -> None:
    if not check(case):
        pytest.skip("no output depends smoothly on an input")


def test_enough_operators_have_gradients() -> None:
    one_each = {case.model.graph.node[0].op_type: case for case in SUITED}
    smooth = {op_type for op_type, case in one_each.items() if check(case)}
    assert len(smooth) >= 115, sorted(smooth)


@pytest.mark.usefixtures("registry_kept")
def test_a_wrong_gradient_is_found() -> None:
    case = next(one for one in SUITED if one.name == "test_tanh")
    register_op("Tanh", lambda _, x: torch.tanh(x) + 0.1 * x.detach())
    with pytest.raises(GradcheckError):
        check(case)
