"""Tensors wherever a model can hold them: encoded there, decoded by onnxruntime and by `densify`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnxprune_passes.encode import DOMAIN, EncodedModel, encode_model
from onnxprune_passes.model import Model
from onnxprune_passes.pipeline import Skip

NDArray = npt.NDArray[Any]
Feeds = Mapping[str, NDArray]
Exact = Callable[[Model, EncodedModel, Feeds], None]
Build = Callable[..., Model]
Sparse = Callable[..., NDArray]

ENCODINGS = ("auto", "gaps", "bitmask", "coo")
OPSETS = (11, 12, 13, 17, 18, 21, "newest")
TWO = "g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w)\n y = MatMul(h, v) }"
BRANCHES = """
g (float[N,32] x, bool c) => (float[N,32] y) {
  h = MatMul(x, w)
  i = If (c) <
    then_branch = t () => (float[N,32] o1) {
      k = Constant <value = float[1] {0}> ()
      o0 = MatMul(h, k)
      o1 = If (c) <then_branch = t2 () => (float[N,32] p1) { p1 = MatMul(o0, w2) },
                   else_branch = e2 () => (float[N,32] p2) { p2 = Identity(o0) }>
    },
    else_branch = e () => (float[N,32] o2) { o2 = MatMul(h, v) }>
  y = MatMul(i, w)
}"""


def flag(feed: Feeds, value: bool) -> dict[str, NDArray]:
    return {**feed, "c": np.array(value)}


def keys_of(encoded: EncodedModel) -> list[str]:
    return [tensor.key for tensor in encoded.tensors]


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_initializers(build: Build, sparse: Sparse, feed: Feeds, exact: Exact, encoding: Any, opset: int) -> None:
    model = build(TWO, {"w": sparse(32, 32), "v": sparse(32, 32, density=0.4)}, opset=opset)
    encoded = encode_model(model, encoding)
    assert keys_of(encoded) == (["w"] if encoding == "coo" else ["w", "v"])
    exact(model, encoded, feed)


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_bodies_in_bodies(build: Build, sparse: Sparse, feed: Feeds, exact: Exact, encoding: Any, taken: bool) -> None:
    found = {
        "w": sparse(32, 32),
        "i.then_branch/k": sparse(32, 32),
        "i.then_branch/o1.then_branch/w2": sparse(32, 32),
        "i.else_branch/v": sparse(32, 32),
    }
    model = build(BRANCHES, found)
    encoded = encode_model(model, encoding)
    assert sorted(keys_of(encoded)) == sorted(found)
    exact(model, encoded, flag(feed, taken))


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_one_name_in_two_bodies(
    build: Build, sparse: Sparse, feed: Feeds, exact: Exact, encoding: Any, taken: bool
) -> None:
    text = """g (float[N,32] x, bool c) => (float[N,32] y) {
      y = If (c) <then_branch = t () => (float[N,32] o1) { o1 = MatMul(x, w) },
                  else_branch = e () => (float[N,32] o2) { o2 = MatMul(x, w) }>
    }"""
    model = build(text, {"y.then_branch/w": sparse(32, 32), "y.else_branch/w": sparse(32, 32, density=0.05)})
    encoded = encode_model(model, encoding)
    assert len(encoded.tensors) == 2
    exact(model, encoded, flag(feed, taken))


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("encoding", ["auto", "gaps", "bitmask"])
def test_a_body_that_only_gives_a_tensor(
    build: Build, sparse: Sparse, exact: Exact, encoding: Any, taken: bool
) -> None:
    text = """g (bool c) => (float[32,32] y) {
      y = If (c) <then_branch = t () => (float[32,32] o1) { o1 = Constant <value = float[1] {0}> () },
                  else_branch = e () => (float[32,32] o2) { o2 = Constant <value = float[1] {0}> () }>
    }"""
    model = build(text, {"y.then_branch/o1": sparse(32, 32), "y.else_branch/o2": sparse(32, 32, density=0.05)})
    encoded = encode_model(model, encoding)
    assert len(encoded.tensors) == 2
    exact(model, encoded, {"c": np.array(taken)})


LOOP = """
g (float[N,32] x, int64 m, bool c) => (float[N,32] y) {
  y = Loop (m, c, x) <body = b (int64 i, bool ci, float[N,32] s) => (bool co, float[N,32] so) {
    co = Identity(ci)
    t = MatMul(s, w)
    so = Clip(t, low, high)
  }>
}"""

SCAN = """
g (float[4,32] x, float[32] s) => (float[32] y, float[4,32] z) {
  y, z = Scan (s, x) <num_scan_inputs = 1, body = b (float[32] si, float[32] xi) => (float[32] so, float[32] zo) {
    k = Constant <value = float[1] {0}> ()
    a = MatMul(xi, k)
    so = Max(a, si)
    zo = Identity(so)
  }>
}"""


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_loop(build: Build, sparse: Sparse, feed: Feeds, exact: Exact, encoding: Any) -> None:
    tensors = {"low": np.float32(-50), "high": np.float32(50), "y.body/w": sparse(32, 32)}
    model = build(LOOP, {key: np.asarray(array) for key, array in tensors.items()})
    encoded = encode_model(model, encoding)
    assert keys_of(encoded) == ["y.body/w"]
    exact(model, encoded, {**feed, "m": np.array(3), "c": np.array(True)})


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_scan(build: Build, sparse: Sparse, exact: Exact, encoding: Any) -> None:
    model = build(SCAN, {"y.body/k": sparse(32, 32)})
    encoded = encode_model(model, encoding)
    assert keys_of(encoded) == ["y.body/k"]
    x = np.arange(128, dtype=np.float32).reshape(4, 32) % 7
    exact(model, encoded, {"x": x, "s": np.zeros(32, np.float32)})


FUNCTIONS = """
<ir_version: 9, opset_import: ["": 17, "local": 1]>
g (float[N,32] x, bool c) => (float[N,32] y) { h = local.Outer(x, c)
  y = MatMul(h, w) }
<domain: "local", opset_import: ["": 17, "local": 1]>
Outer (a, c) => (b) {
  k = Constant <value = float[1] {0}> ()
  t = MatMul(a, k)
  u = local.Inner(t)
  v = local.Inner(u)
  b = If (c) <then_branch = t () => (float[N,32] o1) { q = Constant <value = float[1] {0}> ()
                                                       o1 = MatMul(v, q) },
              else_branch = e () => (float[N,32] o2) { o2 = Identity(v) }>
}
<domain: "local", opset_import: ["": 17]>
Inner (a) => (b) { k = Constant <value = float[1] {0}> ()
  b = MatMul(a, k) }
<domain: "local", opset_import: ["": 17]>
Other (a) => (b) { b = Identity(a) }
"""


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_functions(build: Build, sparse: Sparse, feed: Feeds, exact: Exact, encoding: Any, taken: bool) -> None:
    found = {
        "w": sparse(32, 32),
        "local::Outer/k": sparse(32, 32, density=0.2),
        "local::Outer/b.then_branch/q": sparse(32, 32),
        "local::Inner/k": sparse(32, 32, density=0.05),
    }
    model = build(FUNCTIONS, found)
    encoded = encode_model(model, encoding)
    if encoding == "coo":  # onnxruntime 1.31 does not load a sparse tensor there, or crashes
        assert [entry.name for entry in encoded.log if isinstance(entry, Skip)] == list(found)[1:]
        found = {"w": found["w"]}
    assert sorted(keys_of(encoded)) == sorted(found)
    own = [each for each in encoded.model.skeleton.functions if each.domain != DOMAIN]
    importing = {each.name for each in own if DOMAIN in {entry.domain for entry in each.opset_import}}
    assert importing == (set() if encoding == "coo" else {"Outer", "Inner"})
    exact(model, encoded, flag(feed, taken))
    own = [each.domain == DOMAIN for each in encoded.model.skeleton.functions]
    assert own == sorted(own, reverse=True)  # the reference evaluator wants to see what is called first


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_tensor_that_two_nodes_read(build: Build, sparse: Sparse, feed: Feeds, exact: Exact, encoding: Any) -> None:
    text = "g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w)\n y = MatMul(h, w) }"
    model = build(text, {"w": sparse(32, 32)})
    exact(model, encode_model(model, encoding), feed)


@pytest.mark.parametrize("encoding", ["auto", "gaps", "bitmask"])
def test_a_tensor_that_is_an_output(build: Build, sparse: Sparse, feed: Feeds, exact: Exact, encoding: Any) -> None:
    text = "g (float[N,32] x) => (float[N,32] y, float[32,32] w) { y = MatMul(x, w) }"
    model = build(text, {"w": sparse(32, 32)})
    exact(model, encode_model(model, encoding), feed)


def test_coo_leaves_outputs_dense(build: Build, sparse: Sparse) -> None:
    """onnxruntime would hand them out as sparse tensors, which is another type."""
    text = "g (float[N,32] x) => (float[N,32] y, float[32,32] w) { y = MatMul(x, w) }"
    model = build(text, {"w": sparse(32, 32)})
    encoded = encode_model(model, "coo")
    assert encoded.model is model
    assert encoded.log == (
        Skip("encode", "w", "stays dense: it is an output, which onnxruntime would hand out as a sparse tensor"),
    )
