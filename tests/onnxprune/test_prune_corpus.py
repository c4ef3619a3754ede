"""Every real model through the whole command, as its user would run it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from onnxprune.prune import prune_file
from onnxprune.report import Report
from onnxprune.resolve import options_from

pytestmark = pytest.mark.corpus


AMPLIFIES = "yunet_n_dynamic"
"""Its obj_* outputs are sigmoids of about 1e-5, which onnxruntime computes to 6e-8: far from 1e-5 of their size. The
values before the sigmoid agree to 5e-7, and the original is 1e-2 off itself between the optimisation levels."""


def pruned(model: Path, output: Path, **given: object) -> Report:
    options = options_from(str(model), {"output": str(output), "sparsity": 0.5, "quiet": True, **given}, None)
    return prune_file(options)


def inputs_of(model: Path) -> Path:
    named = model.parent if model.name == "model.onnx" else model.with_suffix("")
    return named.with_name(f"{named.name}.inputs.npz")


@pytest.mark.parametrize("own_inputs", [True, False], ids=["own inputs", "seeded inputs"])
def test_half_of_the_weights_go_and_the_result_is_verified(corpus_path: Path, tmp_path: Path, own_inputs: bool) -> None:
    given: dict[str, object] = {"data": str(inputs_of(corpus_path))} if own_inputs else {}
    if corpus_path.stem == AMPLIFIES:
        refused = pruned(corpus_path, tmp_path / "out.onnx", **given)
        assert refused.status == "failed"
        assert refused.error is not None
        assert "pruned -> shrunk: output obj_" in refused.error
        assert "--no-shrink" in refused.error
        assert not list(tmp_path.iterdir())
        given["shrink"] = False
    report = pruned(corpus_path, tmp_path / "out.onnx", **given)
    assert (report.status, report.error, report.verified) == ("done", None, True)
    assert report.output is not None
    assert report.input is not None
    assert report.output.bytes < report.input.bytes
    left_alone = {skip.name for skip in report.skips if "looks like a fixed transform" in skip.reason}
    layers = [layer for layer in report.layers if layer.name not in left_alone and layer.kind != "embedding"]
    kept = sum(layer.density_after * layer.parameters_after for layer in layers)
    assert kept <= 0.5 * sum(layer.parameters_before for layer in layers) + 1


FIXED = {
    "basic_pitch_nmp": 2,
    "gtcrn_simple": 2,
    "silero_vad": 2,
    "silero_vad_16k_op15": 1,
}


def test_fixed_transforms_are_skipped_and_nothing_else(
    corpus_path: Path, tmp_path: Path, corpus: Callable[[str], Path]
) -> None:
    name = next(name for name in (corpus_path.stem, corpus_path.parent.name) if corpus(name) == corpus_path)
    report = pruned(corpus_path, tmp_path / "out.onnx", check=0, encode="dense")
    fixed = [skip for skip in report.skips if "looks like a fixed transform" in skip.reason]
    assert len(fixed) == FIXED.get(name, 0)
