"""Int8 with a scale for each channel: rounded, found again bit for bit, stored by every index scheme."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from onnxprune_passes.arrays import Array
from onnxprune_passes.encode import Coding, EncodedModel, Gaps, count, decoders, densify, encode_model
from onnxprune_passes.encode.int8 import quantized, scales_of, scales_shape, to_int8
from onnxprune_passes.encode.registry import SCALED
from onnxprune_passes.errors import EncodeError
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Skip, State
from onnxprune_passes.storage import to_proto
from onnxprune_passes.values import QuantizeValues

NDArray = npt.NDArray[Any]
Build = Callable[..., Model]
Exact = Callable[[Model, EncodedModel, dict[str, NDArray]], None]
MATMUL = "g (float[N,32] x) => (float[N,64] y) { y = MatMul(x, w) }"


def whole(density: float, seed: int = 0) -> NDArray:
    """[32, 64], whole numbers: multiples up to 127 of 1, 2, 4 or 8, by column."""
    rng = np.random.default_rng(seed)
    found = rng.integers(-127, 128, (32, 64)) * (rng.random((32, 64)) < density)
    found[rng.integers(0, 32, 64), np.arange(64)] = 127
    return (found * 2 ** rng.integers(0, 4, 64)).astype(np.float32)


@given(
    shape=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
    power=st.integers(-30, 30),
    density=st.sampled_from([0.0, 0.1, 0.6, 1.0]),
)
@settings(max_examples=150, deadline=None)
def test_what_was_rounded_is_found_again(shape: list[int], seed: int, power: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    weight = np.where(rng.random(shape) < density, rng.standard_normal(shape) * 10.0**power, 0).astype(np.float32)
    for axis in range(len(shape)):
        found = quantized(Array(weight), axis)
        assert not isinstance(found, str)
        largest = np.max(np.abs(weight), axis=tuple(each for each in range(len(shape)) if each != axis), keepdims=True)
        assert np.all(np.abs(found - weight) <= largest / 253)
        assert not np.any(found[weight == 0])
        scales = scales_of(Array(found), axis)
        assert scales is not None
        again = to_int8(Array(found), scales, axis).astype(np.float32) * scales.reshape(scales_shape(shape, axis))
        assert again.tobytes() == found.tobytes()
        assert np.array_equal(quantized(Array(found), axis), found)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune_passes.encode import int8

    weight = Array(np.random.default_rng(0).standard_normal((7, 9, 11)).astype(np.float32))
    expected = [quantized(weight, axis) for axis in range(3)]
    monkeypatch.setattr(int8, "_BLOCK", 20)
    for axis, found in enumerate(expected):
        assert not isinstance(found, str)
        assert np.array_equal(quantized(weight, axis), found)
        assert scales_of(Array(found), axis) is not None


@pytest.mark.parametrize("change", [np.nextafter, lambda entry, _: -entry * 0, lambda entry, _: entry * np.nan])
def test_one_other_entry_is_noticed(change: Callable[[Any, Any], Any]) -> None:
    weight = quantized(Array(np.random.default_rng(0).standard_normal((9, 300)).astype(np.float32)), 0)
    assert not isinstance(weight, str)
    weight[8, 5] = change(weight[8, 5], np.float32(9)) if weight[8, 5] > 0 else change(-weight[8, 5], np.float32(9))
    assert scales_of(Array(weight), 0) is None
    assert count(Array(weight), 0).values.channel_axis is None


def test_other_weights_and_axes_have_no_scales() -> None:
    weight = whole(0.5)
    assert count(Array(weight), 1).values.channel_axis == 1
    assert count(Array(weight)).values.channel_axis is None
    assert count(Array(weight), 0).values.channel_axis is None
    assert not any(coding.supports(count(Array(weight)), 17) for coding in SCALED)


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 21, "newest"])
@pytest.mark.parametrize("inline", [False, True])
def test_a_model_decodes_it(build: Build, exact: Exact, feed: dict[str, NDArray], opset: Any, inline: bool) -> None:
    model = build(MATMUL, {"w": whole(0.8)}, opset=opset)
    encoded = encode_model(model, inline=inline)
    (stored,) = encoded.tensors
    assert stored.scheme.endswith("+int8")
    assert 0.9 * stored.bound_nbytes < stored.index_nbytes + stored.value_nbytes < 1.3 * stored.bound_nbytes
    exact(model, encoded, feed)


@pytest.mark.parametrize("coding", SCALED, ids=lambda coding: coding.name)
def test_every_index_scheme_stores_it(
    build: Build, exact: Exact, feed: dict[str, NDArray], coding: Coding, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxprune_passes.encode import plan

    monkeypatch.setattr(plan, "CODINGS", ())
    monkeypatch.setattr(plan, "SCALED", (coding,))
    weight = whole(0.05)
    model = build(MATMUL, {"w": weight})
    encoded = encode_model(model)
    assert [tensor.scheme for tensor in encoded.tensors] == [coding.name]
    exact(model, encoded, feed)
    (found,) = decoders(encoded.model)
    assert (found.key, found.coding) == ("w", coding)
    outputs: Any = ReferenceEvaluator(to_proto(encoded.model)).run(None, feed)
    assert np.array_equal(outputs[0], feed["x"] @ weight)


def test_the_layout_is_what_is_built() -> None:
    for axis, weight in ((1, whole(0.2)), (0, np.ascontiguousarray(whole(0.2).T))):
        counts = count(Array(weight), axis)
        for coding in SCALED:
            encoded = coding.encode(Array(weight), counts)
            assert [(part.dtype, part.shape) for part in coding.layout(counts)] == [
                (part.dtype, part.shape) for part in encoded.inputs
            ]
            assert coding.decode(encoded.inputs).tobytes() == weight.tobytes()


def test_damaged_scales_are_an_error() -> None:
    weight = whole(0.2)
    coding = Coding(Gaps(4), scaled=True)
    *parts, scales = coding.encode(Array(weight), count(Array(weight), 1)).inputs
    for damaged in (scales[:, :5], scales.astype(np.float64), scales.reshape(-1), np.ones((32, 64), np.float32)):
        with pytest.raises(EncodeError, match="damaged"):
            coding.decode([*parts, damaged])


def test_the_pass_rounds_along_the_output_axis_and_encoding_finds_it(build: Build) -> None:
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((32, 64)) < 0.4, rng.standard_normal((32, 64)), 0).astype(np.float32)
    state = State(build(MATMUL, {"w": weight}))
    done = QuantizeValues()(state)
    found = done.model.initializers["w"]
    expected = quantized(Array(weight), 1)
    assert np.array_equal(found, expected)
    assert QuantizeValues()(done) is done
    encoded = encode_model(done.model)
    assert encoded.tensors[0].scheme.endswith("+int8")
    dense = densify(encoded.model)
    assert dense.initializers["w"].tobytes() == found.tobytes()
    onnx.checker.check_model(to_proto(encoded.model), full_check=True)


@pytest.mark.parametrize(("entry", "reason"), [(np.inf, "infinite or NaN"), (1e-44, "too small")])
def test_what_has_no_scale_is_left(build: Build, entry: float, reason: str) -> None:
    weight = np.zeros((32, 64), np.float32)
    weight[0, :] = 1
    weight[0, 3] = entry
    state = State(build(MATMUL, {"w": weight}))
    done = QuantizeValues()(state)
    assert done.model is state.model
    (skip,) = done.log
    assert isinstance(skip, Skip)
    assert reason in skip.reason


class Streamed(Array):
    """A source that must not be in memory as a whole."""

    def array(self) -> NDArray:
        raise AssertionError("was read as a whole")


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("density", [0.02, 0.1, 1.0])
def test_a_weight_that_was_not_rounded_is_not_read_as_a_whole(axis: int, density: float) -> None:
    rng = np.random.default_rng(7)
    weight = np.where(rng.random((700, 900)) < density, rng.standard_normal((700, 900)), 0).astype(np.float32)
    assert scales_of(Streamed(weight), axis) is None
    assert count(Streamed(weight), axis).values.channel_axis is None
    rounded = quantized(Array(weight), axis)
    assert not isinstance(rounded, str)
    with pytest.raises(AssertionError, match="as a whole"):
        scales_of(Streamed(rounded), axis)
