from __future__ import annotations

import numpy as np
import pytest
from builders import NDArray, matmuls, proto, ramp, stored, value
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnxprune_passes.arrays import CHUNK
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.nm import nm_keep
from onnxprune_passes.pipeline import Skip, State
from onnxprune_passes.storage import from_proto
from onnxprune_passes.thresholds import NM
from strategies import integers_as


def oracle(values: NDArray, axis: int, n: int, m: int) -> NDArray:
    """Group by group: the n largest of m stay, of equal ones the later."""
    keep = np.ones(values.shape, np.bool_)
    lines, masks = (np.moveaxis(array, axis, -1).reshape(-1, values.shape[axis]) for array in (values, keep.copy()))
    for line, mask in zip(lines, masks, strict=True):
        for start in range(0, len(line) - m + 1, m):
            order = sorted(range(start, start + m), key=lambda at: (abs(line[at]), at))
            mask[order[: m - n]] = False
    shape = np.moveaxis(values, axis, -1).shape
    return np.moveaxis(masks.reshape(shape), -1, axis)


@given(
    integers_as(np.float32, st.sampled_from([(4, 9), (8, 3, 2), (1, 16), (5, 4, 1, 4)]), 3),
    st.integers(0, 3),
    st.sampled_from([(2, 4), (1, 2), (1, 4), (4, 4), (3, 5), (4, 8)]),
)
def test_the_n_largest_of_every_m_stay(values: NDArray, axis: int, rule: tuple[int, int]) -> None:
    axis %= values.ndim
    keep = nm_keep(np.abs(values), axis, *rule)
    assert keep.shape == values.shape
    assert keep.dtype == np.bool_
    assert np.array_equal(keep, oracle(values, axis, *rule))


def test_rows_longer_than_a_chunk_and_many_rows_are_masked_alike() -> None:
    chance = np.random.default_rng(0)
    for shape in ((2, CHUNK + 6), (CHUNK // 4 + 3, 10)):
        values = chance.random(shape).astype(np.float32)
        keep = nm_keep(values, 1, 2, 4)
        whole = shape[1] // 4 * 4
        groups = keep[:, :whole].reshape(-1, 4)
        assert (groups.sum(axis=1) == 2).all()
        assert keep[:, whole:].all()
        largest = np.sort(values[:, :whole].reshape(-1, 4), axis=1)[:, 2:]
        assert np.array_equal(np.sort(values[:, :whole][keep[:, :whole]]), np.sort(largest.reshape(-1)))


@pytest.mark.parametrize(
    ("user", "shape", "in_axis"),
    [
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (8, 6), 0),
        (helper.make_node("MatMul", ["w", "x"], ["y"]), (6, 8), 1),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), (6, 8), 1),
        (helper.make_node("Conv", ["x", "w"], ["y"]), (6, 8, 3, 3), 1),
        (helper.make_node("ConvTranspose", ["x", "w"], ["y"]), (8, 6, 3, 3), 0),
        (helper.make_node("LSTM", ["x", "w", "r"], ["y"]), (1, 24, 8), 2),
    ],
)
def test_groups_run_along_the_input_axis(user: object, shape: tuple[int, ...], in_axis: int) -> None:
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    state = State(from_proto(proto([user], [stored("w", values)], inputs=[value("x", None)])))  # type: ignore[list-item]
    after = MagnitudePrune(NM(2, 4))(state)
    assert np.array_equal(after.model.initializers["w"], values * oracle(values, in_axis, 2, 4))
    assert np.array_equal(after.masks["w"], oracle(values, in_axis, 2, 4))
    assert MagnitudePrune(NM(2, 4))(after) is after


def test_weights_with_a_short_or_unknown_input_axis_are_skipped() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "short"], ["a"]),
        helper.make_node("Reshape", ["turned", "to"], ["t"]),
        helper.make_node("MatMul", ["x", "t"], ["b"]),
        helper.make_node("MatMul", ["x", "long"], ["y"]),
    ]
    arrays = {"short": ramp(3, 9), "turned": ramp(8, 9), "long": ramp(4, 9), "to": np.array([9, 8], np.int64)}
    model = from_proto(proto(nodes, [stored(name, array) for name, array in arrays.items()], inputs=[value("x", None)]))
    after = MagnitudePrune(NM(2, 4))(State(model))
    assert set(after.masks) == {"long"}
    assert {entry.name: entry.reason for entry in after.log if isinstance(entry, Skip)} == {
        "short": "its input axis is 3 long; 2:4 needs 4 or more",
        "turned": "its input axis is unknown; 2:4 needs 4 or more",
    }


def test_what_is_left_over_at_the_end_stays_whole() -> None:
    after = MagnitudePrune(NM(1, 4))(State(matmuls({"w": ramp(11, 3)})))
    kept = after.masks["w"]
    assert kept[8:].all()
    assert kept[:8].sum() == 2 * 3
