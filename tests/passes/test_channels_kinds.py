"""PruneChannels: heads of attention, kinds of channels, layers of their own, BatchNormalization scale as a score."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from channel_nets import CHAIN, MLP, NDArray, Net, answers, built, shrunk, sizes
from onnx import numpy_helper
from onnxprune_passes.channel_groups import find_channels
from onnxprune_passes.channels import PruneChannels
from onnxprune_passes.errors import SelectionError
from onnxprune_passes.model import Model
from onnxprune_passes.neurons.coupled import can_be_cut, coupling
from onnxprune_passes.neurons.groups import traced
from onnxprune_passes.pipeline import Change, Skip, State
from onnxprune_passes.storage import from_proto, to_proto


def attention(heads: int, dim: int, *, scores_are_an_output: bool = False) -> Model:
    """Tokens of 5 numbers, `heads` heads of `dim`, biases on queries, keys and values, then 10 neurons; no softmax."""
    extra = ", float[N,H,T,T] s" if scores_are_an_output else ""
    text = f"""g (float[N,4,5] x) => (float[N,4,2] y{extra}) {{
        q0 = MatMul(x, wq) q1 = Add(q0, bq) q2 = Reshape(q1, split) q = Transpose<perm=[0,2,1,3]>(q2)
        k0 = MatMul(x, wk) k1 = Add(k0, bk) k2 = Reshape(k1, split) k = Transpose<perm=[0,2,3,1]>(k2)
        v0 = MatMul(x, wv) v1 = Add(v0, bv) v2 = Reshape(v1, split) v = Transpose<perm=[0,2,1,3]>(v2)
        s = MatMul(q, k) p = Mul(s, half) o = MatMul(p, v) t = Transpose<perm=[0,2,1,3]>(o) j = Reshape(t, join)
        a = MatMul(j, wo) r = Relu(a) y = MatMul(r, f2) }}"""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    rng = np.random.default_rng(0)
    wide = heads * dim
    arrays: dict[str, NDArray] = {f"w{part}": rng.choice([-2, -1, 1, 2], (5, wide)) for part in "qkv"}
    arrays |= {f"b{part}": rng.integers(1, 3, wide) for part in "qkv"}
    arrays |= {"wo": rng.choice([-1, 1], (wide, 10)), "f2": rng.choice([-1, 1], (10, 2)), "half": np.array(0.5)}
    for name, array in arrays.items():
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    for name, dims in (("split", [0, 0, heads, dim]), ("join", [0, 0, wide])):
        proto.graph.initializer.append(numpy_helper.from_array(np.array(dims, np.int64), name))
    return from_proto(proto)


def shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {name: state.model.initializers[name].shape for name in ("wq", "wk", "wv", "bv", "wo", "f2")}


def test_whole_heads_go_exactly() -> None:
    masked = PruneChannels(0.5, round_to=1, kinds=("head",))(State(attention(4, 6)))
    after = shrunk(masked)
    assert shapes(after) == {"wq": (5, 12), "wk": (5, 12), "wv": (5, 12), "bv": (12,), "wo": (12, 10), "f2": (10, 2)}
    for optimised in (False, True):
        np.testing.assert_array_equal(
            answers(masked.model, optimised=optimised), answers(after.model, optimised=optimised)
        )


def test_the_weakest_heads_go() -> None:
    model = attention(4, 6)
    weak = {key: np.array(model.initializers[key]) for key in ("wq", "wk", "wv")}
    for array in weak.values():
        array[:, 6:12] /= 8
    masked = PruneChannels(0.25, round_to=1, kinds=("head",))(State(model.with_initializers(weak)))
    for key in weak:
        assert np.flatnonzero(~masked.masks[key].any(axis=0)).tolist() == list(range(6, 12))
    assert np.flatnonzero(~masked.masks["wo"].any(axis=1)).tolist() == list(range(6, 12))


def test_a_head_says_what_it_is() -> None:
    first = find_channels(attention(4, 6))[0]
    assert (first.size, first.kinds, first.pinned_by) == (4, ("head",), None)
    assert first.path == "wq out 4 -> q1 -> wk out 4 -> k1 -> wv out 4 -> v1 -> wo in"


def test_where_scores_are_an_output_values_are_channels_of_their_own() -> None:
    model = attention(4, 6, scores_are_an_output=True)
    first, second = find_channels(model)[:2]
    assert first.pinned_by is not None
    assert (second.path, second.size, second.kinds, second.pinned_by) == ("wv out 6 -> v1 -> wo in", 6, ("fc",), None)
    masked = PruneChannels(0.5, scope="layer", round_to=1)(State(model))
    after = shrunk(masked)
    assert after.model.initializers["wq"].shape == (5, 24)
    assert after.model.initializers["wv"].shape == (5, 12)
    np.testing.assert_array_equal(answers(masked.model, optimised=False), answers(after.model, optimised=False))


@pytest.mark.parametrize(("dim", "kept"), [(2, 8), (4, 6), (8, 6), (16, 6)])
def test_of_heads_the_rows_are_rounded(dim: int, kept: int) -> None:
    """Half of 12 heads is 6: 12 rows, no multiple of 8, where a head has 2; from 4 rows a head on it is one."""
    after = shrunk(PruneChannels(0.5, scope="layer", kinds=("head",))(State(attention(12, dim))))
    assert after.model.initializers["wv"].shape == (5, kept * dim)


MIXED: Net = (
    """g (float[N,3,5,5] x) => (float[N,2] y) {
        a = Conv(x, c1.weight, c1.bias) r = Relu(a) f = Flatten(r) b = Gemm<transB=1>(f, f1.weight, f1.bias) s = Relu(b)
        y = Gemm<transB=1>(s, f2.weight, f2.bias) }""",
    {"c1": (16, 3, 5, 5), "f1": (12, 16), "f2": (2, 12)},
)


@pytest.mark.parametrize(("kinds", "left"), [(("conv",), [8, 12]), (("fc",), [16, 6]), (("conv", "fc"), [8, 6])])
def test_only_channels_of_some_kinds(kinds: Any, left: list[int]) -> None:
    after = shrunk(PruneChannels(0.5, scope="layer", round_to=1, kinds=kinds)(State(built(MIXED))))
    assert sizes(after.model) == left


def test_recurrent_units_alone() -> None:
    text = """g (float[7,N,5] x) => (float[7,N,2] y) { a = MatMul(x, f1)
        h = LSTM<hidden_size=12>(a, w, r, b) s = Squeeze(h, axes) y = MatMul(s, f2) }"""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    rng = np.random.default_rng(0)
    dims = {"f1": (5, 16), "w": (1, 48, 16), "r": (1, 48, 12), "b": (1, 96), "f2": (12, 2)}
    for name, shape in dims.items():
        proto.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "axes"))
    model = from_proto(proto)
    assert [group.kinds for group in find_channels(model)] == [("fc",), ("rnn",), ("fc",)]
    after = shrunk(PruneChannels(0.5, round_to=1, kinds=("rnn",))(State(model)))
    assert after.model.initializers["w"].shape == (1, 24, 16)


def test_a_group_of_two_kinds_needs_both() -> None:
    text = """g (float[N,3] x, int64[N] i) => (float[N,2] y) {
        a = Gemm<transB=1>(x, f1.weight, f1.bias) e = Gather(table, i) s = Add(a, e)
        y = Gemm<transB=1>(s, f2.weight, f2.bias) }"""
    proto = to_proto(built((text, {"f1": (6, 3), "f2": (2, 6)})))
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((9, 6), np.float32), "table"))
    model = from_proto(proto)
    assert find_channels(model)[0].kinds == ("embedding", "fc")
    assert PruneChannels(0.5, kinds=("fc",))(State(model)).model is model
    assert PruneChannels(0.5, kinds=("fc", "embedding"))(State(model)).model is not model


@pytest.mark.parametrize("options", [{"skip": ("table",)}, {"only": ("f2*",)}, {"layers": (("table", 0.0),)}])
def test_a_table_of_embeddings_can_be_named(options: Any) -> None:
    text = """g (int64[N] i) => (float[N,2] y) { e = Gather(table, i) y = Gemm<transB=1>(e, f2.weight, f2.bias) }"""
    proto = to_proto(built((text, {"f2": (2, 6)})))
    proto.graph.initializer.append(numpy_helper.from_array(np.arange(54, dtype=np.float32).reshape(9, 6), "table"))
    state = State(from_proto(proto))
    assert PruneChannels(0.5, **options)(state).model is state.model
    assert PruneChannels(0.5)(state).masks["table"].sum() == 27


def test_a_kind_that_no_channel_has_is_an_error() -> None:
    with pytest.raises(SelectionError, match="no group of channels is of kind head or rnn: the model has conv, fc;"):
        PruneChannels(0.5, kinds=("head", "rnn"))(State(built(MIXED)))
    with pytest.raises(SelectionError, match="choose one of conv, fc, rnn, embedding, head"):
        PruneChannels(0.5, kinds=("linear",))  # type: ignore[arg-type]


def test_layers_of_their_own() -> None:
    def left(*layers: tuple[str, float], **options: Any) -> list[int]:
        return sizes(shrunk(PruneChannels(layers=layers, round_to=1, **options)(State(built(MLP)))).model)

    assert left(("f1*", 0.25), sparsity=0.5, scope="layer") == [15, 5]
    assert left(("f*", 0.9), ("f1*", 0.25), sparsity=0.5, scope="layer") == [15, 1]
    assert left(("f1*", 0.25), sparsity=0.5) == [15, 5]
    assert left(("f1*", 0.0), sparsity=0.5) == [20, 5]
    with pytest.raises(SelectionError, match="matches none"):
        left(("nothing", 0.5), sparsity=0.5)
    with pytest.raises(SelectionError, match="sparsity"):
        left(("f1*", 1.0), sparsity=0.5)


def test_the_scale_of_batch_normalization_is_a_score() -> None:
    """Channels 3, 8 and 11 have the smallest |scale|, though not the smallest weights; the second group passes none."""
    scale = np.full(20, -4.0)
    scale[[3, 8, 11]] = [0.5, -0.25, 0.125]
    model = built(CHAIN, bn_s=scale)
    c1 = np.array(model.initializers["c1_weight"])
    c1[[3, 8, 11]] *= 8
    state = State(model.with_initializers({"c1_weight": c1}))
    masked = PruneChannels(0.15, scope="layer", round_to=1, score="batchnorm")(state)
    assert np.flatnonzero(~masked.masks["c1_weight"].any(axis=(1, 2, 3))).tolist() == [3, 8, 11]
    assert (~masked.masks["c2_weight"].any(axis=(1, 2, 3))).sum() == 2
    said = next(entry.summary for entry in masked.log if isinstance(entry, Change))
    assert "by BatchNormalization scale in 1 of 2 groups, by l2 sum in the others, which pass none" in said
    by_norm = PruneChannels(0.15, scope="layer", round_to=1)(state)
    assert by_norm.masks["c1_weight"][[3, 8, 11]].all()
    np.testing.assert_array_equal(
        answers(masked.model, optimised=False), answers(shrunk(masked).model, optimised=False)
    )


def test_what_would_empty_an_axis_stays_and_says_why() -> None:
    found = coupling(traced(built(MLP)))
    first = found.groups[0].channels
    chosen, stays = can_be_cut(found, first)
    assert chosen.tolist() == first[1:].tolist()
    assert list(stays) == [first[0]]
    assert stays[int(first[0])].startswith("blocked by Gemm node 'a': it would lose all that it has")


def test_weights_that_are_not_followed_are_listed_and_said() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (uint8[N,6] x) => (int32[N,4] y) {
        a = MatMulInteger(x, w) y = Identity(a) }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(numpy_helper.from_array(np.full((6, 4), 3, np.uint8), "w"))
    model = from_proto(proto)
    (group,) = find_channels(model)
    assert (group.path, group.size, group.kinds) == ("w out 4", 4, ("fc",))
    assert group.norms == pytest.approx([np.sqrt(6 * 9)] * 5)
    assert str(group.pinned_by).startswith("blocked by MatMulInteger node 'a': its weight is quantised")
    after = PruneChannels(0.5)(State(model))
    assert after.log == (Skip("prune-channels", "w", f"4 channels stay: {group.pinned_by}"),)


def test_units_of_a_recurrent_layer_that_is_not_followed_are_said() -> None:
    text = """g (float[7,N,5] x) => (float[7,1,N,4] y) {
        r = Neg(r0) y = LSTM<hidden_size=4>(x, w, r) }"""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((1, 16, 5), np.float32), "w"))
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((1, 16, 4), np.float32), "r0"))
    (group,) = find_channels(from_proto(proto))
    assert (group.path, group.size, group.kinds) == ("w out 4", 4, ("rnn",))
    assert group.norms == pytest.approx([np.sqrt(4 * 5)] * 5)
    assert str(group.pinned_by).startswith("blocked by LSTM node 'y'")
