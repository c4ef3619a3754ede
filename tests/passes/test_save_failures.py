from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from builders import NDArray, everything, proto, ramp, stored
from onnx import helper
from onnxprune_passes.arrays import CHUNK, Array, Masked
from onnxprune_passes.errors import ModelError
from onnxprune_passes.masks import Masks, apply_masks
from onnxprune_passes.model import Model
from onnxprune_passes.storage import from_proto, load, save, stage
from saving import NAMING, listing, starts, two

# staged


@pytest.mark.parametrize("external", [False, True])
def test_a_staged_model_can_be_read_before_it_has_its_name(tmp_path: Path, external: bool) -> None:
    path = save(two(1), tmp_path / "m.onnx", external=external)
    staged = stage(two(2), path, external=external)
    assert starts(staged.temporary) == 2
    assert starts(path) == 1
    size = staged.nbytes
    assert size > 5200
    assert staged.commit() == path
    assert starts(path) == 2
    assert staged.nbytes == size == sum(len(data) for data in listing(tmp_path).values())
    assert (staged.data is not None) == external


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_discard_removes_what_was_written_and_nothing_else(tmp_path: Path, there: bool, external: bool) -> None:
    (tmp_path / "bystander.data").write_bytes(b"mine")
    if there:
        save(two(1), tmp_path / "m.onnx", external=external)
    before = listing(tmp_path)
    stage(two(2), tmp_path / "m.onnx", external=external).discard()
    assert listing(tmp_path) == before
    stage(two(1), tmp_path / "m.onnx", external=external).discard()  # the very data that is there already
    assert listing(tmp_path) == before


@pytest.mark.parametrize("external", [False, True])
def test_discard_after_commit_does_nothing(tmp_path: Path, external: bool) -> None:
    staged = stage(two(), tmp_path / "m.onnx", external=external)
    staged.commit()
    before = listing(tmp_path)
    staged.discard()
    assert listing(tmp_path) == before


# what goes wrong


class Breaking(Array):
    """Values whose reading fails at the second chunk."""

    error: BaseException = KeyboardInterrupt()

    def chunks(self) -> Iterator[NDArray]:
        yield self.values[:CHUNK]
        raise self.error


def breaking(error: BaseException) -> Model:
    values = Breaking(ramp(2 * CHUNK))
    object.__setattr__(values, "error", error)
    model = from_proto(
        proto([helper.make_node("Sum", ["a", "w"], ["y"])], [stored("a", ramp(300)), stored("w", values.values)])
    )
    return model.with_initializers({"w": values})


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    ("error", "raised", "says"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (MemoryError(), MemoryError, None),
        (OSError(errno.ENOSPC, "No space left on device"), ModelError, "No space left on device; free some space"),
        (OSError(errno.EIO, "Input/output error"), ModelError, "Input/output error; nothing was changed"),
    ],
)
def test_what_interrupts_writing_leaves_nothing(
    tmp_path: Path, error: BaseException, raised: type[BaseException], says: str | None, there: bool, external: bool
) -> None:
    if there:
        save(two(), tmp_path / "m.onnx", external=external)
    before = listing(tmp_path)
    with pytest.raises(raised, match=says) as caught:
        save(breaking(error), tmp_path / "m.onnx", external=external)
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("limit", [0, 100, 1500, 5100])
def test_a_file_that_may_not_grow_further_leaves_nothing(tmp_path: Path, limit: int, external: bool) -> None:
    save(two(), tmp_path / "m.onnx", external=external)
    before = listing(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # Python ignores the signal: write fails with EFBIG
    try:
        with pytest.raises(ModelError, match="cannot be written: File too large"):
            save(two(2), tmp_path / "m.onnx", external=external)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert listing(tmp_path) == before


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_failure_at_any_step_leaves_the_old_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, external: bool
) -> None:
    save(two(), tmp_path / "m.onnx", external=external)
    before = listing(tmp_path)
    module: Any = os if call == "fsync" else Path
    real, calls = getattr(module, call), []

    def failing(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == number:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(module, call, failing)
        with suppress(KeyboardInterrupt):
            save(two(2), tmp_path / "m.onnx", external=external)
    after = listing(tmp_path)
    assert after == before or starts(tmp_path / "m.onnx") == 2
    assert not [name for name in after if name.endswith(".tmp")]


@pytest.mark.parametrize("external", [False, True])
def test_a_folder_that_is_not_there_or_not_writable_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, external: bool
) -> None:
    with pytest.raises(ModelError, match=r"folder .* does not exist: create it"):
        save(two(), tmp_path / "gone" / "m.onnx", external=external)

    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(ModelError, match="Permission denied; choose a folder you may write to"):
        save(two(), tmp_path / "m.onnx", external=external)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("external", [False, True])
def test_a_folder_cannot_be_the_output(tmp_path: Path, external: bool) -> None:
    (tmp_path / "m.onnx").mkdir()
    with pytest.raises(ModelError, match="cannot be written"):
        save(two(), tmp_path / "m.onnx", external=external)
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_a_name_that_is_too_long_is_said(tmp_path: Path) -> None:
    source = save(two(), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="File name too long"):
        save(load(source), tmp_path / ("n" * 300))


def test_saving_does_not_touch_the_model(tmp_path: Path) -> None:
    model = from_proto(everything())
    before = model.skeleton.SerializeToString()
    save(model, tmp_path / "m.onnx", external=True)
    save(model, tmp_path / "n.onnx", external=False)
    assert model.skeleton.SerializeToString() == before
    assert model.path is None


def test_pruned_weights_read_lazily_from_a_file_that_is_being_replaced(tmp_path: Path) -> None:
    path = save(two(), tmp_path / "m.onnx", external=True)
    model = load(path)
    pruned = apply_masks(model, Masks({"b": np.arange(1000) % 2 > 0}))
    assert isinstance(pruned.initializers.source("b"), Masked)
    save(pruned, path, overwrite_input=True)
    assert np.array_equal(load(path).initializers["b"], ramp(1000) * (np.arange(1000) % 2))


SAVES_FOREVER = """
    import itertools, sys
    from pathlib import Path
    import numpy as np
    from onnxprune_passes.storage import load, save

    source, out = load(sys.argv[1]), Path(sys.argv[2])
    versions = []
    for k in range(5):
        changed = {key: np.full_like(values, k) for key, values in source.initializers.items()}
        versions.append(source.with_initializers(changed))
    print("ready", flush=True)
    for k in itertools.count():
        save(versions[k % 5], out, external=k % 7 != 0)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_one_consistent_model(tmp_path: Path) -> None:
    tensors = [stored(name, ramp(200_000)) for name in ("a", "b", "c")]
    source = save(
        from_proto(proto([helper.make_node("Sum", ["a", "b", "c"], ["y"])], tensors)), tmp_path / "source.onnx"
    )
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "m.onnx"
    chance, seen = random.Random(0), set()
    for _ in range(60):
        script = [sys.executable, "-c", textwrap.dedent(SAVES_FOREVER), str(source), str(out)]
        with subprocess.Popen(script, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(chance.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
        if out.exists():
            values = [np.unique(array) for array in load(out).initializers.values()]
            assert len(values) == 3
            assert {len(found) for found in values} == {1}
            assert len({float(found[0]) for found in values}) == 1
            assert len(onnx.load(out).graph.initializer) == 3
            seen.add(float(values[0][0]))
    assert len(seen) > 2
    for left in (tmp_path / "out").iterdir():  # a kill may leave files, but none that looks like a model
        assert left.name == "m.onnx" or NAMING.fullmatch(left.name) or left.name.endswith(".tmp")
