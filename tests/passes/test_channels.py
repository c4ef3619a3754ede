"""PruneChannels: what is chosen, how much of it, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from channel_nets import CHAIN, MLP, NETS, SIZES, built, free_sizes, shrunk, sizes
from onnxprune_passes.channel_groups import find_channels
from onnxprune_passes.channels import PruneChannels
from onnxprune_passes.errors import SelectionError
from onnxprune_passes.masks import Masks, apply_masks
from onnxprune_passes.model import Model
from onnxprune_passes.neurons.choose import Counts, sparsity_from
from onnxprune_passes.pipeline import Change, Skip, State
from onnxprune_passes.storage import from_proto, to_proto


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.9])
def test_by_layer_each_group_loses_exactly_its_share(name: str, sparsity: float) -> None:
    model = built(NETS[name])
    assert free_sizes(model) == SIZES[name]
    after = shrunk(PruneChannels(sparsity, scope="layer", round_to=1)(State(model)))
    assert sizes(after.model) == [size - int(size * sparsity) for size in SIZES[name]]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.75])
def test_globally_exactly_the_share_of_all(name: str, sparsity: float) -> None:
    after = shrunk(PruneChannels(sparsity, round_to=1)(State(built(NETS[name]))))
    total = sum(SIZES[name])
    assert sum(sizes(after.model)) == total - int(total * sparsity)


def test_29_of_100_by_decimal_arithmetic() -> None:
    assert Counts(1, 1).kept(100, sparsity_from(0.29)) == 71


@pytest.mark.parametrize(
    ("size", "sparsity", "round_to", "floor", "kept"),
    [
        (64, 0.5, 8, 1, 32),
        (64, 0.55, 8, 1, 32),
        (64, 0.45, 8, 1, 40),
        (20, 0.5, 8, 1, 16),
        (20, 0.5, 4, 1, 12),
        (20, 0.5, 1, 1, 10),
        (9, 0.5, 8, 1, 8),
        (8, 0.5, 8, 1, 4),
        (17, 0.01, 8, 1, 17),
        (64, 0.99, 8, 1, 8),
        (64, 0.99, 1, 1, 1),
        (4, 0.99, 8, 1, 1),
        (64, 0.99, 1, 10, 10),
        (64, 0.99, 8, 10, 16),
        (5, 0.99, 1, 10, 5),
        (1, 0.99, 1, 1, 1),
        (64, 0.0, 8, 1, 64),
    ],
)
def test_what_stays_is_rounded_up_and_above_the_floor(
    size: int, sparsity: float, round_to: int, floor: int, kept: int
) -> None:
    counts = Counts(round_to, floor)
    assert counts.kept(size, sparsity_from(sparsity)) == kept
    assert size - kept in counts.steps(size)


def test_globally_only_allowed_counts_are_steps() -> None:
    assert Counts(8, 1).steps(20) == [0, 4, 12]
    assert Counts(4, 9).steps(20) == [0, 4, 8]
    assert Counts(8, 1).steps(3) == [0, 1, 2]
    assert Counts(1, 5).steps(4) == [0]


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_floor_is_kept_in_every_group(scope: Any) -> None:
    after = shrunk(PruneChannels(0.9, scope=scope, round_to=1, floor=7)(State(built(MLP))))
    assert min(sizes(after.model)) >= 7
    without = shrunk(PruneChannels(0.9, scope=scope, round_to=1)(State(built(MLP))))
    assert min(sizes(without.model)) < 7


def weak(model: Model, neurons: list[int]) -> Model:
    """The MLP with small numbers in all that makes and reads some neurons of its first layer."""
    f1, f2 = (np.array(model.initializers[key]) for key in ("f1_weight", "f2_weight"))
    f1[neurons] /= 64
    f2[:, neurons] /= 64
    return model.with_initializers({"f1_weight": f1, "f2_weight": f2})


def first_layer(state: State) -> list[int]:
    """Which neurons of the MLP's first layer are masked."""
    return [] if "f1_weight" not in state.masks else np.flatnonzero(~state.masks["f1_weight"].any(axis=1)).tolist()


def test_the_weakest_go_in_what_makes_and_in_what_reads_them() -> None:
    state = PruneChannels(0.25, scope="layer", round_to=1)(State(weak(built(MLP), [1, 4, 7, 12, 19])))
    assert first_layer(state) == [1, 4, 7, 12, 19]
    assert np.flatnonzero(~state.masks["f2_weight"].any(axis=0)).tolist() == [1, 4, 7, 12, 19]
    assert state.masks["f1_weight"].sum() == 15 * 6


def test_a_channel_counts_relative_to_its_group() -> None:
    """Globally the scale of a layer does not matter: the second layer is not emptied for being small."""
    model = built(MLP)
    model = model.with_initializers({"f3_weight": model.initializers["f3_weight"] / 1024})
    model = model.with_initializers({"f2_weight": model.initializers["f2_weight"] / 1024})
    found = sizes(shrunk(PruneChannels(0.3, round_to=1)(State(model))).model)
    assert sum(found) == 21
    assert found[1] > 1


def test_norms_differ() -> None:
    """Neuron 0 has one weight of 4 (l1 4, l2 4), neuron 2 six of 1.5 (l1 9, l2 3.7)."""
    f1, f2 = np.zeros((20, 6)), np.zeros((10, 20))
    f1[:] = 8
    f1[0], f1[2] = [4, 0, 0, 0, 0, 0], [1.5] * 6
    model = built(MLP, f1_weight=f1, f2_weight=f2)
    for norm, first in (("l1", 0), ("l2", 2)):
        state = PruneChannels(0.05, scope="layer", round_to=1, norm=norm)(State(model))  # type: ignore[arg-type]
        assert first_layer(state) == [first]


def test_reductions_differ() -> None:
    """Neuron 0 is weak where 6 weights make it, neuron 1 where 10 read it: together 1 has less (78 < 86), by mean 0."""
    f1, f2 = np.full((20, 6), 8.0), np.full((10, 20), 8.0)
    f1[0], f2[:, 1] = 1, 3
    model = built(MLP, f1_weight=f1, f2_weight=f2)
    for reduce, first in (("sum", 1), ("mean", 0)):
        state = PruneChannels(0.05, scope="layer", round_to=1, norm="l1", reduce=reduce)(State(model))  # type: ignore[arg-type]
        assert first_layer(state) == [first]


def test_scopes_differ() -> None:
    model = weak(built(MLP), [0, 1, 2, 3, 4, 5])
    by_layer = PruneChannels(0.2, scope="layer", round_to=1)(State(model))
    globally = PruneChannels(0.2, round_to=1)(State(model))
    assert len(first_layer(by_layer)) == 4
    assert first_layer(globally) == [0, 1, 2, 3, 4, 5]


def test_a_channel_that_reaches_an_output_is_left_and_said() -> None:
    state = PruneChannels(0.5)(State(built(MLP)))
    reason = "4 channels stay: blocked by graph output 'y': the interface never changes"
    assert [entry for entry in state.log if isinstance(entry, Skip)] == [Skip("prune-channels", "f3_weight", reason)]
    changes = [entry.summary for entry in state.log if isinstance(entry, Change)]
    assert len(changes) == 1
    assert "masked 14 of 34 channels, 4 pinned or left out: f1_weight 20 -> 8" in changes[0]


def test_a_channel_that_a_softmax_reads_is_left_and_said() -> None:
    text = """g (float[N,3] x) => (float[N,2] y) {
        a = Gemm<transB=1>(x, f1.weight, f1.bias) s = Softmax<axis=1>(a) y = Gemm<transB=1>(s, f2.weight, f2.bias) }"""
    before = State(built((text, {"f1": (6, 3), "f2": (2, 6)})))
    after = PruneChannels(0.5)(before)
    assert after.model is before.model
    assert any("6 channels stay: blocked by Softmax" in entry.reason for entry in after.log if isinstance(entry, Skip))


def test_masks_only_shrink() -> None:
    model = built(MLP)
    keep = np.ones((20, 6), np.bool_)
    keep[3:9, 2] = False
    masks = Masks({"f1_weight": keep})
    after = PruneChannels(0.5, round_to=1)(State(apply_masks(model, masks), masks))
    assert not after.masks["f1_weight"][~keep].any()
    assert after.masks["f1_weight"].sum() < keep.sum()
    assert not after.model.initializers["f1_weight"][~after.masks["f1_weight"]].any()


def test_channels_that_are_zero_already_count() -> None:
    f1, f2 = (np.array(built(MLP).initializers[key]) for key in ("f1_weight", "f2_weight"))
    f1[:10] = 0
    f2[:, :10] = 0
    f2[:5] = 0
    model = built(MLP, f1_weight=f1, f2_weight=f2, f3_weight=np.repeat([[0, 1]], 4, axis=0).repeat(5, axis=1))
    state = State(model)
    after = PruneChannels(0.5, scope="layer", round_to=1)(state)
    assert after.model is model
    assert not after.masks


def test_only_and_skip() -> None:
    def left(**options: Any) -> list[int]:
        return sizes(shrunk(PruneChannels(0.5, scope="layer", round_to=1, **options)(State(built(MLP)))).model)

    assert left(only=("f1*",)) == [10, 10]
    assert left(only=("f2*",)) == [20, 5]
    assert left(skip=("f3*",)) == [10, 10]
    with pytest.raises(SelectionError, match="matches none"):
        left(skip=("nothing",))


def test_a_weight_with_nan_loses_no_channels() -> None:
    f2 = np.ones((10, 20))
    f2[0, 0] = np.nan
    state = PruneChannels(0.5, round_to=1)(State(built(MLP, f2_weight=f2)))
    assert "f1_weight" not in state.masks
    assert any("holds NaN or infinity" in entry.reason for entry in state.log if isinstance(entry, Skip))


def test_nothing_to_do_is_the_same_model() -> None:
    state = State(built(MLP))
    assert PruneChannels(0.0)(state).model is state.model


def test_a_graph_that_is_not_followed_is_said() -> None:
    proto = to_proto(built(MLP))
    proto.training_info.add()
    state = State(from_proto(proto))
    after = PruneChannels(0.5)(state)
    assert after.model is state.model
    assert [entry.name for entry in after.log if isinstance(entry, Skip)] == ["the graph"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, "sparsity"),
        ({"sparsity": -0.1}, "sparsity"),
        ({"sparsity": 0.5, "scope": "local"}, "choose one of global, layer"),
        ({"sparsity": 0.5, "norm": "l3"}, "choose one of l1, l2"),
        ({"sparsity": 0.5, "reduce": "max"}, "choose one of sum, mean"),
        ({"sparsity": 0.5, "round_to": 0}, "round_to is 0"),
        ({"sparsity": 0.5, "floor": 0}, "floor is 0"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        PruneChannels(**options)


def test_groups_read_like_the_network() -> None:
    first, second, last = find_channels(built(CHAIN))
    node = next(node.output[0] for node in built(CHAIN).graph.node if node.op_type == "BatchNormalization")
    assert first.path == f"c1_weight out 20 -> {node} -> c2_weight in"
    assert second.path == "c2_weight out 16 -> fc_weight in"
    assert (first.size, first.pinned_by) == (20, None)
    assert last.pinned_by is not None
    assert "graph output 'y'" in last.pinned_by
    model = built(CHAIN)
    c1, c2 = (model.initializers[key].astype(np.float64) for key in ("c1_weight", "c2_weight"))
    norms = np.sqrt(np.square(c1).sum(axis=(1, 2, 3)) + np.square(c2).sum(axis=(0, 2, 3)))
    assert first.norms == pytest.approx(np.quantile(norms, [0, 0.25, 0.5, 0.75, 1]), rel=1e-12)
