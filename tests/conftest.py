"""The real models that some tests run on: a folder outside the repository (see ONNXPRUNE_DATA in README.md)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None)  # a loaded machine is no failure
settings.register_profile("thorough", deadline=None, max_examples=2000)  # pytest --hypothesis-profile=thorough
settings.load_profile("default")

CORPUS = (
    "basic_pitch_nmp",
    "cifar_resnet20_jpegft_op13",
    "cifar_resnet20_op13_bn",
    "cifar_resnet20_qdq_int8",
    "cifar_resnet56_external",
    "dtln_1",
    "gtcrn_simple",
    "magika_v3_3",
    "mnist_cntk_8",
    "mobilenet_v1_0.25_224",
    "nnsplit_en",
    "oww_embedding_model",
    "ppocr_v2_det",
    "silero_vad",
    "silero_vad_16k_op15",
    "squeezenet_v1.0_deepcompressed",
    "stories260K_llama_op18",
    "super_resolution",
    "swift_f0",
    "version-RFB-320",
    "vitTracker_a",
    "yolox_nano",
    "yunet_n_dynamic",
)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of given models and data; tests that ask for it are skipped where it is absent."""
    named = os.environ.get("ONNXPRUNE_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "models").is_dir():
        pytest.skip(f"no models in {folder}; set ONNXPRUNE_DATA to the folder that holds models/")
    return folder


@pytest.fixture(scope="session")
def corpus(data_dir: Path) -> Callable[[str], Path]:
    """The file of a corpus model, by its name in `CORPUS`."""

    def path_of(name: str) -> Path:
        folder = data_dir / "models" / name
        return folder / "model.onnx" if folder.is_dir() else folder.with_name(f"{name}.onnx")

    return path_of


@pytest.fixture(params=CORPUS)
def corpus_path(request: pytest.FixtureRequest, corpus: Callable[[str], Path]) -> Path:
    """Each corpus model in turn; mark the test `corpus`."""
    return corpus(request.param)
