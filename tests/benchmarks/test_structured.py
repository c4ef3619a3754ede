"""The networks are the published ones; what the script counts and compares is what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from checks import answers, error, halved, least_kept, numbers, removed
from nets import NETS
from onnx import numpy_helper
from structured import Ours, Row
from whole_numbers import exact_copy

TEXT = """<ir_version: 8, opset_import: ["": 17]> g (float[N,3,6,6] x) => (float[N,3] y) {
    a = Conv<pads=[1,1,1,1]>(x, w1, b1) r = Relu(a) b = Conv(r, w2) m = GlobalAveragePool(b) f = Flatten(m)
    y = Gemm<transB=1>(f, w3) }"""


def written(path: Path, width: int, *, op: str = "Relu", shift: float = 0.0) -> Path:
    """A network of `width` channels between its convolutions."""
    proto = onnx.parser.parse_model(TEXT.replace("Relu", op))
    rng = np.random.default_rng(0)
    shapes = {"w1": (width, 3, 3, 3), "b1": (width,), "w2": (4, width, 3, 3), "w3": (3, 4), "unread": (1000,)}
    for name, shape in shapes.items():
        array = (rng.standard_normal(shape) + shift * (name == "w3")).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(proto, str(path))
    return path


@pytest.mark.parametrize("name", NETS)
def test_every_network_has_its_published_number_of_parameters(name: str) -> None:
    known = {"LeNet-5": 431_080, "LSTM": 220_426, "GRU": 165_642}
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in NETS[name].make().parameters())
    if (millions := NETS[name].millions) is not None:
        assert round(count / 1e6, 2) == millions
    assert count == known.get(name, count)


def test_weights_are_seeded_and_statistics_are_not_those_of_an_identity() -> None:
    one, same, other = (NETS["2-branch concat"].built(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["stem.0.weight"], other["stem.0.weight"])
    assert one["stem.1.running_var"].std() > 0.1


def test_numbers_are_those_that_nodes_read(tmp_path: Path) -> None:
    wide, narrow = (written(tmp_path / f"{width}.onnx", width) for width in (8, 4))
    assert numbers(wide) == 8 * 27 + 8 + 8 * 36 + 12
    assert removed(wide, narrow) == pytest.approx(100 * (4 * 27 + 4 + 4 * 36) / numbers(wide))
    assert least_kept(wide, narrow) == 0.5
    assert halved(wide, narrow) is False
    assert least_kept(wide, wide) == 1


def test_the_error_is_zero_only_when_outputs_are_equal(tmp_path: Path) -> None:
    one, other = written(tmp_path / "one.onnx", 4), written(tmp_path / "other.onnx", 4, shift=1e-3)
    assert error(one, one, (1, 3, 6, 6)) == 0
    assert 0 < error(one, other, (1, 3, 6, 6)) < 1


def test_a_copy_in_whole_numbers_is_exact(tmp_path: Path) -> None:
    copy = exact_copy(onnx.load(str(written(tmp_path / "one.onnx", 8))))
    assert copy is not None
    onnx.save(copy, str(tmp_path / "whole.onnx"))
    x = np.random.default_rng(0).integers(-2, 3, (1, 3, 6, 6)).astype(np.float32)
    for level in ("off", "default"):
        y = answers(tmp_path / "whole.onnx", level, [x])[0]
        assert np.array_equal(y * 16, np.round(y * 16))  # sixteen places are averaged
        assert y.any()


def test_no_copy_where_an_op_is_not_exact(tmp_path: Path) -> None:
    assert exact_copy(onnx.load(str(written(tmp_path / "one.onnx", 8, op="Sigmoid")))) is None


@pytest.mark.parametrize(
    ("percent", "problem", "peers", "reaches"),
    [
        (74.0, "", (47.0, 74.4, 90.0), True),
        (73.8, "", (47.0, 74.4, 73.0), False),
        (74.0, "a group is not halved", (47.0, 60.0, 60.0), False),
        (10.0, "", (0.0, "IndexError", "IndexError"), True),
        (0.0, "", ("not run", "not run", "not run"), False),
    ],
)
def test_a_row_reaches_the_larger_peer(
    percent: float, problem: str, peers: tuple[float | str, ...], reaches: bool
) -> None:
    assert Row("net", 1, {1: Ours(percent, 0.0, True, problem)}, peers).reaches is reaches
