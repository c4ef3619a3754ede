"""Real models agree with onnxruntime, every weight gets a gradient, initializers and parameters are one to one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from onnxprune_passes.model import Model
from onnxprune_passes.storage import load
from onnxprune_passes.weights import Weight, find_weights

from onnxprune.torch import OnnxModule, module_from_model, name_from_key
from onnxprune.torch.assign import latent_values
from onnxprune.torch.check import node_problems, precision_of, tensors_from_feeds

pytestmark = pytest.mark.corpus

Array = npt.NDArray[Any]
SAMPLED = 6
AMPLIFY = {
    "basic_pitch_nmp": 1e-4,
    "cifar_resnet20_qdq_int8": 2e-2,
    "ppocr_v2_det": 2e-3,
    "yolox_nano": 2e-4,
    "yunet_n_dynamic": 2e-2,
}
"""Models whose outputs differ by more than 1e-5 of their size, and by how much they may: a last sigmoid near 0, where
onnxruntime's is an approximation, or an int8 step that flips. Node by node they agree within 1e-5."""


def name_of(path: Path) -> str:
    return path.parent.name if path.name == "model.onnx" else path.stem


def batches_of(path: Path) -> list[dict[str, Array]]:
    """The inputs beside the model; silero_vad has other weights for another sampling rate."""
    folder = path.parent if path.name == "model.onnx" else path
    with np.load(folder.with_name(f"{name_of(path)}.inputs.npz")) as file:
        feeds = dict(file)
    if name_of(path) != "silero_vad":
        return [feeds]
    other = 8000 if feeds["sr"] == 16000 else 16000
    size = feeds["input"].shape[1] * other // int(feeds["sr"])
    return [feeds, {**feeds, "sr": np.array(other), "input": np.resize(feeds["input"], (len(feeds["input"]), size))}]


def module_of(path: Path, model: Model) -> tuple[OnnxModule, list[dict[str, Array]]]:
    batches = batches_of(path)
    module = module_from_model(model, feeds=batches[0])
    return module.requires_grad_(True), batches


def test_it_agrees_with_onnxruntime(corpus_path: Path) -> None:
    module, _ = module_of(corpus_path, load(corpus_path))
    name = name_of(corpus_path)
    assert module.check is not None
    assert module.check.amplified == (name in AMPLIFY)
    assert module.check.max_error <= AMPLIFY.get(name, 1e-5)


def test_gradients_reach_every_weight(corpus_path: Path) -> None:
    model = load(corpus_path)
    module, batches = module_of(corpus_path, model)
    torch.manual_seed(0)
    for feeds in batches:
        found = [one for one in module(*tensors_from_feeds(module, feeds)) if one.requires_grad]
        torch.autograd.backward([(one.double() * torch.randn(one.shape)).sum() for one in found])
    for weight in find_weights(model, embeddings=True):
        gradient = module.get_parameter(name_from_key(weight.key)).grad
        assert gradient is not None, weight.key
        assert gradient.isfinite().all(), weight.key
        assert gradient.abs().max() > 0, weight.key


def edited_values(weight: Weight | None, stored: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """New values for an initializer, and the same for its parameter."""
    if weight is None or weight.scale is None:
        noise = 0.1 * max(stored.std(), 0.1) * rng.standard_normal(stored.shape)
        return (edited := (stored + noise).astype(stored.dtype)), edited
    bounds = np.iinfo(stored.dtype)
    edited = np.clip(stored + np.round(stored.std() * rng.standard_normal(stored.shape)), bounds.min, bounds.max)
    return edited.astype(stored.dtype), latent_values(weight, edited.astype(stored.dtype))


def test_an_edit_of_an_initializer_is_an_edit_of_its_parameter(corpus_path: Path) -> None:
    """Node by node, on onnxruntime's values: equal with the parameter edited, and not without."""
    model, rng = load(corpus_path), np.random.default_rng(0)
    module, batches = module_of(corpus_path, model)
    precision = precision_of(model)
    weights = {weight.key: weight for weight in find_weights(model, embeddings=True)}
    keys = [row.key for row in module.rows if row.kind in ("parameter", "latent")]
    for key in rng.permutation(keys)[:SAMPLED]:
        values, latent = edited_values(weights.get(key), model.initializers[key], rng)
        edited = model.with_initializers({key: values})
        parameter = module.get_parameter(name_from_key(key))
        kept = parameter.detach().clone()
        assert any(node_problems(module, edited, feeds, precision) for feeds in batches), f"{key}: nobody sees it"
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(latent))
        problems = [one for feeds in batches for one in node_problems(module, edited, feeds, precision)]
        assert not problems, (key, problems)
        with torch.no_grad():
            parameter.copy_(kept)


def test_mixed_precision_runs_and_has_gradients(corpus_path: Path) -> None:
    model = load(corpus_path)
    module, (feeds, *_) = module_of(corpus_path, model)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(*tensors_from_feeds(module, feeds))
    torch.autograd.backward([one.float().sum() for one in found if one.requires_grad])
    assert any(one.grad is not None and one.grad.any() for one in module.parameters())
    assert all(one.grad.isfinite().all() for one in module.parameters() if one.grad is not None)
    assert {one.dtype for one in module.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "name", ["cifar_resnet20_op13_bn", "mobilenet_v1_0.25_224", "stories260K_llama_op18", "vitTracker_a", "magika_v3_3"]
)
def test_it_compiles_whole_with_open_sizes(name: str, corpus: Callable[[str], Path]) -> None:
    module, (feeds, *_) = module_of(corpus(name), load(corpus(name)))
    inputs = tensors_from_feeds(module.eval(), feeds)
    torch._dynamo.reset()
    compiled = torch.compile(module, backend="eager", fullgraph=True, dynamic=True)
    for one, other in zip(compiled(*inputs), module(*inputs), strict=True):
        assert torch.equal(one, other)
