from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest
from onnxprune_passes.errors import ModelError, SelectionError

from onnxprune.prune import prune_file
from onnxprune.recipe import PruneOptions
from onnxprune.report import Report

Array = npt.NDArray[Any]


def _pruned(model: Path, **options: Any) -> tuple[Report, Path]:
    made = PruneOptions(model=str(model), **options)
    return prune_file(made), model.with_name(f"{model.stem}.pruned.onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "net.onnx"}, "MODEL itself.*--overwrite"),
        ({"json": "net.onnx"}, "MODEL itself"),
        ({"save_masks": "net.onnx"}, "MODEL itself"),
        ({"output": "a", "json": "a"}, "both name"),
        ({"output": "a", "save_masks": "a"}, "both name"),
        ({"data": "d.npz", "output": "d.npz"}, "--data itself"),
    ],
)
def test_files_that_get_in_each_others_way_are_a_usage_error(
    net: Path, options: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(net.parent)
    before = net.read_bytes()
    with pytest.raises(SelectionError, match=message):
        prune_file(PruneOptions(model="net.onnx", **options))  # type: ignore[arg-type]
    assert net.read_bytes() == before


def test_overwrite_lets_the_output_be_the_input(net: Path) -> None:
    before = net.stat().st_size
    prune_file(PruneOptions(model=str(net), sparsity=0.9, output=str(net), overwrite=True))
    assert list(net.parent.iterdir()) == [net]
    assert net.stat().st_size < 0.5 * before


@pytest.mark.parametrize("name", ["missing/out.onnx", "net.d"])
def test_an_output_that_cannot_be_written_is_found_before_the_work(net: Path, name: str) -> None:
    (net.parent / "net.d").mkdir()

    def never(step: str, _done: int, _total: int) -> None:
        raise AssertionError(step)

    with pytest.raises(ModelError, match=r"does not exist|is not a file"):
        prune_file(PruneOptions(model=str(net), output=str(net.parent / name)), never)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_writable_is_found_before_the_work(net: Path) -> None:
    net.parent.chmod(0o555)
    try:
        with pytest.raises(ModelError, match="not writable"):
            _pruned(net)
    finally:
        net.parent.chmod(0o755)
