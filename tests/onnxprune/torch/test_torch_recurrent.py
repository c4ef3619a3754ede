"""LSTM, GRU and RNN in all their forms against onnxruntime, and torch's kernels against the steps written out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from onnxprune_passes.model import Model

from onnxprune.torch import module_from_model
from onnxprune.torch.ops import recurrent

Array = npt.NDArray[Any]
Make = Callable[..., Model]
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
T, N, IN, H = 5, 3, 4, 6
LENGTHS = np.array([5, 2, 4], np.int32)


def weights(*shape: int, seed: int = 0) -> Array:
    return 0.5 * np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def built(
    make: Make, kind: str, attributes: str = "", *, bias: bool = True, lengths: bool = False, starts: bool = False,
    peepholes: bool = False, directions: int = 1, layout: int = 0,
) -> Model:  # fmt: skip
    gates = GATES[kind]
    named: dict[str, Array] = {"w": weights(directions, gates * H, IN), "r": weights(directions, gates * H, H, seed=1)}
    inputs = ["x", "w", "r", "b" if bias else "", "l" if lengths else "", "h" if starts else ""]
    first = (N, directions, H) if layout else (directions, N, H)
    if bias:
        named["b"] = weights(directions, 2 * gates * H, seed=2)
    if lengths:
        named["l"] = LENGTHS
    if starts:
        named["h"] = weights(*first, seed=3)
    if kind == "LSTM":
        inputs += ["c" if starts else "", "p" if peepholes else ""]
        if starts:
            named["c"] = weights(*first, seed=4)
        if peepholes:
            named["p"] = weights(directions, 3 * H, seed=5)
    while not inputs[-1]:
        inputs.pop()
    names = ["y", "yh", "yc"] if kind == "LSTM" else ["y", "yh"]
    extra = f", layout = {layout}" if layout else ""
    more = f", {attributes}" if attributes else ""
    body = f"{', '.join(names)} = {kind}<hidden_size = {H}{extra}{more}>({', '.join(inputs)})"
    dims = f"{N}, {T}" if layout else f"{T}, {N}"
    outputs = ", ".join(f"float[{'A, B, C, D' if name == 'y' else 'E, F, G'}] {name}" for name in names)
    return make(body, f"float[{dims}, {IN}] x", outputs, named, opset=14)


FORMS: list[tuple[str, str, Mapping[str, Any]]] = [
    *((kind, "", {}) for kind in GATES),
    *((kind, "", {"bias": False}) for kind in GATES),
    *((kind, 'direction = "reverse"', {"starts": True}) for kind in GATES),
    *((kind, 'direction = "bidirectional"', {"directions": 2, "starts": True}) for kind in GATES),
    *((kind, 'direction = "bidirectional"', {"directions": 2, "lengths": True, "starts": True}) for kind in GATES),
    *((kind, "", {"lengths": True}) for kind in GATES),
    *((kind, "clip = 0.3", {}) for kind in GATES),
    ("GRU", "linear_before_reset = 1", {"starts": True}),
    ("GRU", 'linear_before_reset = 1, direction = "bidirectional"', {"directions": 2}),
    ("GRU", "linear_before_reset = 1", {"lengths": True}),
    ("LSTM", "", {"peepholes": True, "starts": True}),
    ("LSTM", 'activations = ["HardSigmoid", "Relu", "ScaledTanh"], activation_alpha = [0.3, 0.5],'
     " activation_beta = [0.4, 0.6]", {}),
    ("RNN", 'activations = ["Relu"]', {}),
    ("RNN", 'activations = ["LeakyRelu"], activation_alpha = [0.2]', {}),
    ("GRU", 'activations = ["Sigmoid", "Softsign"]', {}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "attributes", "form"), FORMS, ids=[f"{a} {b} {sorted(c)}" for a, b, c in FORMS])
def test_it_computes_what_onnxruntime_does(make: Make, kind: str, attributes: str, form: Mapping[str, Any]) -> None:
    model = built(make, kind, attributes, **form)
    module = module_from_model(model, feeds={"x": weights(T, N, IN, seed=9)})
    assert module.check is not None
    assert not module.check.amplified
    found = module(torch.from_numpy(weights(T, N, IN, seed=9)))
    torch.autograd.backward([one.sum() for one in found])
    for parameter in module.parameters():
        assert parameter.grad is not None
        assert parameter.grad.any()


@pytest.mark.parametrize("kind", GATES)
def test_batch_first_is_the_same_turned(make: Make, kind: str) -> None:
    """onnxruntime has no kernel for layout 1."""
    both = 'direction = "bidirectional"'
    x = torch.from_numpy(weights(T, N, IN, seed=9))
    plain = module_from_model(built(make, kind, both, directions=2))(x)
    turned_model = built(make, kind, both, directions=2, layout=1)
    turned = module_from_model(turned_model, check=False)(x.transpose(0, 1).contiguous())
    torch.testing.assert_close(turned[0], plain[0].permute(2, 0, 1, 3))
    for one, other in zip(turned[1:], plain[1:], strict=True):
        torch.testing.assert_close(one, other.transpose(0, 1))


@pytest.mark.parametrize(("kind", "attributes"), [("LSTM", ""), ("GRU", "linear_before_reset = 1"), ("RNN", "")])
def test_kernels_and_steps_agree(make: Make, kind: str, attributes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = module_from_model(built(make, kind, attributes, starts=True))
    x = torch.from_numpy(weights(T, N, IN, seed=9))
    by_kernel = module(x)
    monkeypatch.setattr(recurrent, "_plain", lambda *_: False)
    for one, other in zip(by_kernel, module(x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_states_of_the_file_serve_larger_batches(make: Make) -> None:
    named = {"w": weights(1, 4 * H, IN), "r": weights(1, 4 * H, H), "h": weights(1, 1, H), "c": weights(1, 1, H)}
    body = (
        f"t = Transpose<perm = [1, 0, 2]>(x) y, yh = LSTM<hidden_size = {H}>(t, w, r, , , h, c) z = Squeeze(yh, zero)"
    )
    named["zero"] = np.array([0])
    module = module_from_model(make(body, f"float[1, {T}, {IN}] x", f"float[1, {H}] z", named))
    assert module.batch_problem is None
    x = torch.randn(4, T, IN)
    apart = torch.cat([module(x[at : at + 1])[0] for at in range(4)])
    torch.testing.assert_close(module(x)[0], apart)
