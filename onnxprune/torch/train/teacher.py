"""Targets for distillation: what the dense model says about a batch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxprune_passes.errors import DataError, SelectionError
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


def teacher_from(
    path: str | Path, kind: str = "onnxruntime", output: str | None = None, *, loss: str = "ce"
) -> Teacher:
    """A function from a batch to the output of the model at `path`, for `distill`.

    Args:
        path: an ONNX file that takes the same inputs as the model that is trained: its dense version, say.
        kind: `onnxruntime` runs the file as it is on the CPU; `torch` makes a module of it, which runs where the
            batch is.
        output: the value to give; None takes output 0, before a last Softmax or Sigmoid where `loss` takes logits.
        loss: the (hard) loss that the output is for, as `pretail.loss_output` reads it.

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
    name = loss_output(model, output, loss=loss)[0]
    return _Runtime(model, name) if kind == "onnxruntime" else _Module(model, name)


class _Module:
    """The teacher as a torch module."""

    def __init__(self, model: Model, output: str) -> None:
        self._module = module_from_model(model, outputs=[output], frozen=["*"]).eval()
        self._module.requires_grad_(False)

    def __call__(self, feeds: Feeds) -> Tensor:
        inputs = _chosen(feeds, self._module.input_names)
        device = next(iter(inputs.values())).device
        self._module.to(device)
        dims = self._module.first_dims
        declared = dims[0] if dims else None
        with torch.no_grad():
            pieces = _pieces(inputs, declared, self._module.batch_problem is None)
            return _joined([self._module(*piece.values())[0] for piece in pieces], declared, _count(inputs))


class _Runtime:
    """The teacher in onnxruntime."""

    def __init__(self, model: Model, output: str) -> None:
        self._session, self._output = _opened(model, output), output

    def __call__(self, feeds: Feeds) -> Tensor:
        inputs = _chosen(feeds, [spec.name for spec in self._session.inputs])
        shape = self._session.inputs[0].shape
        declared = shape[0] if shape and isinstance(shape[0], int) else None
        found = []
        for piece in _pieces(inputs, declared, False):
            arrays = {name: array_from_tensor(one) for name, one in piece.items()}
            values = run(self._session, arrays)[self._output]
            found.append(tensor_from_array(np.array(values), f"output {self._output!r}"))
        return _joined(found, declared, _count(inputs)).to(next(iter(inputs.values())).device)


def _chosen(feeds: Feeds, names: Sequence[str]) -> dict[str, Tensor]:
    """The inputs that a model takes, in its order."""
    missing = [name for name in names if name not in feeds]
    if missing:
        raise DataError(
            f"the teacher's input {', '.join(missing)} is not in the batch ({', '.join(feeds)}): it must take the "
            "inputs of the model that is trained"
        )
    return {name: feeds[name] for name in names}


def _pieces(inputs: Feeds, declared: int | None, any_multiple: bool) -> list[dict[str, Tensor]]:
    """The batch in pieces of the size that the model declares; the last one is filled up with its last sample.

    Inputs whose first axis does not count the samples go into every piece whole.
    """
    count = _count(inputs)
    if declared is None or declared == count or (any_multiple and count % declared == 0):
        return [dict(inputs)]
    places = torch.arange(count + -count % declared).clamp_max(count - 1).reshape(-1, declared)
    return [
        {name: one[place.to(one.device)] if one.shape[:1] == (count,) else one for name, one in inputs.items()}
        for place in places
    ]


def _joined(pieces: Sequence[Tensor], declared: int | None, count: int) -> Tensor:
    """The outputs of the pieces as those of a batch of `count`; what filled up the last piece is left out."""
    if len(pieces) == 1 and (declared is None or count >= declared):
        return pieces[0]
    whole, padded = torch.cat(list(pieces)), (declared or 1) * len(pieces)
    if whole.shape[0] % padded:
        raise DataError(
            f"the teacher runs batches of {declared}, and the first axis of its output has {pieces[0].shape[0]} "
            f"entries, no multiple of that: take a batch size of {declared}"
        )
    return whole[: whole.shape[0] // padded * count]


def _count(inputs: Feeds) -> int:
    return len(next(iter(inputs.values())))


def _opened(model: Model, output: str) -> Session:
    """A session that gives the value `output`, in as many threads as torch takes."""
    threads = torch.get_num_threads()
    if model.path is not None and any(value.name == output for value in model.graph.output):
        return open_session(model.path, optimize=True, threads=threads)
    with tempfile.TemporaryDirectory(prefix="onnxprune-", ignore_cleanup_errors=True) as folder:
        return open_session(
            save(_with_output(model, output), Path(folder) / "teacher.onnx"), optimize=True, threads=threads
        )


def _with_output(model: Model, output: str) -> Model:
    """The model with one output: the value `output`."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    declared = [value for value in model.graph.output if value.name == output]
    known = declared or [value for value in model.graph.value_info if value.name == output]
    del skeleton.graph.output[:]
    skeleton.graph.output.add().CopyFrom(known[0] if known else onnx.ValueInfoProto(name=output))
    return model.with_skeleton(skeleton)
