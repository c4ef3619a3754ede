"""onnx's own tests of its operators, run on the module: each passes, is refused with a reason, or is random."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnxprune_passes.errors import ModelError
from onnxprune_passes.storage import from_proto

from onnxprune.torch import known_ops, module_from_model
from onnxprune.torch.dtypes import array_from_tensor, tensor_from_array

RANDOM = {
    *("test_bernoulli", "test_bernoulli_double", "test_bernoulli_seed"),
    *("test_bernoulli_expanded", "test_bernoulli_double_expanded", "test_bernoulli_seed_expanded"),
    *("test_training_dropout", "test_training_dropout_mask"),
    *("test_training_dropout_default", "test_training_dropout_default_mask"),
}
"""Their outputs are drawn: torch's numbers are not those of the reference."""
PASSED, REFUSED, NO_TYPE, WRONG = "passed", "refused, naming the operator", "refused, a type torch lacks", "wrong"


@dataclass(frozen=True)
class Outcome:
    """What became of a test; `group` is plain, expanded (a function's body) or other domains."""

    name: str
    group: str
    result: str
    reason: str = ""


def value_of(given: Any) -> Any:
    """A test's input as a tensor, or a list of tensors. Raises ModelError when torch has no such type."""
    if isinstance(given, (list, tuple)):
        return [value_of(one) for one in given]
    if isinstance(given, onnx.SequenceProto):
        return [value_of(one) for one in numpy_helper.to_list(given)]
    if given is None:
        return None
    array = numpy_helper.to_array(given) if isinstance(given, onnx.TensorProto) else np.asarray(given)
    return tensor_from_array(np.array(array), "an input")


def equal(found: Any, expected: Any) -> bool:
    """Type, shape and values; floats as onnx's runner compares them, and to 1e-6 of the largest entry near 0."""
    if isinstance(expected, onnx.SequenceProto):
        expected = numpy_helper.to_list(expected)
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(equal, found, expected))
    if expected is None or found is None:
        return found is None and expected is None
    wanted = numpy_helper.to_array(expected) if isinstance(expected, onnx.TensorProto) else np.asarray(expected)
    array = array_from_tensor(found)
    if array.shape != wanted.shape or array.dtype != wanted.dtype:
        return False
    if wanted.dtype.kind in "iub":
        return bool(np.array_equal(array, wanted))
    wide: Any = np.complex128 if wanted.dtype.kind == "c" else np.float64
    with np.errstate(invalid="ignore"):  # signalling NaNs become quiet ones
        left, right = array.astype(wide), wanted.astype(wide)
    half = wanted.dtype.name in ("float16", "bfloat16")
    tolerance = 1e-2 if wanted.dtype.name == "bfloat16" else 1e-3
    size = np.abs(right[np.isfinite(right)]).max(initial=0)
    return bool(np.allclose(left, right, tolerance, tolerance if half else 1e-7 + 1e-6 * size, equal_nan=True))


def judge(case: Any) -> Outcome:
    group = "expanded" if "_expanded" in case.name else "plain"
    if any(one.domain not in ("", "ai.onnx") for one in case.model.opset_import):
        group = "other domains"
    try:
        module = module_from_model(from_proto(case.model), check=False).eval()
        sets = [([value_of(one) for one in inputs], outputs) for inputs, outputs in case.data_sets]
        with torch.no_grad():
            found = [module(*inputs) for inputs, _ in sets]
    except ModelError as error:
        typed = "element type" in str(error)
        return Outcome(case.name, group, NO_TYPE if typed else REFUSED, str(error))
    good = all(
        len(one) == len(expected) and all(map(equal, one, expected))
        for one, (_, expected) in zip(found, sets, strict=True)
    )
    return Outcome(case.name, group, PASSED if good else WRONG)


@cache
def cases() -> Sequence[Any]:
    with warnings.catch_warnings():  # numpy's, while onnx computes its expected values
        warnings.simplefilter("ignore")
        from onnx.backend.test.case import node

        return tuple(node.collect_testcases(None))


@cache
def outcomes() -> tuple[Outcome, ...]:
    return tuple(judge(case) for case in cases())


def test_nothing_is_silently_wrong() -> None:
    assert {one.name for one in outcomes() if one.result == WRONG} == RANDOM


def test_enough_pass() -> None:
    counts = Counter(one.group for one in outcomes() if one.result == PASSED)
    assert counts["plain"] >= 1250
    assert counts["expanded"] >= 440


def test_what_is_refused_is_named() -> None:
    refused = [one for one in outcomes() if one.result == REFUSED and one.group == "plain"]
    assert 0 < len(refused) < 60
    for one in refused:
        assert "register_op" in one.reason or "opset 7" in one.reason, one


def test_there_are_enough_operators() -> None:
    assert len(known_ops()) >= 130
    assert len(known_ops("com.microsoft")) >= 15


@pytest.mark.parametrize("name", sorted(RANDOM))
def test_random_ones_are_right_in_shape_and_type(name: str) -> None:
    (case,) = (one for one in cases() if one.name == name)
    module = module_from_model(from_proto(case.model), check=False).eval()
    (inputs, expected), *_ = case.data_sets
    found = [array_from_tensor(one) for one in module(*map(value_of, inputs))]
    assert [(one.shape, one.dtype) for one in found] == [(one.shape, one.dtype) for one in expected]
