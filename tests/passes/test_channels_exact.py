"""PruneChannels and then RemoveDeadNeurons: the answers are those of the masked model, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from channel_nets import NETS, SIZES, NDArray, answers, built, free_sizes, shrunk, sizes
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from onnxprune_passes.channels import PruneChannels
from onnxprune_passes.model import Model
from onnxprune_passes.neurons.choose import Counts, sparsity_from
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import from_proto, to_proto


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(list(NETS)),
    sparsity=st.sampled_from([0.1, 0.3, 0.5, 0.75, 0.95]),
    options=st.fixed_dictionaries(
        {
            "scope": st.sampled_from(["global", "layer"]),
            "norm": st.sampled_from(["l1", "l2"]),
            "reduce": st.sampled_from(["sum", "mean"]),
            "round_to": st.sampled_from([1, 4, 8]),
        }
    ),
    seed=st.integers(0, 1000),
)
def test_what_is_masked_goes_exactly(name: str, sparsity: float, options: dict[str, Any], seed: int) -> None:
    before = State(built(NETS[name], seed))
    masked = PruneChannels(sparsity, **options)(before)
    after = shrunk(masked)
    for optimised in (False, True):
        np.testing.assert_array_equal(
            answers(masked.model, optimised=optimised), answers(after.model, optimised=optimised)
        )
    assert all(key.endswith("_weight") for key in masked.masks)
    kept = sizes(after.model)
    if options["scope"] == "layer":
        rule = Counts(options["round_to"], 1)
        assert kept == [rule.kept(size, sparsity_from(sparsity)) for size in SIZES[name]]
    else:
        assert sum(SIZES[name]) - sum(kept) <= sum(SIZES[name]) * sparsity
    assert PruneChannels(sparsity, **options)(masked) is masked
    assert not before.masks
    assert not before.log
    assert all((before.model.initializers[key] != 0).all() for key in masked.masks)


def test_whole_slices_go_where_channels_are_split_into_two_axes() -> None:
    """24 channels as 2 x 12 that turn around: one unit is the pair of channels at a place of the longer axis."""
    text = """g (float[N,5] x) => (float[N,2] y) {
        a = Gemm<transB=1>(x, f1.weight, f1.bias) r = Reshape(a, split) t = Transpose<perm=[0,2,1]>(r)
        u = Reshape(t, joined) y = Gemm<transB=1>(u, f2.weight, f2.bias) }"""
    proto = to_proto(built((text, {"f1": (24, 5), "f2": (2, 24)})))
    for name, dims in (("split", [0, 2, 12]), ("joined", [0, 24])):
        proto.graph.initializer.append(numpy_helper.from_array(np.array(dims, np.int64), name))
    model = from_proto(proto)
    assert free_sizes(model) == [12]
    masked = PruneChannels(0.5, round_to=1)(State(model))
    after = shrunk(masked)
    assert after.model.initializers["f1_weight"].shape == (12, 5)
    for optimised in (False, True):
        np.testing.assert_array_equal(
            answers(masked.model, optimised=optimised), answers(after.model, optimised=optimised)
        )


def quantised(scales: NDArray) -> Model:
    """Gemm 6 -> 8, Relu, Gemm 8 -> 3, the first weight in int8 with one scale and one zero point a neuron."""
    text = """g (float[N,6] x) => (float[N,3] y) {
        w = DequantizeLinear<axis=0>(q, scale, zero) a = Gemm<transB=1>(x, w) r = Relu(a)
        y = Gemm<transB=1>(r, f2_weight) }"""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    rng = np.random.default_rng(0)
    zero = np.arange(8, dtype=np.int8) - 4
    arrays: dict[str, NDArray] = {
        "q": (rng.choice([-2, -1, 1, 2], (8, 6)) + zero[:, None]).astype(np.int8),
        "scale": scales.astype(np.float32),
        "zero": zero,
        "f2_weight": np.ones((3, 8), np.float32),
    }
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return from_proto(proto)


def test_a_quantised_weight_counts_by_what_it_stands_for() -> None:
    """Its weakest rows are those of small scales; masked they hold their zero points, and go with their scales."""
    model = quantised(np.array([4, 0.5, 4, 0.5, 4, 0.5, 4, 0.5]))
    masked = PruneChannels(0.5, scope="layer", round_to=1)(State(model))
    assert np.flatnonzero(~masked.masks["q"].any(axis=1)).tolist() == [1, 3, 5, 7]
    assert np.array_equal(masked.model.initializers["q"][1], np.full(6, -3))
    after = shrunk(masked)
    assert after.model.initializers["q"].shape == (4, 6)
    assert after.model.initializers["scale"].tolist() == [4, 4, 4, 4]
    assert PruneChannels(0.5, scope="layer", round_to=1)(masked) is masked
    for optimised in (False, True):
        np.testing.assert_array_equal(
            answers(masked.model, optimised=optimised), answers(after.model, optimised=optimised)
        )


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_hidden_units_of_a_recurrent_layer_go(op: str) -> None:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    text = f"""g (float[7,N,5] x) => (float[7,N,2] y) {{
        h = {op}<hidden_size=12>(x, w, r, b) s = Squeeze(h, axes) y = MatMul(s, f2) }}"""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    rng = np.random.default_rng(0)
    sizes = {"w": (1, gates * 12, 5), "r": (1, gates * 12, 12), "b": (1, gates * 24), "f2": (12, 2)}
    for name, shape in sizes.items():
        array = (rng.standard_normal(shape) / 2).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "axes"))
    masked = PruneChannels(0.5, round_to=1)(State(from_proto(proto)))
    after = shrunk(masked)
    assert set(masked.masks) == {"w", "r", "f2"}
    assert after.model.initializers["r"].shape == (1, gates * 6, 6)
    for optimised in (False, True):
        found, wanted = (answers(one.model, optimised=optimised) for one in (after, masked))
        assert np.abs(found - wanted).max() <= 1e-6 * np.abs(wanted).max()
