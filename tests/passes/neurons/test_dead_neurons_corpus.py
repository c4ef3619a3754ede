"""The real models: rows of their weights zeroed, dead neurons removed, answers compared in onnxruntime."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.model import Model
from onnxprune_passes.neurons import find_groups
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import load, to_proto

pytestmark = pytest.mark.corpus

NDArray = npt.NDArray[Any]
DATA = Path(os.environ.get("ONNXPRUNE_DATA", Path(__file__).parents[4] / "shared" / "data"))
LOSE_NOTHING = {
    "dtln_1": "LSTMs whose states are graph inputs and outputs, and an output layer",
    "gtcrn_simple": "convolution states that are graph inputs, GRUs, groups",
    "magika_v3_3": "layer norms over all neurons",
}
"""The models that keep all parameters, and what is in the way."""
LOSE_SOME = """basic_pitch_nmp cifar_resnet20_jpegft_op13 cifar_resnet20_op13_bn cifar_resnet20_qdq_int8
cifar_resnet56_external mnist_cntk_8
mobilenet_v1_0.25_224 nnsplit_en oww_embedding_model ppocr_v2_det silero_vad silero_vad_16k_op15
squeezenet_v1.0_deepcompressed stories260K_llama_op18
super_resolution swift_f0 version-RFB-320 vitTracker_a yolox_nano yunet_n_dynamic"""
NAMES = (*re.findall(r"\S+", LOSE_SOME), *LOSE_NOTHING)


def loaded(name: str) -> Model:
    path = DATA / "models" / f"{name}.onnx"
    path = path if path.exists() else DATA / "models" / name / "model.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not there: set ONNXPRUNE_DATA to the folder that holds models/")
    return load(path)


def without_last_sigmoids(model: Model) -> Model:
    """`model` with outputs as they are before a final Sigmoid.

    Some of these are all below 1e-4, where onnxruntime's approximation moves in steps of 1e-8: that would be compared.
    """
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    makers = {output: node for node in skeleton.graph.node for output in node.output}
    for output in skeleton.graph.output:
        passed = [makers[output.name]]
        while passed[-1].op_type in ("Clip", "Identity"):
            passed.append(makers[passed[-1].input[0]])
        if passed[-1].op_type == "Sigmoid":
            for node in passed:
                node.op_type = "Identity"
                del node.input[1:], node.attribute[:]
    return model.with_skeleton(skeleton)


def with_dead_neurons(model: Model) -> Model:
    """`model` with the weakest fifth of each weight's neurons dead, one half without inputs, the other without readers.

    Strong neurons stay, so that the answers are still those of a working model.
    """
    rng = np.random.default_rng(0)
    weights: dict[str, NDArray] = {}
    for group in find_groups(model):
        axes = [(key, int(axis)) for key, axis in (one.rsplit(" axis ", 1) for one in group.axes)]
        made = weights.setdefault(group.name, np.array(model.initializers[group.name]))
        others = tuple(one for one in range(made.ndim) if one != axes[0][1])
        blocks = made.shape[axes[0][1]] // group.size
        strength = np.square(made.astype(np.float64)).sum(axis=others).reshape(blocks, group.size).sum(axis=0)
        weakest = np.argsort(strength)[: max(group.size // 5, 1)]
        if group.size == 1:
            continue
        without_inputs, without_readers = np.array_split(rng.permutation(weakest), 2)
        rows = (without_inputs + group.size * np.arange(blocks)[:, None]).reshape(-1)
        made[(slice(None),) * axes[0][1] + (rows,)] = 0
        for key, axis in axes[1:]:
            source = model.initializers.source(key)
            if len(source.shape) < 2 or source.shape[axis] != group.size * (
                copies := 1 if blocks == 1 else max(1, source.shape[axis] // group.size)
            ):
                continue
            read = weights.setdefault(key, np.array(model.initializers[key]))
            places = (without_readers + group.size * np.arange(copies)[:, None]).reshape(-1)
            read[(slice(None),) * axis + (places,)] = 0
    return model.with_initializers(weights)


def parameters(model: Model) -> int:
    return sum(model.initializers.source(key).size for key in model.initializers)


def is_valid(model: Model) -> bool:
    try:
        onnx.checker.check_model(to_proto(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_answers_agree(name: str, answers: Callable[..., list[NDArray]]) -> None:
    before = with_dead_neurons(without_last_sigmoids(loaded(name)))
    state = RemoveDeadNeurons()(State(before))
    after = state.model
    assert RemoveDeadNeurons()(state) is state
    assert (parameters(after) < parameters(before)) == (name not in LOSE_NOTHING)
    assert is_valid(after) or not is_valid(before)
    with np.load(DATA / "models" / f"{name}.inputs.npz") as file:
        feeds = {key: file[key] for key in file.files}
    for optimised in (False, True):
        for one, other in zip(answers(before, feeds, optimised), answers(after, feeds, optimised), strict=True):
            assert one.shape == other.shape
            if np.issubdtype(one.dtype, np.floating):
                error = np.abs(one.astype(np.float64) - other).max() / max(np.abs(one).max(), 1e-30)
                assert error <= 1e-5
            else:
                assert np.mean(one == other) >= 0.99
