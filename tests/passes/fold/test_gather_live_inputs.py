"""One Gather of the live features of an input, where it makes the file smaller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnxprune_passes.encode import encode_model, file_nbytes
from onnxprune_passes.encode.plan import Encoding
from onnxprune_passes.fold import GatherLiveInputs
from onnxprune_passes.masks import Masks, apply_masks
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Skip, State
from onnxprune_passes.storage import save

Array = npt.NDArray[Any]
Case = tuple[str, dict[str, Any], dict[str, Any]]
DENSE = GatherLiveInputs("dense")
DEAD = [0, 3, 4, 5, 7]
W = {"w": ((80, 8), {1: DEAD})}
TURNED = {"w": ((8, 80), {0: DEAD})}
ROWS = "g (float[N,8] x) => (float[N,80] y)"

GOLDENS: dict[str, Case] = {
    "live_gemm": (f"{ROWS} {{ y = Gemm<transB=1>(x, w) }}", W, {}),
    "live_gemm_of_a_turned_input": ("g (float[8,5] x) => (float[5,80] y) { y = Gemm<transA=1>(x, w) }", TURNED, {}),
    "live_gemm_on_the_right": ("g (float[8,5] x) => (float[80,5] y) { y = Gemm(w, x) }", W, {}),
    "live_matmul": ("g (float[N,3,8] x) => (float[N,3,80] y) { y = MatMul(x, w) }", TURNED, {}),
    "live_pixels": (
        "g (float[N,2,2,2] x) => (float[N,80] y) { a = Sub(x, m) b = Flatten(a) y = Gemm<transB=1>(b, w) }",
        {**W, "m": [1.0]},
        {},
    ),
    "live_conv": (
        "g (float[N,3,4,4] x) => (float[N,20,4,4] y) { y = Conv<pads=[1,1,1,1]>(x, w) }",
        {"w": ((20, 3, 3, 3), {1: [1]})},
        {},
    ),
    "live_conv_transpose": (
        "g (float[N,3,4,4] x) => (float[N,20,h,k] y) { y = ConvTranspose(x, w) }",
        {"w": ((3, 20, 3, 3), {0: [0]})},
        {},
    ),
    "live_lstm": (
        "g (float[2,N,8] x) => (float[2,1,N,10] y) { y = LSTM<hidden_size=10>(x, w, r) }",
        {"w": ((1, 40, 8), {2: DEAD}), "r": ((1, 40, 10),)},
        {"exact": False},
    ),
    "live_for_two_readers": (
        "g (float[N,8] x) => (float[N,80] y, float[N,80] z, float[N,8] k) "
        "{ y = Gemm<transB=1>(x, w) z = Gemm<transB=1>(x, v) k = Neg(x) }",
        {**W, "v": ((80, 8), {1: [0, 1, 3, 4, 5]})},
        {},
    ),
    "live_for_one_weight_read_twice": (
        "g (float[N,8] x) => (float[N,80] y, float[N,80] z) { y = Gemm<transB=1>(x, w) z = Gemm<transB=1>(x, w, b) }",
        {**W, "b": [2.0]},
        {},
    ),
    "live_of_joined_inputs": (
        "g (float[N,4] a, float[N,4] b) => (float[N,80] y) { x = Concat<axis=1>(a, b) y = Gemm<transB=1>(x, w) }",
        W,
        {},
    ),
    "live_none": (f"{ROWS} {{ y = Gemm<transB=1>(x, w, b) }}", {"w": np.zeros((80, 8), np.float32), "b": [1.0]}, {}),
    "live_in_an_old_file": (f"{ROWS} {{ y = Gemm<transB=1>(x, w, b) }}", {**W, "b": [1.0]}, {"opset": 8, "ir": 3}),
    # what stays
    "live_weight_read_elsewhere": (
        "g (float[N,8] x, float[N,8] k) => (float[N,80] y, float[N,80] z) "
        "{ y = Gemm<transB=1>(x, w) z = Gemm<transB=1>(k, w) }",
        W,
        {},
    ),
    "live_weight_computed": (f"{ROWS} {{ v = Neg(w) y = Gemm<transB=1>(x, v) }}", W, {}),
    "live_behind_a_weight": (f"{ROWS} {{ a = Relu(x) y = Gemm<transB=1>(a, w) }}", W, {}),
    "live_groups": (
        "g (float[N,4,4] x) => (float[N,40,k] y) { y = Conv<group=2>(x, w) }",
        {"w": ((40, 2, 1), {1: [1]})},
        {},
    ),
    "live_table": (
        "g (int64[N] x) => (float[N,80] y) { a = Gather(t, x) y = Gemm<transB=1>(a, w) }",
        {**W, "t": ((5, 8),)},
        {},
    ),
    "live_does_not_pay": (f"{ROWS.replace('80', '3')} {{ y = Gemm<transB=1>(x, w) }}", {"w": ((3, 8), {1: [0]})}, {}),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name: str, golden: Callable[..., None]) -> None:
    golden(DENSE, name, *GOLDENS[name])


def test_everything_live_is_the_same_object(build: Callable[..., Model], ints: Any) -> None:
    state = State(build(f"{ROWS} {{ y = Gemm<transB=1>(x, w) }}", {"w": ints((80, 8))}))
    assert DENSE(state) is state


def test_training_graphs_are_refused(build: Callable[..., Model], ints: Any, reasons: Any) -> None:
    model = build(f"{ROWS} {{ y = Gemm<transB=1>(x, w) }}", {"w": ints((80, 8), {1: DEAD})})
    model.skeleton.training_info.add()
    assert reasons(DENSE(State(model))) == ["the graph: it holds training graphs, which would no longer fit"]


def test_masks_lose_the_same_columns(build: Callable[..., Model], ints: Any, folded: Callable[..., State]) -> None:
    keep = np.random.default_rng(1).random((80, 8)) < 0.7
    keep[:, DEAD] = False
    masks = Masks({"w": keep})
    model = apply_masks(build(f"{ROWS} {{ y = Gemm<transB=1>(x, w) }}", {"w": ints((80, 8))}), masks)
    after = folded(DENSE, model, before=State(model, masks))
    live = [at for at in range(8) if at not in DEAD]
    assert np.array_equal(after.masks["w"], keep[:, live])
    assert np.array_equal(after.model.initializers["w"], model.initializers["w"][:, live])


def test_a_later_run_narrows_the_same_gather(
    build: Callable[..., Model], ints: Any, same_answers: Callable[..., None]
) -> None:
    first = DENSE(State(build(f"{ROWS} {{ y = Gemm<transB=1>(x, w) }}", {"w": ints((80, 8), {1: DEAD})}))).model
    weight = first.initializers["w"].copy()
    weight[:, 1] = 0
    second = first.with_initializers({"w": weight})
    after = DENSE(State(second)).model
    assert [node.op_type for node in after.graph.node] == ["Gather", "Gemm"]
    assert sorted(array.tolist() for array in after.initializers.values() if array.ndim == 1) == [[1, 6]]
    same_answers(second, after)


def test_a_weight_that_is_a_graph_input_follows(
    build: Callable[..., Model], ints: Any, folded: Callable[..., State]
) -> None:
    text = "g (float[N,8] x, float[80,8] w) => (float[N,80] y) { y = Gemm<transB=1>(x, w) }"
    after = folded(DENSE, build(text, {"w": ints((80, 8), {1: DEAD})})).model
    sizes = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in after.graph.input]
    assert sizes == [[0, 8], [80, 3]]


def _nbytes(model: Model, encoding: Encoding, path: Path) -> int:
    """Without the form that leaves dead columns out of what is stored, which saves no arithmetic."""
    return save(encode_model(model, encoding, live=False).model, path).stat().st_size


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 200),
    columns=st.integers(2, 300),
    dead=st.floats(0, 1),
    sparsity=st.sampled_from([0, 0.5, 0.9, 0.97]),
    encoding=st.sampled_from(["dense", "auto", "gaps", "bitmask", "coo"]),
    seed=st.integers(0, 99),
)
def test_the_file_gets_smaller_or_stays(
    rows: int,
    columns: int,
    dead: float,
    sparsity: float,
    encoding: Encoding,
    seed: int,
    build: Callable[..., Model],
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, columns)).astype(np.float32)
    weight[rng.random(weight.shape) < sparsity] = 0
    weight[:, rng.random(columns) < dead] = 0
    # beside a larger weight, so that the functions are in the file anyway
    other = rng.standard_normal((100, 400)).astype(np.float32) * (rng.random((100, 400)) < 0.1)
    text = f"g (float[N,{columns}] x, float[N,400] z) => (float[N,{rows}] y, float[N,100] u) "
    text += "{ y = Gemm<transB=1>(x, w) u = Gemm<transB=1>(z, v) }"
    before = State(build(text, {"w": weight, "v": other.astype(np.float32)}))
    after = GatherLiveInputs(encoding)(before)
    sizes = [_nbytes(state.model, encoding, tmp_path / "m.onnx") for state in (before, after)]
    if after.model is before.model:
        assert all(isinstance(entry, Skip) for entry in after.log)
    else:
        assert sizes[1] < sizes[0]
    assert GatherLiveInputs(encoding)(after) is after


def test_the_encoding_decides(build: Callable[..., Model], ints: Any, reasons: Any) -> None:
    """Zero columns cost nothing to speak of among gaps, and 4 bytes an entry when dense."""
    weight = ints((40, 600), {1: list(range(100))})
    weight[np.random.default_rng(0).random(weight.shape) < 0.97] = 0
    model = build("g (float[N,600] x) => (float[N,40] y) { y = Gemm<transB=1>(x, w) }", {"w": weight})
    assert DENSE(State(model)).model is not model
    coded = GatherLiveInputs("gaps")(State(model))
    assert coded.model is model
    assert reasons(coded) == [
        "x: 241 of 600 features of 'x' are dead, but to leave them out would not make the file smaller"
    ]


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("encoding", ["dense", "bitmask"])
def test_the_bytes_it_tells_are_those_of_the_files(
    encoding: Encoding, inline: bool, build: Callable[..., Model], ints: Any, summary: Any
) -> None:
    """Once the weight is small, its decoder written out takes more than it gains."""
    model = build(
        "g (float[N,600] x) => (float[N,5] y) { y = MatMul(x, w) }", {"w": ints((600, 5), {0: list(range(40, 600))})}
    )
    after = GatherLiveInputs(encoding, inline=inline)(State(model))
    before, now = (file_nbytes(encode_model(one, encoding, inline=inline).model) for one in (model, after.model))
    assert f"which takes {before - now:,} bytes less" in summary(after)


def test_within_the_graph_features_that_something_keeps_are_left_out(
    build: Callable[..., Model], ints: Any, same_answers: Callable[..., None], summary: Any
) -> None:
    """What a convolution makes is a graph output too; the two behind it read 3 of 8 channels, through one Gather."""
    text = "g (float[N,2,6,6] x) => (float[N,8,6,6] r, float[N,9,4,4] y, float[N,5,6,6] z, float[N,8,6,6] k) "
    text += "{ a = Conv<pads=[1,1,1,1]>(x, f) r = Relu(a) y = Conv(r, w) z = Conv(r, v) k = Neg(r) }"
    weights = {"f": ints((8, 2, 3, 3)), "w": ints((9, 8, 3, 3), {1: DEAD}), "v": ints((5, 8, 1, 1), {1: DEAD})}
    before = build(text, weights)
    after = DENSE(State(before))
    assert "left out 5 of 8 features of 'r' for w, v" in summary(after)
    assert [node.op_type for node in after.model.graph.node].count("Gather") == 1
    assert [after.model.initializers[key].shape for key in "fwv"] == [(8, 2, 3, 3), (9, 3, 3, 3), (5, 3, 1, 1)]
    same_answers(before, after.model)
    # a later run narrows it, though for so few channels no new one would pay
    weight = {key: after.model.initializers[key].copy() for key in "wv"}
    for array in weight.values():
        array[:, 1] = 0
    second = after.model.with_initializers(weight)
    narrowed = DENSE(State(second)).model
    assert [narrowed.initializers[key].shape[1] for key in "wv"] == [2, 2]
    assert [node.op_type for node in narrowed.graph.node].count("Gather") == 1
    same_answers(second, narrowed)


@pytest.mark.parametrize(
    ("text", "shape", "taken"),
    [
        # copied one by one: 400 multiplications for each number, dead columns of 40 of 80
        ("(float[N,80] x) => (float[N,80] r, float[N,{}] y) {{ r = Sigmoid(x) y = Gemm<transB=1>(r, w) }}", 399, False),
        ("(float[N,80] x) => (float[N,80] r, float[N,{}] y) {{ r = Sigmoid(x) y = Gemm<transB=1>(r, w) }}", 400, True),
        # one row: 256
        ("(float[1,80] x) => (float[1,80] r, float[1,{}] y) {{ r = Sigmoid(x) y = Gemm<transB=1>(r, w) }}", 255, False),
        ("(float[1,80] x) => (float[1,80] r, float[1,{}] y) {{ r = Sigmoid(x) y = Gemm<transB=1>(r, w) }}", 256, True),
        # rows of 16 and more numbers: 16
        ("(float[80,16] x) => (float[80,16] r, float[{},16] y) {{ r = Sigmoid(x) y = Gemm(w, r) }}", 15, False),
        ("(float[80,16] x) => (float[80,16] r, float[{},16] y) {{ r = Sigmoid(x) y = Gemm(w, r) }}", 16, True),
        ("(float[80,15] x) => (float[80,15] r, float[{},15] y) {{ r = Sigmoid(x) y = Gemm(w, r) }}", 16, False),
        ("(float[80,M] x) => (float[80,M] r, float[{},M] y) {{ r = Sigmoid(x) y = Gemm(w, r) }}", 16, True),
    ],
)
def test_within_the_graph_only_what_is_likely_to_take_no_longer(
    text: str, shape: int, taken: bool, build: Callable[..., Model], ints: Any, reasons: Any
) -> None:
    before = build(f"g {text.format(shape)}", {"w": ints((shape, 80), {1: list(range(40))})})
    after = DENSE(State(before))
    assert (after.model is not before) == taken
    slow = ["r: 40 of 80 features of 'r' are dead, but a copy of the others would likely take longer"]
    assert reasons(after) == ([] if taken else slow)
