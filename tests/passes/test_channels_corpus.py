"""PruneChannels on the real models: which shrink, what is said of the others, and one run is enough."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from onnxprune_passes.channel_groups import find_channels
from onnxprune_passes.channels import PruneChannels
from onnxprune_passes.dead_neurons import RemoveDeadNeurons
from onnxprune_passes.fold import GatherLiveInputs
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Skip, State
from onnxprune_passes.storage import load

pytestmark = pytest.mark.corpus

DATA = Path(os.environ.get("ONNXPRUNE_DATA", Path(__file__).parents[3] / "shared" / "data"))
SHRINK = {
    "basic_pitch_nmp": 0.23,
    "cifar_resnet20_jpegft_op13": 0.74,
    "cifar_resnet20_op13_bn": 0.74,
    "cifar_resnet20_qdq_int8": 0.73,
    "cifar_resnet56_external": 0.79,
    "dtln_1": 0.12,
    "gtcrn_simple": 0.02,
    "magika_v3_3": 0.70,
    "mnist_cntk_8": 0.63,
    "mobilenet_v1_0.25_224": 0.52,
    "nnsplit_en": 0.74,
    "oww_embedding_model": 0.71,
    "ppocr_v2_det": 0.68,
    "silero_vad": 0.22,
    "silero_vad_16k_op15": 0.20,
    "squeezenet_v1.0_deepcompressed": 0.62,
    "stories260K_llama_op18": 0.39,
    "super_resolution": 0.71,
    "swift_f0": 0.52,
    "version-RFB-320": 0.64,
    "vitTracker_a": 0.42,
    "yolox_nano": 0.70,
    "yunet_n_dynamic": 0.68,
}
"""Model → at least this share of its numbers goes at half of the channels."""
NOTHING_STAYS = "ppocr_v2_det"
"""Its output has one channel, and nothing else pins."""


def loaded(name: str) -> Model:
    path = DATA / "models" / f"{name}.onnx"
    path = path if path.exists() else DATA / "models" / name / "model.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not there: set ONNXPRUNE_DATA to the folder that holds models/")
    return load(path)


def entries(model: Model) -> int:
    return sum(model.initializers.source(key).size for key in model.initializers)


@pytest.mark.parametrize("name", SHRINK)
def test_half_of_the_channels(name: str) -> None:
    before = State(loaded(name))
    masked = PruneChannels(0.5)(before)
    after = GatherLiveInputs("dense")(RemoveDeadNeurons()(masked))
    assert 1 - entries(after.model) / entries(before.model) >= SHRINK[name]
    assert PruneChannels(0.5)(masked) is masked
    skips = [entry for entry in masked.log if isinstance(entry, Skip)]
    assert skips or name == NOTHING_STAYS
    assert all("blocked by" in skip.reason or "fixed transform" in skip.reason for skip in skips)
    assert said(skips) == Counter(
        {
            reason: sum(group.size for group in find_channels(before.model) if group.pinned_by == reason)
            for reason in (group.pinned_by for group in find_channels(before.model))
            if reason is not None
        }
    )


def said(skips: list[Skip]) -> Counter[str]:
    """How many channels each reason keeps, by the Skips; those of fixed transforms left out."""
    found: Counter[str] = Counter()
    for skip in skips:
        count, _, reason = skip.reason.partition(": ")
        if reason.startswith("blocked by"):
            found[reason] += int(count.split()[0])
    return found
