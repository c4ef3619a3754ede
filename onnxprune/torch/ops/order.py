"""Sorting, counting along an axis, and what depends on the values themselves."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from onnxprune.torch.dtypes import array_from_tensor, tensor_from_array
from onnxprune.torch.host import Host
from onnxprune.torch.node import Node
from onnxprune.torch.ops.common import axis_of, number
from onnxprune.torch.registry import op


@op("TopK", host=(1,))
def top_k(node: Node, x: Tensor, count: Host | None = None) -> tuple[Tensor, Tensor]:
    """The k largest (or smallest) entries along `axis` and where they stand; of equals the first."""
    axis = axis_of(node, -1, x.ndim)
    k = node.integer("k", 1) if count is None else int(number(count))
    signed = x if x.dtype not in (torch.uint16, torch.uint32, torch.uint64) else x.to(torch.int64)
    values, places = torch.sort(signed, dim=axis, descending=bool(node.integer("largest", 1)), stable=True)
    return values.narrow(axis, 0, k).to(x.dtype), places.narrow(axis, 0, k)


@op("NonZero", since=9)
def non_zero(_: Node, x: Tensor) -> Tensor:
    """Coordinates of the entries that are not zero; int64 [rank, count]."""
    return x.nonzero().t() if x.ndim else x.reshape(1).nonzero().t()[:0]


def _running(node: Node, x: Tensor, axis: Host, product: bool) -> Tensor:
    at = int(number(axis)) % x.ndim
    turned = x.flip(at) if node.integer("reverse", 0) else x
    found = turned.cumprod(at, dtype=x.dtype) if product else turned.cumsum(at, dtype=x.dtype)
    if node.integer("exclusive", 0):
        first = torch.full_like(found.narrow(at, 0, 1), 1 if product else 0)
        found = torch.cat([first, found.narrow(at, 0, found.shape[at] - 1)], at)
    return found.flip(at) if node.integer("reverse", 0) else found


@op("CumSum", since=11, host=(1,))
def cum_sum(node: Node, x: Tensor, axis: Host) -> Tensor:
    """Sums of x up to each place along an axis; `exclusive` leaves it out itself, `reverse` begins at the end."""
    return _running(node, x, axis, product=False)


@op("CumProd", since=26, host=(1,))
def cum_prod(node: Node, x: Tensor, axis: Host) -> Tensor:
    """Products of x up to each place along an axis, as CumSum."""
    return _running(node, x, axis, product=True)


@op("Trilu", since=14, host=(1,))
@op("Trilu", domain="com.microsoft", host=(1,))
def trilu(node: Node, x: Tensor, offset: Host | None = None) -> Tensor:
    """`x` [..., M, N] with zeros below (upper = 1) or above the diagonal `offset`."""
    k = 0 if offset is None else int(number(offset))
    return x.triu(k) if node.integer("upper", 1) else x.tril(k)


@op("Unique", since=11)
def unique(node: Node, x: Tensor) -> tuple[Tensor, ...]:
    """The different entries or slices, where each stands first, which one each was, and how many there are."""
    axis = node.attributes.get("axis")
    array = array_from_tensor(x)
    values, first, inverse, counts = np.unique(
        array if axis is not None else array.reshape(-1), True, True, True, axis=axis
    )
    inverse = inverse.reshape(-1)
    if not node.integer("sorted", 1):
        order = np.argsort(first, kind="stable")
        back = np.argsort(order, kind="stable")
        values = np.take(values, order, axis=axis if axis is not None else 0)
        first, counts, inverse = first[order], counts[order], back[inverse]
    found = (values, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64))
    return tuple(tensor_from_array(np.ascontiguousarray(one), str(node)).to(x.device) for one in found)
