"""Targets for distillation: what the dense model says about a batch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxprune_passes.errors import SelectionError
from onnxprune_passes.model import Model
from onnxprune_passes.storage import load, save
from torch import Tensor

from onnxprune.runtime import Session, open_session, run
from onnxprune.torch.build import module_from_model
from onnxprune.torch.dtypes import array_from_tensor, tensor_from_array
from onnxprune.torch.train.pretail import loss_output

Feeds = Mapping[str, Tensor]
Teacher = Callable[[Feeds], Tensor]

KINDS = ("onnxruntime", "torch")


def teacher_from(path: str | Path, kind: str = "onnxruntime", output: str | None = None) -> Teacher:
    """A function from a batch to the output of the model at `path`, for `distill`.

    Args:
        path: an ONNX file that takes the same inputs as the model that is trained: its dense version, say.
        kind: `onnxruntime` runs the file as it is on the CPU; `torch` makes a module of it, which runs where the
            batch is.
        output: the value to give; None takes the scores before a last Softmax or Sigmoid (`pretail.loss_output`).

    Returns:
        Input name → tensor, of which it takes those it needs, gives the output as a tensor on the device of the
        batch, without gradient. A file that declares another batch is run in pieces of that size.

    Raises:
        SelectionError: the kind is unknown, or the model has no such value.
        ModelError, NoKernelError: the file cannot be read or run.
    """
    if kind not in KINDS:
        raise SelectionError(f"a teacher in {kind!r} is unknown; choose one of {', '.join(KINDS)}")
    model = load(path)
    name = output if output is not None else loss_output(model)[0]
    return _Runtime(model, name) if kind == "onnxruntime" else _Module(model, name)


class _Module:
    """The teacher as a torch module."""

    def __init__(self, model: Model, output: str) -> None:
        self._module = module_from_model(model, outputs=[output], frozen=["*"]).eval()

    def __call__(self, feeds: Feeds) -> Tensor:
        inputs = [feeds[name] for name in self._module.input_names]
        self._module.to(inputs[0].device)
        with torch.no_grad():
            found: Tensor = self._module(*inputs)[0]
        return found.detach()


class _Runtime:
    """The teacher in onnxruntime."""

    def __init__(self, model: Model, output: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="onnxprune-")
        path = save(_with_output(model, output), Path(self._folder.name) / "teacher.onnx")
        self._session: Session = open_session(path, optimize=True)
        self._output = output

    def __call__(self, feeds: Feeds) -> Tensor:
        device = next(iter(feeds.values())).device
        arrays = {spec.name: array_from_tensor(feeds[spec.name]) for spec in self._session.inputs}
        pieces = [run(self._session, piece)[self._output] for piece in _pieces(self._session, arrays)]
        whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return tensor_from_array(np.array(whole), f"output {self._output!r}").to(device)


def _with_output(model: Model, output: str) -> Model:
    """The model with one output: the value `output`."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    declared = [value for value in model.graph.output if value.name == output]
    known = declared or [value for value in model.graph.value_info if value.name == output]
    del skeleton.graph.output[:]
    skeleton.graph.output.add().CopyFrom(known[0] if known else onnx.ValueInfoProto(name=output))
    return model.with_skeleton(skeleton)


def _pieces(session: Session, arrays: Mapping[str, NDArray[np.generic]]) -> Sequence[dict[str, NDArray[np.generic]]]:
    """The batch in pieces of the size that the first input declares; one piece when it declares none."""
    declared = session.inputs[0].shape[0] if session.inputs and session.inputs[0].shape else None
    count = len(next(iter(arrays.values())))
    if not isinstance(declared, int) or declared == count or declared < 1:
        return [dict(arrays)]
    return [
        {name: array[start : start + declared] for name, array in arrays.items()} for start in range(0, count, declared)
    ]
