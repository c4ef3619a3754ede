"""The given real models at 80 % sparsity: encoded, decoded and run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnxprune_passes.encode import densify, encode_model, standalone_decoders
from onnxprune_passes.magnitude import MagnitudePrune
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Change, State
from onnxprune_passes.storage import load, to_proto
from onnxprune_passes.thresholds import Sparsity

NDArray = npt.NDArray[Any]
Run = Callable[[Model, Mapping[str, NDArray], Any], list[tuple[tuple[int, ...], bytes]]]

OFF, ON = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL
pytestmark = pytest.mark.corpus


@pytest.mark.parametrize("encoding", ["auto", "gaps", "bitmask", "coo"])
def test_a_real_model(corpus_path: Path, run: Run, encoding: Any) -> None:
    named = corpus_path.parent if corpus_path.name == "model.onnx" else corpus_path.with_suffix("")
    pruned = MagnitudePrune(Sparsity(0.8))(State(load(corpus_path))).model
    encoded = encode_model(pruned, encoding)
    if (named.name, encoding) == ("cifar_resnet20_qdq_int8", "coo"):  # positions of 8 bytes for values of one
        assert encoded.model is pruned
        return
    assert encoded.tensors
    before, after = (to_proto(each) for each in (pruned, encoded.model))
    assert after.ByteSize() < before.ByteSize()
    if encoding != "coo":
        onnx.checker.check_model(after, full_check=True)
    assert encode_model(encoded.model, encoding).model is encoded.model

    dense = densify(encoded.model)
    for key, array in pruned.initializers.items():
        assert dense.initializers[key].tobytes() == array.tobytes(), key
    for key, small in standalone_decoders(encoded.model):
        expected = [(pruned.initializers[key].shape, pruned.initializers[key].tobytes())]
        assert run(small, {}, OFF) == expected, key
        assert run(small, {}, ON) == expected, key

    with np.load(named.with_name(f"{named.name}.inputs.npz")) as stored:
        feeds = {key: stored[key] for key in stored.files}
    outputs = run(dense, feeds, ON)
    assert run(encoded.model, feeds, ON) == outputs
    same_graph = not any(isinstance(entry, Change) for entry in encoded.log)
    if same_graph:
        assert run(pruned, feeds, ON) == outputs
    run(encoded.model, feeds, OFF)


def test_a_network_with_shared_weights_is_smaller_than_in_its_own_format() -> None:
    """Deep Compression's SqueezeNet: 675,763 bytes in Han's own format; see docs/benchmarks/encoded_size.md."""
    folder = os.environ.get("ONNXPRUNE_DATA")
    if folder is None:
        pytest.skip("ONNXPRUNE_DATA is not set: no models to read")
    model = load(Path(folder) / "models" / "squeezenet_v1.0_deepcompressed.onnx")
    encoded = encode_model(model)
    assert to_proto(encoded.model).ByteSize() <= 640_000
    dense = densify(encoded.model)
    assert all(dense.initializers[key].tobytes() == array.tobytes() for key, array in model.initializers.items())
