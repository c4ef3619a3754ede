"""The arithmetic of Han et al. 2015, tables 2 to 5, from their published columns."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from onnxprune.layers import LayerCost, layer_cost, total_of

ROWS: dict[str, dict[str, tuple[float, float, float]]] = json.loads(
    (Path(__file__).parents[2] / "models" / "paper" / "published.json").read_text()
)


@dataclass(frozen=True)
class Published:
    """One line: entries, products a weight is used for, neurons behind the pooling; Act %, Weights %, FLOP %."""

    name: str
    weights: int
    positions: int
    neurons: int
    act: float
    kept: float
    flop: float


LENET_300_100 = ((784 * 300, 1, 300), (300 * 100, 1, 100), (100 * 10, 1, 10))
LENET_5 = (
    (20 * 25, 24 * 24, 20 * 12 * 12),
    (50 * 20 * 25, 8 * 8, 50 * 4 * 4),
    (800 * 500, 1, 500),
    (500 * 10, 1, 10),
)
ALEXNET = (
    (96 * 3 * 121, 55 * 55, 96 * 27 * 27),
    (256 * 48 * 25, 27 * 27, 256 * 13 * 13),
    (384 * 256 * 9, 13 * 13, 384 * 13 * 13),
    (384 * 192 * 9, 13 * 13, 384 * 13 * 13),
    (256 * 192 * 9, 13 * 13, 256 * 6 * 6),
    (9216 * 4096, 1, 4096),
    (4096 * 4096, 1, 4096),
    (4096 * 1000, 1, 1000),
)


def _vgg() -> tuple[tuple[int, int, int], ...]:
    shapes, source, side = [], 3, 224
    for block in ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3):
        for index, width in enumerate(block, start=1):
            behind = side // 2 if index == len(block) else side
            shapes.append((width * source * 9, side * side, width * behind * behind))
            source = width
        side //= 2
    return (*shapes, (25088 * 4096, 1, 4096), (4096 * 4096, 1, 4096), (4096 * 1000, 1, 1000))


SHAPES = {"lenet_300_100": LENET_300_100, "lenet_5": LENET_5, "alexnet": ALEXNET, "vgg16": _vgg()}
NETWORKS = {
    network: tuple(
        Published(name, *shape, *ROWS[network][name])
        for name, shape in zip((name for name in ROWS[network] if name != "total"), shapes, strict=True)
    )
    for network, shapes in SHAPES.items()
}


def costs(published: tuple[Published, ...]) -> list[LayerCost]:
    """The lines as the project counts them: kept weights and activations from the published columns."""
    found, reads = [], 1.0
    for line in published:
        found.append(
            layer_cost(
                line.name,
                line.weights,
                round(line.weights * line.kept / 100),
                2 * line.weights * line.positions,
                neurons=line.neurons,
                activations=line.act / 100,
                reads=reads,
            )
        )
        reads = line.act / 100
    return found


@pytest.mark.parametrize("network", list(NETWORKS))
def test_flop_share_is_weights_times_activations_of_the_layer_before(network: str) -> None:
    for line, layer in zip(NETWORKS[network], costs(NETWORKS[network]), strict=True):
        assert layer.flop_share is not None
        assert layer.reads is not None
        rounding = 0.5 + 0.5 * (layer.density + layer.reads)  # all three columns are rounded to 1 %
        assert 100 * layer.flop_share == pytest.approx(line.flop, abs=rounding), line.name


@pytest.mark.parametrize(
    ("network", "weights", "act", "kept", "flop"),
    [
        ("lenet_300_100", 266_200, 46.1, 8.2, 7.5),
        ("lenet_5", 430_500, 76.9, 8.4, 16.2),
        ("alexnet", 60_954_656, 54.0, 11.1, 30.3),
        ("vgg16", 138_344_128, 64.2, 7.6, 20.6),  # 7.5 is published: fc6, 3/4 of all weights, is rounded to 4 %
    ],
)
def test_totals_are_weighted_by_neurons_weights_and_flops(
    network: str, weights: int, act: float, kept: float, flop: float
) -> None:
    total = total_of(costs(NETWORKS[network]))
    assert total.weights == weights
    assert total.activations is not None
    assert total.flop_share is not None
    found = (100 * total.activations, 100 * total.density, 100 * total.flop_share)
    assert found == pytest.approx((act, kept, flop), abs=0.06)


def test_kept_weights_of_the_lenets_make_the_published_factors() -> None:
    kept = [total_of(costs(NETWORKS[network])).kept for network in ("lenet_300_100", "lenet_5")]
    assert kept == [21_776, 36_280]


def test_what_is_not_known_is_null_and_counts_whole_in_the_sum() -> None:
    known = layer_cost("a", 100, 50, 1000, neurons=10, activations=0.5, reads=0.5)
    unmeasured = layer_cost("b", 100, 20, 1000)
    unsized = layer_cost("c", 100, 20, None, neurons=30, activations=0.1, reads=1.0)
    assert (unmeasured.activations, unmeasured.flop_share) == (None, None)
    total = total_of([known, unmeasured])
    assert total.activations == 0.5
    assert total.flop_share == pytest.approx((0.25 + 0.2) / 2)
    total = total_of([known, unsized])
    assert (total.flops, total.flop_share) == (None, None)
    assert total.activations == pytest.approx((10 * 0.5 + 30 * 0.1) / 40)


def test_a_table_without_layers_has_a_total() -> None:
    total = total_of([])
    assert (total.weights, total.flops, total.density, total.activations, total.flop_share) == (0, 0, 1.0, None, None)
