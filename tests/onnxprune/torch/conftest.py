"""Small models for the torch adapter, and the comparisons that its tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper
from onnxprune_passes.model import Model
from onnxprune_passes.storage import from_proto, save

from onnxprune.runtime import open_session, run

Array = npt.NDArray[Any]
Make = Callable[..., Model]
Run = Callable[[Model, Mapping[str, Array]], dict[str, Array]]

if util.find_spec("torch.nn") is None:  # a folder named torch may be on the path: only the real one has nn
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tests share the machine, and sums in one thread come out the same every time."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make() -> Make:
    """A model of nodes in ONNX's textual syntax and named arrays."""

    def made(
        body: str,
        inputs: str,
        outputs: str,
        weights: Mapping[str, Array] | None = None,
        *,
        opset: int = 18,
        rest: str = "",
        rename: Mapping[str, str] | None = None,
    ) -> Model:
        head = f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1, "own" : 1]>'
        proto = onnx.parser.parse_model(f"{head} g ({inputs}) => ({outputs}) {{ {body} }} {rest}")
        for name, array in (weights or {}).items():
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
        for node in proto.graph.node:  # to names that the textual syntax does not allow
            node.input[:] = [(rename or {}).get(name, name) for name in node.input]
            node.output[:] = [(rename or {}).get(name, name) for name in node.output]
        return from_proto(proto)

    return made


@pytest.fixture(scope="session")
def ort(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What onnxruntime computes for a model, optimisations off: output name → array."""

    def computed(model: Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
        path: Path = save(model, tmp_path_factory.mktemp("ort") / "model.onnx")
        with open_session(path, optimize=False, threads=1) as session:
            return run(session, feeds)

    return computed


@pytest.fixture(scope="session")
def distance() -> Callable[[Array, Array], float]:
    """The largest difference of two arrays over the largest entry of the first (1 when that is 0)."""

    def measured(expected: Array, found: Array) -> float:
        assert expected.shape == found.shape
        wide = expected.astype(np.float64)
        scale = float(np.abs(wide).max(initial=0)) or 1.0
        return float(np.abs(wide - found.astype(np.float64)).max(initial=0)) / scale

    return measured


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded numbers, the same for every test."""
    return np.random.default_rng(0)


@pytest.fixture
def registry_kept() -> Iterator[None]:
    """What a test registers is gone after it."""
    from onnxprune.torch import registry

    entries, on_host = dict(registry._ENTRIES), dict(registry._ON_HOST)
    yield
    for table, before in ((registry._ENTRIES, entries), (registry._ON_HOST, on_host)):
        table.clear()
        table.update(before)  # type: ignore[arg-type]  # each table is given its own content
