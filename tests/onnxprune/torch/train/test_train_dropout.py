"""Dropout by name, its rates after a prune, and what it may be named by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from onnxprune_passes.errors import SelectionError
from onnxprune_passes.masks import Masks
from onnxprune_passes.model import Model

from onnxprune.torch import module_from_model, write_back
from onnxprune.torch.train.dropout import install

Make = Callable[..., Model]
Weights = Callable[..., Any]


def kept(shape: tuple[int, ...], count: int) -> Any:
    """A mask that keeps the first `count` entries."""
    return (np.arange(int(np.prod(shape))) < count).reshape(shape)


def test_rates_follow_the_connections_that_are_left(convnet: Model) -> None:
    """Han et al. 2015, equation 2: a layer of 512 connections of which 26 are left drops 0.5 · √(26 / 512)."""
    module = module_from_model(convnet)
    hold = install(module, {"h": 0.5, "l": 0.4}, Masks({"w": kept((64, 8), 26)}))
    assert hold.layers == {"h": ("w",), "l": ("u",)}
    assert hold.rates == {"h": pytest.approx(0.5 * np.sqrt(26 / 512)), "l": 0.4}
    hold.update(Masks({"w": kept((64, 8), 8), "u": kept((3, 8), 6)}))
    assert hold.rates == {"h": pytest.approx(0.5 * np.sqrt(8 / 512)), "l": pytest.approx(0.2)}
    assert module.dropout == hold.rates
    hold.update()
    assert hold.rates == {"h": 0.5, "l": 0.4}, "the module was made without masks"


def test_masks_are_those_of_the_module_unless_given(convnet: Model, masks: Masks) -> None:
    module = module_from_model(convnet, masks)
    assert install(module, {"h": 0.5}).rates["h"] == pytest.approx(0.5 * np.sqrt(masks.kept("w") / 512))
    assert install(module, {"h": 0.5}, Masks()).rates["h"] == 0.5


def test_it_drops_that_share_of_the_values_while_training(convnet: Model, masks: Masks) -> None:
    module = module_from_model(convnet, masks, outputs=["h"])
    hold = install(module, {"h": 0.8})
    torch.manual_seed(0)
    x = torch.randn(3000, 1, 4, 4)
    plain = module.eval()(x)[0]
    alive = plain > 0
    dropped = module.train()(x)[0]
    assert abs(float((dropped[alive] == 0).float().mean()) - hold.rates["h"]) < 0.02
    torch.testing.assert_close(dropped[dropped != 0], (plain / (1 - hold.rates["h"]))[dropped != 0])
    assert torch.equal(module.eval()(x)[0], plain)
    hold.remove()
    assert torch.equal(module.train()(x)[0], plain)
    assert hold.rates == {}


def test_the_graph_is_not_touched(convnet: Model) -> None:
    module = module_from_model(convnet)
    install(module, {"h": 0.5})
    module(torch.zeros(2, 1, 4, 4))
    assert write_back(module, convnet) is convnet


@pytest.mark.parametrize(
    ("glob", "values"),
    [
        ("h", {"h"}),  # a value
        ("[hr]", {"h", "r"}),
        ("x", {"x"}),  # an input
        ("w", {"q"}),  # a weight: behind the Add of its bias
        ("u", {"l"}),  # a weight with its own bias
        ("cw", {"c"}),
        ("fc", {"p"}),  # a node's name
        ("*", {"x", "c", "n", "r", "k", "p", "q", "h", "l", "y"}),
    ],
)
def test_values_nodes_and_weights_may_be_named(convnet: Model, glob: str, values: set[str]) -> None:
    proto = convnet.skeleton
    for node in proto.graph.node:
        node.name = "fc" if node.output[0] == "p" else ""
    assert set(install(module_from_model(convnet.with_skeleton(proto)), {glob: 0.5}).rates) == values


def test_an_input_keeps_its_rate_and_a_sum_counts_both_branches(make: Make, weights: Weights) -> None:
    body = "a = MatMul(x, w) r = Relu(a) b = MatMul(x, v) s = Add(r, b) t = Tanh(s) y = MatMul(t, u)"
    named = {"w": weights(4, 4), "v": weights(4, 4, seed=1), "u": weights(4, 2)}
    module = module_from_model(make(body, "float[N, 4] x", "float[N, 2] y", named))
    hold = install(module, {"t": 0.5, "x": 0.3}, Masks({"w": kept((4, 4), 6), "v": kept((4, 4), 2)}))
    assert set(hold.layers["t"]) == {"w", "v"}
    assert hold.rates == {"t": pytest.approx(0.25), "x": 0.3}


def test_weights_behind_other_nodes_and_in_bodies_count(make: Make, weights: Weights) -> None:
    """Through a Transpose of the weight, and from a branch of an If whose weight lies outside."""
    body = """
        wt = Transpose<perm = [1, 0]>(w)
        a = MatMul(x, wt)
        y = If (flag) <
            then_branch = yes () => (float[N, 3] one) { z = MatMul(a, v) one = Relu(z) },
            else_branch = no () => (float[N, 3] two) { two = MatMul(a, u) }
        >"""
    named = {"w": weights(5, 4), "v": weights(5, 3), "u": weights(5, 3, seed=1)}
    model = make(body, "float[N, 4] x, bool flag", "float[N, 3] y", named)
    module = module_from_model(model)
    inner = next(key for key in module.values if key.endswith("one"))
    hold = install(module, {"a": 0.5, "y": 0.5, inner: 0.5}, Masks({"w": kept((5, 4), 5), "v": kept((5, 3), 0)}))
    assert hold.layers["a"] == ("w",)
    assert set(hold.layers["y"]) == {"v", "u"}
    assert hold.layers[inner] == ("v",)
    assert hold.rates == {"a": 0.25, "y": pytest.approx(0.5 * np.sqrt(0.5)), inner: 0.0}


def test_a_dropout_node_may_be_named(make: Make, weights: Weights) -> None:
    body = "a = Gemm(x, w) d, keep = Dropout(a, half, off) y = Gemm(d, v)"
    named = {"w": weights(4, 6), "v": weights(6, 2), "half": np.float32(0.5), "off": np.array(False)}
    module = module_from_model(make(body, "float[N, 4] x", "float[N, 2] y", named), outputs=["d"])
    hold = install(module, {"d": 0.5}, Masks({"w": kept((4, 6), 6)}))
    assert hold.rates == {"d": 0.25}
    torch.manual_seed(0)
    dropped = module(torch.ones(2000, 4))[0]
    assert abs(float((dropped == 0).float().mean()) - 0.25) < 0.03


def test_a_dropout_node_that_is_on_in_the_file_is_refused(make: Make, weights: Weights) -> None:
    body = "a = Gemm(x, w) d = Dropout(a, none, on) y = Gemm(d, v)"
    named = {"w": weights(4, 6), "v": weights(6, 2), "none": np.float32(0), "on": np.array(True)}
    module = module_from_model(make(body, "float[N, 4] x", "float[N, 2] y", named))
    with pytest.raises(SelectionError, match="Dropout node 'd': the file sets its training_mode"):
        install(module, {"d": 0.5})


def test_the_last_glob_counts(convnet: Model) -> None:
    module = module_from_model(convnet)
    assert install(module, {"[hr]": 0.5, "r": 0.1}).rates == {"h": 0.5, "r": 0.1}
    assert install(module, {"r": 0.1, "[hr]": 0.5}).rates == {"h": 0.5, "r": 0.5}


@pytest.mark.parametrize(
    ("originals", "message"),
    [
        ({"nobody*": 0.5}, r"'nobody\*': no value, node or weight has that name; the values are c, n, r, k, …"),
        ({"h": 1.0}, "dropout of 'h' is 1.0: give a rate from 0 to below 1"),
        ({"h": -0.1}, "is -0.1"),
        ({"m": 0.5}, "no value, node or weight"),  # statistics are no weights
    ],
)
def test_what_cannot_be(convnet: Model, originals: dict[str, float], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        install(module_from_model(convnet), originals)
