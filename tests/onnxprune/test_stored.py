"""How encoded tensors are stored, as `inspect` says it: read from the file, equal to what encoding said."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from onnxprune_passes.encode import encode_model
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import State
from onnxprune_passes.storage import load, save
from onnxprune_passes.thresholds import Sparsity
from onnxprune_passes.values import QuantizeValues, RoundValues, ShareValues

from onnxprune import stored as module
from onnxprune.analysis import Analysis
from onnxprune.cli.main import cli
from onnxprune.stored import stored


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args], terminal_width=200)


def _pruned(net: Path, *passes: Any) -> Model:
    state = MagnitudePrune(Sparsity(0.8))(State(load(net)))
    for one in passes:
        state = one(state)
    return state.model


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("passes", [(), (ShareValues(4),), (RoundValues("f16"),), (QuantizeValues(),)])
def test_a_file_says_what_encoding_said(net: Path, tmp_path: Path, passes: Any, inline: bool) -> None:
    encoded = encode_model(_pruned(net, *passes), inline=inline)
    found = stored(load(save(encoded.model, tmp_path / "small.onnx")))
    assert found
    assert {(one.name, one.scheme, one.shape, one.density) for one in found} == {
        (one.key, one.scheme, one.shape, one.density) for one in encoded.tensors
    }
    sizes = {one.name: (one.index_bytes, one.value_bytes, one.dense_bytes) for one in found}
    assert sizes == {one.key: (one.index_nbytes, one.value_nbytes, one.dense_nbytes) for one in encoded.tensors}
    nbytes = {one.key: one.nbytes for one in encoded.tensors}  # names are taken to be a letter longer than some are
    assert {one.name: one.bytes for one in found} == pytest.approx(nbytes, abs=120 if inline else 18)
    bounds = {one.key: one.bound_nbytes for one in encoded.tensors}
    assert {one.name: one.bound_bytes for one in found} == pytest.approx(bounds)


def test_standard_sparse_tensors(net: Path) -> None:
    encoded = encode_model(_pruned(net), "coo")
    for one, said in zip(stored(encoded.model), encoded.tensors, strict=True):
        assert (one.scheme, one.index_bytes, one.value_bytes) == ("coo", said.index_nbytes, said.value_nbytes)
        assert one.bytes == said.nbytes


def test_dense_models_have_none(net: Path) -> None:
    assert stored(load(net), compare=True) == ()


def test_gzip_is_that_of_the_dense_values(net: Path) -> None:
    pruned = _pruned(net)
    encoded = encode_model(pruned).model
    for one in stored(encoded, compare=True):
        wanted = len(gzip.compress(pruned.initializers[one.name].tobytes(), 9))
        assert one.gzip_bytes is not None
        assert abs(one.gzip_bytes - wanted) <= 8
    assert all(one.gzip_bytes is None and one.zstd_bytes is None for one in stored(encoded))


class _Zstandard(ModuleType):
    """Stands for the package: compresses nothing, and notes what it was asked for."""

    asked: tuple[int, int] = (0, 0)

    def ZstdCompressor(self, level: int) -> Any:  # noqa: N802 - the package's name
        outer = self

        class Compressor:
            def compressobj(self, size: int) -> Any:
                outer.asked = (level, size)
                return self

            def compress(self, data: bytes) -> bytes:
                return data

            def flush(self) -> bytes:
                return b"end"

        return Compressor()


def test_zstd_where_it_is_installed(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = encode_model(_pruned(net)).model
    fake = _Zstandard("zstandard")
    monkeypatch.setitem(sys.modules, "zstandard", fake)
    monkeypatch.setattr(module, "find_spec", lambda _name: object())
    for one in stored(encoded, compare=True):
        size = int(np.prod(one.shape)) * 4
        assert one.zstd_bytes == size + 3
    assert fake.asked == (19, size)
    monkeypatch.setattr(module, "find_spec", lambda _name: None)
    assert all(one.zstd_bytes is None for one in stored(encoded, compare=True))


def test_inspect_lists_them(net: Path, tmp_path: Path) -> None:
    small = save(encode_model(_pruned(net)).model, tmp_path / "small.onnx")
    plain = _run("inspect", small)
    assert "Encoded tensors" in plain.stdout
    assert "gzip" not in plain.stdout
    assert "Encoded tensors" not in _run("inspect", net).stdout
    file = tmp_path / "small.json"
    compared = _run("inspect", small, "--compare-gzip", "--json", file)
    assert "gzip -9 / bytes" in compared.stdout
    analysis = msgspec.json.decode(file.read_bytes(), type=Analysis)
    assert [one.name for one in analysis.stored] == list(analysis.encoded)
    line = next(line for line in compared.stdout.splitlines() if line.startswith("all "))
    nbytes = sum(one.bytes for one in analysis.stored)
    packed = sum(one.gzip_bytes or 0 for one in analysis.stored)
    assert f"{nbytes:,}" in line
    assert f"{packed / nbytes:.2f}" in line
