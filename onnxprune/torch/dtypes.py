"""ONNX element types, numpy dtypes and torch dtypes, and arrays from one to the other."""

from __future__ import annotations

import warnings
from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from onnxprune_passes.errors import ModelError

_TORCH_FROM_ONNX: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT8: torch.int8,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT16: torch.int16,
    TensorProto.UINT16: torch.uint16,
    TensorProto.INT32: torch.int32,
    TensorProto.UINT32: torch.uint32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT64: torch.uint64,
    TensorProto.BOOL: torch.bool,
    TensorProto.COMPLEX64: torch.complex64,
    TensorProto.COMPLEX128: torch.complex128,
    TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    TensorProto.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    TensorProto.FLOAT8E5M2: torch.float8_e5m2,
    TensorProto.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
}
_ONNX_FROM_TORCH = {dtype: element for element, dtype in _TORCH_FROM_ONNX.items()}
_CARRIED: dict[str, tuple[Any, Any, torch.dtype]] = {
    "bfloat16": (np.int16, ml_dtypes.bfloat16, torch.bfloat16),
    "float8_e4m3fn": (np.uint8, ml_dtypes.float8_e4m3fn, torch.float8_e4m3fn),
    "float8_e4m3fnuz": (np.uint8, ml_dtypes.float8_e4m3fnuz, torch.float8_e4m3fnuz),
    "float8_e5m2": (np.uint8, ml_dtypes.float8_e5m2, torch.float8_e5m2),
    "float8_e5m2fnuz": (np.uint8, ml_dtypes.float8_e5m2fnuz, torch.float8_e5m2fnuz),
}
"""Types that numpy knows through ml_dtypes only: an integer of their width, the numpy type, torch's."""
_CARRIER_OF = {dtype: (carrier, extension) for carrier, extension, dtype in _CARRIED.values()}

FLOAT8 = frozenset((torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz))
FLOATS = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
"""The element types that can be trained."""


def torch_from_onnx(element: int, where: str) -> torch.dtype:
    """The torch dtype of an ONNX element type; `where` names what asks, for the message.

    Raises:
        ModelError: torch has no such type (strings, 4 bits and fewer).
    """
    found = _TORCH_FROM_ONNX.get(element)
    if found is None:
        names = {number: name for name, number in TensorProto.DataType.items()}
        raise ModelError(
            f"{where} has element type {names.get(element, element)}, which torch does not have: take it out of the "
            "part of the model that is trained"
        )
    return found


def onnx_from_torch(dtype: torch.dtype) -> int:
    """The ONNX element type of a torch dtype. Raises KeyError when ONNX has none."""
    return _ONNX_FROM_TORCH[dtype]


def is_float(array: NDArray[Any]) -> bool:
    """Whether an array holds numbers that can be trained: float16, bfloat16, float32 or float64."""
    return array.dtype.name in ("float16", "bfloat16", "float32", "float64")


def tensor_from_array(array: NDArray[Any], where: str) -> torch.Tensor:
    """The array as a tensor on the CPU that shares its memory; `where` names it in the message.

    A read-only array gives a tensor that must not be written to (torch would warn of it; callers keep that promise).

    Raises:
        ModelError: torch has no such element type.
    """
    array = np.asarray(array)
    carried = _CARRIED.get(array.dtype.name)
    if carried is None and array.dtype.kind not in "fiubc":
        raise ModelError(f"{where} has element type {array.dtype}, which torch does not have")
    plain = array if array.flags.c_contiguous and array.flags.aligned else np.array(array)
    if carried is not None:
        plain = plain.view(carried[0])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensor = torch.from_numpy(plain)
    return tensor if carried is None else tensor.view(carried[2])


def array_from_tensor(tensor: torch.Tensor) -> NDArray[Any]:
    """The tensor's values as a numpy (or ml_dtypes) array, detached and on the CPU."""
    tensor = tensor.detach().cpu()
    carried = _CARRIER_OF.get(tensor.dtype)
    if carried is None:
        return np.asarray(tensor.resolve_conj().numpy())
    carrier, extension = carried
    plain = tensor.contiguous().view(torch.int16 if carrier is np.int16 else torch.uint8).numpy()
    return np.asarray(plain).view(extension)
