"""Channels that stay where they are made: what reads them does without some, through one Gather, and bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from onnxprune_passes.channels import PruneChannels
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.errors import SelectionError
from onnxprune_passes.fold import GatherLiveInputs
from onnxprune_passes.model import Model
from onnxprune_passes.neurons.choose import Counts, sparsity_from
from onnxprune_passes.pipeline import Change, Skip, State, chain
from onnxprune_passes.storage import from_proto

Array = npt.NDArray[Any]
Net = tuple[str, dict[str, tuple[int, ...]], dict[str, int]]
SHRINK = chain(RemoveDeadNeurons(), GatherLiveInputs("dense"))
MADE = "a = Gemm<transB=1>(x, f1, b1) r = Relu(a)"
F1: dict[str, tuple[int, ...]] = {"f1": (24, 5), "b1": (24,)}

NETS: dict[str, Net] = {
    "gemm, beside a graph output": (
        f"g (float[N,5] x) => (float[N,24] r, float[N,900] y) {{ {MADE} y = Gemm<transB=1>(r, w) }}",
        {**F1, "w": (900, 24)},
        {"w": 1},
    ),
    "gemm, not turned": (
        f"g (float[N,5] x) => (float[N,24] r, float[N,900] y) {{ {MADE} y = Gemm(r, w, b) }}",
        {**F1, "w": (24, 900), "b": (900,)},
        {"w": 0},
    ),
    "gemm of a turned value": (
        "g (float[5,20] x) => (float[24,20] r, float[20,60] y) { "
        "a = Gemm(f1, x) r = Relu(a) y = Gemm<transA=1>(r, w) }",
        {"f1": (24, 5), "w": (24, 60)},
        {"w": 0},
    ),
    "gemm on the right": (
        "g (float[5,20] x) => (float[24,20] r, float[60,20] y) { a = Gemm(f1, x) r = Relu(a) y = Gemm(w, r) }",
        {"f1": (24, 5), "w": (60, 24)},
        {"w": 1},
    ),
    "matmul, dynamic axes": (
        "g (float[N,T,5] x) => (float[N,T,24] r, float[N,T,900] y) { a = MatMul(x, f1) r = Relu(a) y = MatMul(r, w) }",
        {"f1": (5, 24), "w": (24, 900)},
        {"w": 0},
    ),
    "two readers of one copy, beside an op without a rule": (
        f"g (float[N,5] x) => (float[N,24] z, float[N,600] y, float[N,400] u) {{ {MADE} z = CumSum(r, one) "
        "y = Gemm<transB=1>(r, w) u = Gemm<transB=1>(r, v) }",
        {**F1, "w": (600, 24), "v": (400, 24)},
        {"w": 1, "v": 1},
    ),
    "conv": (
        "g (float[N,3,h,k] x) => (float[N,24,h,k] r, float[N,8,h,k] y) { "
        "a = Conv<pads=[1,1,1,1]>(x, f1, b1) r = Relu(a) y = Conv<pads=[1,1,1,1]>(r, w) }",
        {"f1": (24, 3, 3, 3), "b1": (24,), "w": (8, 24, 3, 3)},
        {"w": 1},
    ),
    "conv transpose": (
        "g (float[N,3,6,6] x) => (float[N,24,6,6] r, float[N,4,8,8] y) { "
        "a = Conv<pads=[1,1,1,1]>(x, f1, b1) r = Relu(a) y = ConvTranspose(r, w) }",
        {"f1": (24, 3, 3, 3), "b1": (24,), "w": (24, 4, 3, 3)},
        {"w": 0},
    ),
    "recurrent layers that read a state": (
        "g (float[T,N,5] x, float[1,N,24] h) => (float[1,N,24] s, float[T,1,N,220] y) { "
        'a, s = RNN<hidden_size=24, activations=["Relu"]>(x, f1, r1, , , h) '
        "r = Squeeze(a, one) y = LSTM<hidden_size=220>(r, w, r2) }",
        {"f1": (1, 24, 5), "r1": (1, 24, 24), "w": (1, 880, 24), "r2": (1, 880, 220)},
        {"w": 2},
    ),
}

"""Name → graph, shapes of weights, and the weights that lose columns, each with the axis."""


def built(name: str, seed: int, dtype: type = np.float32) -> Model:
    """A net of `NETS` with small whole numbers, none 0; recurrent weights of the first layer keep its state."""
    text, shapes, _ = NETS[name]
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {key: rng.choice([-2, -1, 1, 2], shape) for key, shape in shapes.items()}
    if "r1" in arrays:
        arrays["r1"] = np.eye(24)[None]
    return from_text(text, arrays, dtype)


def from_text(text: str, arrays: dict[str, Array], dtype: type = np.float32, opset: int = 17) -> Model:
    """A model from ONNX text and float arrays; `one` is a constant [1] of positions."""
    if dtype is np.float16:
        text = text.replace("float[", "float16[")
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> {text}')
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array, dtype), key) for key, array in arrays.items()
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
    return from_proto(proto)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(list(NETS)),
    sparsity=st.sampled_from([0.5, 0.7, 0.9]),
    options=st.fixed_dictionaries(
        {
            "scope": st.sampled_from(["global", "layer"]),
            "norm": st.sampled_from(["l1", "l2"]),
            "reduce": st.sampled_from(["sum", "mean"]),
            "round_to": st.sampled_from([1, 4, 8]),
            "reads": st.sampled_from(["auto", "always"]),
        }
    ),
    seed=st.integers(0, 1000),
)
def test_what_is_left_unread_goes_exactly(
    name: str, sparsity: float, options: dict[str, Any], seed: int, same_answers: Callable[..., None]
) -> None:
    before = State(built(name, seed))
    masked = PruneChannels(sparsity, **options)(before)
    after = SHRINK(masked)
    axes = NETS[name][2]
    kept = Counts(options["round_to"], 1).kept(24, sparsity_from(sparsity))
    assert set(masked.masks) == set(axes)
    for key, axis in axes.items():
        rows = np.moveaxis(masked.masks[key], axis, 0).reshape(24, -1)
        assert np.array_equal(rows.any(axis=1), rows.all(axis=1))
        left = rows.all(axis=1)
        assert left.sum() == kept
        assert after.model.initializers[key].shape[axis] == kept
        sizes = np.abs(np.moveaxis(before.model.initializers[key], axis, 0).reshape(24, -1))
        norms = (sizes if options["norm"] == "l1" else np.square(sizes)).sum(axis=1)
        assert len(axes) > 1 or norms[left].min() >= norms[~left].max()
    assert sum(node.op_type == "Gather" for node in after.model.graph.node) == 1
    same_answers(masked.model, after.model)
    assert PruneChannels(sparsity, **options)(masked) is masked
    assert SHRINK(after) is after
    assert not before.masks
    assert not before.log


PINNED = f"g (float[N,5] x) => (float[N,24] r, float[N,900] y) {{ {MADE} y = Gemm<transB=1>(r, w) }}"
W = {"f1": (24, 5), "b1": (24,), "w": (900, 24)}
HALF = PruneChannels(0.5, round_to=1)


def numbers(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {key: rng.choice([-2, -1, 1, 2], shape) for key, shape in shapes.items()}


def lost(state: State) -> dict[str, int]:
    """Weight → how many of its columns (axis 1) are masked."""
    return {key: int((~state.masks[key].any(axis=0)).sum()) for key in state.masks}


def said(state: State, kind: type) -> list[str]:
    return [entry.summary if isinstance(entry, Change) else entry.reason for entry in state.log if type(entry) is kind]


def test_it_is_said_which_weight_reads_what_and_what_keeps_it() -> None:
    state = HALF(State(from_text(PINNED, numbers(W))))
    (change,) = said(state, Change)
    assert change == (
        "global sparsity 0.5 by l2 sum, of channels that stay where they are made: w reads 12 of 24 channels of 'r' "
        "(blocked by graph output 'r': the interface never changes)"
    )
    assert "24 channels stay: blocked by graph output 'r': the interface never changes" in said(state, Skip)
    assert "left out 12 of 24 features of 'r' for w" in said(SHRINK(state), Change)[1]


def test_half_precision(same_answers: Callable[..., None]) -> None:
    state = HALF(State(from_text(PINNED, numbers(W), np.float16)))
    after = SHRINK(state)
    assert after.model.initializers["w"].shape == (900, 12)
    assert after.model.initializers["w"].dtype == np.float16
    same_answers(state.model, after.model)


@pytest.mark.parametrize("reads", ["auto", "always", "never"])
def test_where_channels_go_whole_only_always_leaves_others_unread(reads: Any, same_answers: Any) -> None:
    """f1 → f2 → f3, the 24 neurons of f2 a graph output: those of f1 go whole."""
    text = """g (float[N,5] x) => (float[N,24] r, float[N,900] y) {
        h = Gemm<transB=1>(x, f1) k = Relu(h) a = Gemm<transB=1>(k, f2) r = Relu(a) y = Gemm<transB=1>(r, f3) }"""
    model = from_text(text, numbers({"f1": (16, 5), "f2": (24, 16), "f3": (900, 24)}))
    state = PruneChannels(0.5, round_to=1, reads=reads)(State(model))
    after = SHRINK(state)
    shapes = [after.model.initializers[key].shape for key in ("f1", "f2", "f3")]
    assert shapes == [(8, 5), (24, 8), (900, 12 if reads == "always" else 24)]
    assert len(said(state, Change)) == (2 if reads == "always" else 1)
    same_answers(state.model, after.model)


def test_never_leaves_everything_read() -> None:
    state = PruneChannels(0.5, reads="never")(State(from_text(PINNED, numbers(W))))
    assert not state.masks
    assert not said(state, Change)


def test_of_joined_channels_only_those_that_stay(same_answers: Callable[..., None]) -> None:
    """The first 16 go whole; of the 24 behind them, a graph output, each may be left unread."""
    text = """g (float[N,5] x) => (float[N,24] r, float[N,1200] y) {
        h = Gemm<transB=1>(x, f1) k = Relu(h) a = Gemm<transB=1>(x, f2) r = Relu(a) j = Concat<axis=1>(k, r)
        y = Gemm<transB=1>(j, f3) }"""
    model = from_text(text, numbers({"f1": (16, 5), "f2": (24, 5), "f3": (1200, 40)}))
    state = PruneChannels(0.5, scope="layer", round_to=1, reads="always")(State(model))
    kept = np.flatnonzero(state.masks["f3"].any(axis=0))
    assert (int((kept < 16).sum()), int((kept >= 16).sum())) == (8, 12)
    after = SHRINK(state)
    assert [after.model.initializers[key].shape for key in ("f1", "f2", "f3")] == [(8, 5), (24, 5), (1200, 20)]
    same_answers(state.model, after.model)


STAY: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "a weight with few rows, which is read as fast as a copy is made": (PINNED.replace("900", "60"), {"w": (60, 24)}),
    "a shared weight": (
        f"g (float[N,5] x, float[N,24] z) => (float[N,24] r, float[N,900] y, float[N,900] u) {{ {MADE} "
        "y = Gemm<transB=1>(r, w) u = Gemm<transB=1>(z, w) }",
        {},
    ),
    "a weight that a body reads too": (
        f"g (float[N,5] x, bool c) => (float[N,24] r, float[N,900] y, float[900,24] v) {{ {MADE} "
        "y = Gemm<transB=1>(r, w) v = If(c) <then_branch = t () => (float[900,24] p) { p = Neg(w) }, "
        "else_branch = e () => (float[900,24] q) { q = Abs(w) }> }",
        {},
    ),
    "a graph input": ("g (float[N,24] r) => (float[N,900] y) { y = Gemm<transB=1>(r, w) }", {"f1": (1,), "b1": (1,)}),
    "what is made of a graph input": (
        "g (float[N,24] x) => (float[N,900] y) { r = Relu(x) y = Gemm<transB=1>(r, w) }",
        {"f1": (1,), "b1": (1,)},
    ),
    "a convolution in groups": (
        "g (float[N,3,8,8] x) => (float[N,24,8,8] r, float[N,40,8,8] y) { "
        "a = Conv<pads=[1,1,1,1]>(x, f1, b1) r = Relu(a) y = Conv<group=2>(r, w) }",
        {"f1": (24, 3, 3, 3), "w": (40, 12, 1, 1)},
    ),
    "a computed weight": (
        PINNED.replace("Gemm<transB=1>(r, w)", "Gemm<transB=1>(r, v)").replace("y =", "v = Neg(w) y ="),
        {},
    ),
}


@pytest.mark.parametrize("name", STAY)
def test_what_reads_all_of(name: str) -> None:
    text, shapes = STAY[name]
    before = State(from_text(text, numbers({**W, **shapes})))
    after = SHRINK(HALF(before))
    assert not after.masks
    assert not said(after, Change)
    assert after.model is before.model


def test_what_would_not_pay_is_said() -> None:
    text, shapes = STAY["a weight with few rows, which is read as fast as a copy is made"]
    state = HALF(State(from_text(text, numbers({**W, **shapes}))))
    reason = "blocked by graph output 'r': the interface never changes"
    assert f"reads all 24 channels of 'r' ({reason}): a copy without 12 would not pay" in said(state, Skip)


def test_a_body_that_reads_the_value_keeps_it_whole(same_answers: Callable[..., None]) -> None:
    text = f"""g (float[N,5] x, bool c) => (float[N,900] y, float[N,24] v) {{ {MADE} y = Gemm<transB=1>(r, w)
        v = If(c) <then_branch = t () => (float[N,24] p) {{ p = Neg(r) }},
        else_branch = e () => (float[N,24] q) {{ q = CumSum(r, one) }}> }}"""
    state = HALF(State(from_text(text, numbers(W))))
    after = SHRINK(state)
    assert lost(state) == {"w": 12}
    assert after.model.initializers["w"].shape == (900, 12)
    same_answers(state.model, after.model)


TWO = (
    f"g (float[N,5] x) => (float[N,24] r, float[N,900] y, float[N,24] s, float[N,900] u) {{ {MADE} "
    "y = Gemm<transB=1>(r, w) s = Neg(r) u = Gemm<transB=1>(s, v) }"
)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, {"w": 12, "v": 12}),
        ({"only": ("w",)}, {"w": 12}),
        ({"skip": ("w",)}, {"v": 12}),
        ({"floor": 20}, {"w": 4, "v": 4}),
        ({"round_to": 16}, {"w": 8, "v": 8}),
        ({"layers": (("v", 0.75),)}, {"w": 12, "v": 18}),
        ({"kinds": ("fc",)}, {"w": 12, "v": 12}),
    ],
)
def test_the_options_hold_for_weights_that_read(options: dict[str, Any], found: dict[str, int]) -> None:
    arrays = numbers({**W, "w": (4000, 24), "v": (4000, 24)})
    model = from_text(TWO.replace("900", "4000"), arrays)
    assert lost(PruneChannels(0.5, scope="layer", **{"round_to": 1, **options})(State(model))) == found


def test_another_kind_of_channel_is_left_alone() -> None:
    text = PINNED.replace("r = Relu(a)", "k = Gather(e, i) r = Add(a, k)").replace(
        "float[N,5] x", "float[N,5] x, int64[N] i"
    )
    model = from_text(text, numbers({**W, "e": (7, 24)}))
    assert lost(HALF(State(model))) == {"w": 12}
    assert not PruneChannels(0.5, round_to=1, kinds=("embedding", "fc"), reads="never")(State(model)).masks
    with pytest.raises(SelectionError, match="the model has embedding"):
        PruneChannels(0.5, kinds=("conv",))(State(model))


def test_weights_with_nan_are_left_alone() -> None:
    arrays = numbers(W)
    arrays["w"] = arrays["w"].astype(np.float32)
    arrays["w"][0, 0] = np.nan
    assert not HALF(State(from_text(PINNED, arrays))).masks


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(SelectionError, match="reads is 'sometimes': choose one of auto, always, never"):
        PruneChannels(0.5, reads="sometimes")  # type: ignore[arg-type]
