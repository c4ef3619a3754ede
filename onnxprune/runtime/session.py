"""Sessions: one model loaded by onnxruntime, fed with arrays by name."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxprune_passes.errors import DataError, ModelError

from onnxprune.runtime.errors import ORT_ERRORS, error_from_load, error_from_run
from onnxprune.runtime.specs import EXTENSION_TYPES, TensorSpec, spec_from_ort

Array = NDArray[Any]


class Session:
    """An onnxruntime session over one model; leaving its `with` block frees the model's memory.

    `source` names the model in messages. `inputs` are the inputs that must be fed (an initializer that is also a
    graph input is not among them), `outputs` the graph's outputs in order; `skipped` are those of the outputs that
    `run` leaves out because numpy cannot hold them (4-bit and complex tensors, sparse tensors).
    """

    def __init__(self, source: str, session: Any) -> None:
        self.source = source
        self._session: Any = session
        self.inputs = tuple(spec_from_ort(node) for node in session.get_inputs())
        self.outputs = tuple(spec_from_ort(node) for node in session.get_outputs())
        extensions = {extension.dtype for extension in EXTENSION_TYPES.values()}
        specs = (*self.inputs, *self.outputs)
        self.uses_values = any(spec.dtype in extensions for spec in specs if spec.dtype is not None)
        self.skipped = tuple(
            spec for spec in self.outputs if not spec.is_fetchable or (self.uses_values and spec.dtype is None)
        )

    @property
    def ort(self) -> Any:
        """The `onnxruntime.InferenceSession`; raises `ValueError` once closed."""
        if self._session is None:
            raise ValueError(f"{self.source}: the session is closed; open a new one")
        return self._session

    def close(self) -> None:
        """Free the model; closing twice is harmless."""
        self._session = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_session(
    model: str | Path | bytes, *, optimize: bool, threads: int | None = None, flush_denormals: bool = False
) -> Session:
    """Load a model file (external data is looked for beside it) or the bytes of a ModelProto.

    Args:
        model: path of the .onnx file, or a serialised model without external data.
        optimize: True for onnxruntime's default level (all graph optimisations), False for none.
        threads: threads inside one operator; None leaves onnxruntime its default (one per core).
        flush_denormals: take denormal numbers for 0, which slow some processors down many times. The first session of
            a process decides for its thread, and for good: see `timing`.

    Raises:
        ModelError: no such file, not an ONNX model, cut short, missing external data, or a model that onnxruntime
            refuses: opset or IR version too new or too old, unknown operator, invalid graph.
        NoKernelError: onnxruntime has no CPU kernel for one operator at the model's types.
    """
    source = "model in memory" if isinstance(model, bytes) else str(model)
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise ModelError(f"{source}: no such file; give the path of an ONNX model")
    options = ort.SessionOptions()
    options.log_severity_level = 4  # every error arrives as an exception; the log would only repeat it
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    if threads is not None:
        options.intra_op_num_threads = threads
    if flush_denormals:
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
    try:
        session = ort.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
    except ORT_ERRORS as error:
        raise error_from_load(error, model) from error
    return Session(source, session)


def input_specs(path: str | Path) -> tuple[TensorSpec, ...]:
    """The inputs a model must be fed, in the graph's order; raises what `open_session` raises."""
    with open_session(path, optimize=False) as session:
        return session.inputs


def run(session: Session, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run one batch; returns output name -> array, in the graph's order.

    A sequence `y` comes back as `y[0]`, `y[1]`…, a map as `y.keys` and `y.values`, a sequence of maps with equal keys
    as `y.keys` and one stacked `y.values`; an absent optional is left out, and so are the `skipped` outputs. Arrays in
    `feeds` that the model does not ask for are ignored.

    Raises:
        DataError: an input is missing, or has another dtype or shape than the model declares.
        VerifyError: onnxruntime failed while running.
    """
    needed = {spec.name: _checked(session, spec, feeds) for spec in session.inputs}
    names = [spec.name for spec in session.outputs if spec not in session.skipped]
    ort_session = session.ort
    if not names:
        return {}  # an empty list would ask onnxruntime for every output
    try:
        values = _run_values(ort_session, names, needed) if session.uses_values else ort_session.run(names, needed)
    except ORT_ERRORS as error:
        raise error_from_run(error, session.source) from error
    flat: dict[str, Array] = {}
    for name, value in zip(names, values, strict=True):
        flat.update(_flattened(name, value))
    return flat


def _checked(session: Session, spec: TensorSpec, feeds: Mapping[str, Array]) -> Array:
    """The array fed to one input, once its dtype and shape are known to fit."""
    if spec.dtype is None:
        raise DataError(f"{session.source}: input {spec} cannot be given as an array; only tensor inputs are supported")
    if spec.name not in feeds:
        raise DataError(f"{session.source}: input {spec} is not fed; found {sorted(feeds)}; add an array of that name")
    array = feeds[spec.name]
    text = spec.dtype == np.dtype(object) and array.dtype.kind in "OU"
    if (array.dtype != spec.dtype and not text) or not spec.accepts_shape(array.shape):
        found = f"{array.dtype.name}{list(array.shape)}"
        raise DataError(f"{session.source}: input {spec} was fed {found}; give an array of that dtype and shape")
    return array


def _run_values(session: Any, names: list[str], feeds: Mapping[str, Array]) -> list[Any]:
    """Run with OrtValues, whose bytes can be read and written for types numpy has no name for."""
    extensions = {extension.dtype: extension for extension in EXTENSION_TYPES.values()}
    fed = {}
    for name, array in feeds.items():
        whole = np.ascontiguousarray(array).reshape(array.shape)
        if extension := extensions.get(array.dtype):
            carried = whole.view(extension.carrier)
            fed[name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(carried, extension.element)
        else:
            fed[name] = ort.OrtValue.ortvalue_from_numpy(whole)
    return [_array_from_value(value) for value in session.run_with_ort_values(names, fed)]


def _array_from_value(value: Any) -> Any:
    """The value as numpy holds it; the bytes of an extension type are copied out of onnxruntime's memory."""
    extension = EXTENSION_TYPES.get(value.data_type().removeprefix("tensor(").removesuffix(")"))
    if extension is None:
        return value.numpy()
    shape = value.shape()
    count = math.prod(shape)
    content = ctypes.string_at(value.data_ptr(), count * extension.dtype.itemsize) if count else b""
    return np.frombuffer(content, extension.dtype).reshape(shape)


def _flattened(name: str, value: Any) -> dict[str, Array]:
    """Named arrays from whatever onnxruntime returns for one output."""
    if value is None:
        return {}
    if isinstance(value, list) and _are_equal_maps(value):
        keys = sorted(value[0])
        stacked = np.array([[item[key] for key in keys] for item in value])
        return {f"{name}.keys": np.array(keys), f"{name}.values": stacked}
    if isinstance(value, dict):
        keys = sorted(value)
        return {f"{name}.keys": np.array(keys), f"{name}.values": np.array([value[key] for key in keys])}
    if isinstance(value, list):
        flat: dict[str, Array] = {}
        for index, item in enumerate(value):
            flat.update(_flattened(f"{name}[{index}]", item))
        return flat
    return {name: np.asarray(value)}


def _are_equal_maps(values: list[Any]) -> bool:
    """Whether a list is not empty and holds maps with equal keys only."""
    return bool(values) and all(isinstance(value, dict) and value.keys() == values[0].keys() for value in values)
