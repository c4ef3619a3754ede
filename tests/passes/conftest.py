"""Building models from text and weights, and checking that two of them answer the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import numpy_helper
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Change, Skip, State
from onnxprune_passes.storage import from_proto, to_proto, to_text

NDArray = npt.NDArray[Any]
Build = Callable[..., Model]
Weights = Mapping[str, NDArray]
REWRITE = "ONNXPRUNE_REWRITE_GOLDEN"


@pytest.fixture
def ints() -> Callable[..., NDArray]:
    """`ints((4, 3), dead={0: [1]})`: nonzero integers from -3 to 3, slices 1 of axis 0 all zero."""

    def make(shape: tuple[int, ...], dead: Mapping[int, list[int]] | None = None, seed: int = 0) -> NDArray:
        values = np.random.default_rng(seed).integers(1, 4, shape).astype(np.float32)
        values *= np.random.default_rng(seed + 1).choice([-1, 1], shape)
        for axis, places in (dead or {}).items():
            for place in places:
                values[(slice(None),) * axis + (place,)] = 0
        return values

    return make


@pytest.fixture
def build() -> Build:
    """`build(graph_text, weights, opset=17, ir=8)`: a Model; `graph_text` is ONNX text from the graph's name on."""

    def make(text: str, weights: Weights | None = None, opset: int = 17, ir: int = 8, domains: str = "") -> Model:
        proto = onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["": {opset}{domains}]> {text}')
        for name, values in (weights or {}).items():
            proto.graph.initializer.append(numpy_helper.from_array(values, name))
            if ir < 4:
                tensor_type = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
                proto.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor_type, values.shape))
        return from_proto(proto)

    return make


@pytest.fixture
def answers() -> Callable[..., list[NDArray]]:
    """`answers(model, feeds, optimised)`: what onnxruntime computes."""

    def run(model: Model, feeds: Weights, optimised: bool) -> list[NDArray]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(to_proto(model).SerializeToString(), options)
        return [np.asarray(output) for output in session.run(None, dict(feeds))]

    return run


@pytest.fixture
def feeds_of() -> Callable[..., dict[str, NDArray]]:
    """`feeds_of(model, batch)`: integers from -3 to 3 for every input without initializer; 0 or 1 for integer types."""

    def make(model: Model, batch: int, seed: int = 7) -> dict[str, NDArray]:
        given = {tensor.name for tensor in model.graph.initializer}
        rng, feeds = np.random.default_rng(seed), {}
        for value in model.graph.input:
            if value.name in given:
                continue
            tensor = value.type.tensor_type
            shape = [dim.dim_value if dim.HasField("dim_value") else batch for dim in tensor.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            low, high = (0, 2) if np.issubdtype(dtype, np.integer) or dtype == np.bool_ else (-3, 4)
            feeds[value.name] = rng.integers(low, high, shape).astype(dtype)
        return feeds

    return make


@pytest.fixture
def same_answers(
    answers: Callable[..., list[NDArray]], feeds_of: Callable[..., dict[str, NDArray]]
) -> Callable[..., None]:
    """`same_answers(before, after, exact=True)`: equal outputs, batch 1 and 5, optimisations off and on."""

    def check(before: Model, after: Model, exact: bool = True) -> None:
        onnx.checker.check_model(to_proto(after), full_check=True)
        for batch in (1, 5):
            feeds = feeds_of(before, batch)
            for optimised in (False, True):
                pairs = zip(answers(before, feeds, optimised), answers(after, feeds, optimised), strict=True)
                for one, other in pairs:
                    assert one.shape == other.shape
                    assert one.dtype == other.dtype
                    if exact:
                        np.testing.assert_array_equal(one, other)
                    else:
                        scale = max(float(np.abs(one).max()), 1e-30)
                        assert float(np.abs(one - other).max()) / scale <= 1e-6

    return check


@pytest.fixture
def shapes() -> Callable[[State], dict[str, tuple[int, ...]]]:
    """`shapes(state)`: the shapes of all tensors."""

    def of(state: State) -> dict[str, tuple[int, ...]]:
        known = state.model.initializers
        return {key: known.source(key).shape for key in known}

    return of


@pytest.fixture
def reasons() -> Callable[[State], list[str]]:
    """`reasons(state)`: every Skip as `name: reason`."""

    def of(state: State) -> list[str]:
        return [f"{entry.name}: {entry.reason}" for entry in state.log if isinstance(entry, Skip)]

    return of


@pytest.fixture
def summary() -> Callable[[State], str]:
    """`summary(state)`: what the one Change says; '' when there is none."""

    def of(state: State) -> str:
        return "".join(entry.summary for entry in state.log if isinstance(entry, Change))

    return of


@pytest.fixture
def golden_text(build: Build, ints: Callable[..., NDArray]) -> Callable[..., None]:
    """`golden_text(path, text, weights, options, run)`: run a pass on a graph and compare with the file at `path`.

    `weights`: a list is a vector (float32; int64 when all are ints), a tuple is `ints(*tuple)`, an array itself.
    `options` of `build`; `run(model)` gives the state after the pass. With ONNXPRUNE_REWRITE_GOLDEN=1 in the
    environment the files are written anew.
    """

    def array(name: str, spec: Any) -> NDArray:
        if isinstance(spec, tuple):
            return ints(*spec, seed=sum(name.encode()))
        if isinstance(spec, list):
            return np.array(spec, np.int64 if all(isinstance(one, int) for one in spec) else np.float32)
        return np.asarray(spec)

    def check(
        path: Path,
        text: str,
        weights: Mapping[str, Any],
        options: Mapping[str, Any],
        run: Callable[[Model], State],
    ) -> None:
        before = build(text, {key: array(key, spec) for key, spec in weights.items()}, **options)
        state = run(before)
        log = "\n".join(
            f"Change  {entry.summary}" if isinstance(entry, Change) else f"Skip    {entry.name}: {entry.reason}"
            for entry in state.log
        )
        after = "the same" if state.model is before else to_text(state.model)
        found = f"before\n\n{to_text(before)}\n\nlog\n\n{log or 'nothing'}\n\nafter\n\n{after}\n"
        if os.environ.get(REWRITE):
            path.write_text(found, encoding="utf-8")
        assert path.is_file(), f"golden/{path.name} is missing; write it with {REWRITE}=1"
        assert found == path.read_text(encoding="utf-8")

    return check
