"""Which value the loss is taken on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnxprune_passes.errors import SelectionError
from onnxprune_passes.model import Model
from onnxprune_passes.storage import load

from onnxprune.torch import module_from_model
from onnxprune.torch.check import tensors_from_feeds
from onnxprune.torch.train.pretail import loss_output

Make = Callable[..., Model]


def tailed(make: Make, tail: str, *, shape: str = "N, 4", scores: str = "float[N, 4] x", **named: Any) -> Model:
    """A model whose scores `l` are followed by `tail`, which makes y."""
    weights = {"zero": np.zeros(1, np.float32), **{name: np.asarray(one) for name, one in named.items()}}
    return make(f"l = Add(x, zero) {tail}", scores, f"float[{shape}] y", weights)


PLANE = "float[N, 4, 1, 1] x"


@pytest.mark.parametrize(
    ("tail", "shape", "scores", "stripped"),
    [
        ("y = Softmax<axis = 1>(l)", "N, 4", "float[N, 4] x", "Softmax"),
        ("e = Exp(l) t = ReduceSum(e, last) y = Div(e, t)", "N, 4", "float[N, 4] x", "Softmax"),
        ("y = LogSoftmax(l)", "N, 4", "float[N, 4] x", "LogSoftmax"),
        ("y = Sigmoid(l)", "N, 4", "float[N, 4] x", "Sigmoid"),
        ("s = Softmax(l) y = Identity(s)", "N, 4", "float[N, 4] x", "Softmax"),
        ("s = Softmax(l) h = Cast<to = 10>(s) y = Cast<to = 1>(h)", "N, 4", "float[N, 4] x", "Softmax"),
        ("s = Softmax<axis = 1>(l) y = Flatten(s)", "N, 4", PLANE, "Softmax"),
        ("s = Softmax<axis = 1>(l) y = Reshape(s, dims)", "N, 4", PLANE, "Softmax"),
        ("s = Sigmoid(l) y = Squeeze(s, axes)", "N, 4", PLANE, "Sigmoid"),
        ("s = Softmax(l) u = Unsqueeze(s, axes) y = Identity(u)", "N, 4, 1, 1", "float[N, 4] x", "Softmax"),
        ("s = Softmax(l) y = Reshape(s, rows)", "N, 3, 4", "float[M, 4] x", "Softmax"),  # [N · 3, 4] scores
    ],
)
def test_it_is_taken_before_the_function(make: Make, tail: str, shape: str, scores: str, stripped: str) -> None:
    named = {"dims": np.array([-1, 4]), "axes": np.array([2, 3]), "last": np.array([-1]), "rows": np.array([-1, 3, 4])}
    model = tailed(make, tail, shape=shape, scores=scores, **named)
    for loss in ("ce", "bce", "distill", "own:function"):
        assert loss_output(model, loss=loss) == ("l", stripped)
    assert loss_output(model) == ("l", stripped)
    assert loss_output(model, loss="mse") == ("y", None)
    for name in ("y", "l", "x"):
        assert loss_output(model, name) == (name, None), "a named value is taken as it is"


@pytest.mark.parametrize(
    "tail", ["y = Relu(l)", "s = Softmax(l) y = Mul(s, l)", "s = Relu(l) y = Identity(s)", "e = Exp(l) y = Div(e, l)"]
)
def test_other_ends_are_taken_as_they_are(make: Make, tail: str) -> None:
    assert loss_output(tailed(make, tail)) == ("y", None)


def test_only_the_first_output_is_looked_at(make: Make) -> None:
    model = make("a = Relu(x) b = Softmax(x)", "float[N, 4] x", "float[N, 4] a, float[N, 4] b")
    assert loss_output(model) == ("a", None)
    assert loss_output(model, "b") == ("b", None)


def test_a_function_of_another_domain_is_not_the_standard_one(make: Make) -> None:
    rest = '<opset_import: ["" : 18], domain: "own"> Softmax (a) => (b) { b = Relu(a) }'
    assert loss_output(make("y = own.Softmax(x)", "float[N, 4] x", "float[N, 4] y", rest=rest)) == ("y", None)


@pytest.mark.parametrize(
    ("tail", "shape", "scores"),
    [
        ("s = Softmax<axis = 1>(l) y = Flatten(s)", "N, 12", "float[N, 4, 3] x"),
        ("s = Softmax(l) y = Reshape(s, dims)", "N, 8", "float[N, 4] x"),
    ],
)
def test_a_reshape_that_mixes_the_classes_is_refused(make: Make, tail: str, shape: str, scores: str) -> None:
    model = tailed(make, tail, shape=shape, scores=scores, dims=np.array([-1, 8]))
    with pytest.raises(SelectionError, match="where its classes are is not plain: name the value to train on"):
        loss_output(model)
    assert loss_output(model, loss="mse") == ("y", None)


def test_an_old_softmax_over_several_axes_is_refused(make: Make) -> None:
    """Before opset 13 the axes from `axis` on are one."""
    wide = make("y = Softmax<axis = 1>(x)", "float[N, 4, 3] x", "float[N, 4, 3] y", opset=11)
    with pytest.raises(SelectionError, match="takes the axes from 1 on as one"):
        loss_output(wide)
    narrow = make("y = Softmax<axis = 1>(x)", "float[N, 4, 1, 1] x", "float[N, 4, 1, 1] y", opset=11)
    assert loss_output(narrow) == ("x", "Softmax")
    last = make("y = Softmax<axis = 2>(x)", "float[N, 4, 3] x", "float[N, 4, 3] y", opset=11)
    assert loss_output(last) == ("x", "Softmax")
    assert loss_output(make("y = Softmax(x)", "float[N, 4] x", "float[N, 4] y", opset=11)) == ("x", "Softmax")


@pytest.mark.parametrize("loss", ["ce", "mse"])
def test_an_output_without_gradient_is_refused(make: Make, loss: str) -> None:
    model = make("l = Relu(x) y = ArgMax<axis = 1>(l)", "float[N, 4] x", "int64[N, 1] y")
    with pytest.raises(SelectionError, match="comes out of ArgMax, which has no gradient"):
        loss_output(model, loss=loss)
    assert loss_output(model, "l", loss=loss) == ("l", None)


def test_names_of_nothing(make: Make) -> None:
    with pytest.raises(SelectionError, match="output 'logits' is no value of the model's main graph"):
        loss_output(tailed(make, "y = Softmax(l)"), "logits")


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "stripped"),
    [
        ("mobilenet_v1_0.25_224", "Softmax"),
        ("magika_v3_3", "Softmax"),
        ("version-RFB-320", "Softmax"),
        ("basic_pitch_nmp", "Sigmoid"),
        ("ppocr_v2_det", "Sigmoid"),
        ("yunet_n_dynamic", "Sigmoid"),
        ("squeezenet_v1.0_deepcompressed", None),
        ("mnist_cntk_8", None),
    ],
)
def test_real_models(corpus: Callable[[str], Path], name: str, stripped: str | None) -> None:
    path = corpus(name)
    model = load(path)
    found, left_off = loss_output(model)
    assert left_off == stripped
    module = module_from_model(model, outputs=[found, model.graph.output[0].name], check=False)
    with np.load(path.with_name(f"{name}.inputs.npz")) as file:
        scores, output = module.eval()(*tensors_from_feeds(module, file))
    if stripped == "Softmax":
        scores = torch.softmax(scores, -1 if name != "mobilenet_v1_0.25_224" else 1)
    elif stripped == "Sigmoid":
        scores = torch.sigmoid(scores)
    torch.testing.assert_close(scores.reshape(output.shape), output)
