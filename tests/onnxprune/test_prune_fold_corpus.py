"""Every real model through folding and tidying, alone and in the whole command with `--fold`."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnxprune_passes.fold import FoldBatchNorm, GatherLiveInputs, RemoveNoOps, RemoveUnused
from onnxprune_passes.pipeline import State, chain
from onnxprune_passes.storage import load, save

from onnxprune.verification import verify_files

pytestmark = pytest.mark.corpus

AMPLIFIES = "ppocr_v2_det"
"""Its output is a sigmoid of about 6e-5, which onnxruntime computes in steps of 6e-8: the original is 1e-3 of its size
off itself between the optimisation levels, one of which folds BatchNormalization too."""


def test_the_passes_keep_the_answers(corpus_path: Path, tmp_path: Path) -> None:
    named = corpus_path.parent if corpus_path.name == "model.onnx" else corpus_path.with_suffix("")
    passes = chain(RemoveNoOps(), FoldBatchNorm(), GatherLiveInputs(), RemoveUnused())
    before = State(load(corpus_path))
    after = passes(before)
    assert passes(after) is after
    output = save(after.model, tmp_path / "after.onnx")
    report = verify_files(str(corpus_path), str(output), data=str(named.with_name(f"{named.name}.inputs.npz")))
    if corpus_path.stem == AMPLIFIES:
        for output_difference in (one for found in report.comparisons for one in found.outputs):
            assert output_difference.max_error is not None
            assert output_difference.rounding is not None
            assert output_difference.max_error <= 2 * output_difference.rounding
    else:
        assert report.verified


FOLDED = {
    "cifar_resnet20_op13_bn": 19,
    "gtcrn_simple": 11,
    "mobilenet_v1_0.25_224": 27,
    "ppocr_v2_det": 48,
    "version-RFB-320": 35,
}


def test_how_many_are_folded(corpus_path: Path) -> None:
    before = State(load(corpus_path))
    after = chain(RemoveNoOps(), FoldBatchNorm())(before)
    count = [sum(node.op_type == "BatchNormalization" for node in one.model.graph.node) for one in (before, after)]
    assert count[0] - count[1] == FOLDED.get(corpus_path.stem, 0)
