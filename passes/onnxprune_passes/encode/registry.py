"""The self-decoding schemes there are, and the way from a decoder node back to its scheme."""

from __future__ import annotations

import onnx

from ..errors import EncodeError
from .bitmask import Bitmask
from .functions import DOMAIN
from .gaps import Gaps
from .scheme import Scheme

SCHEMES: tuple[Scheme, ...] = (Bitmask(), Gaps(4), Gaps(8))
"""Every scheme, in the order in which equal sizes are decided."""


def scheme_of(node: onnx.NodeProto) -> Scheme | None:
    """The scheme that a decoder node undoes; None for a node of another domain.

    Raises EncodeError for an operator of the domain `onnxprune` that no scheme here has.
    """
    if node.domain != DOMAIN:
        return None
    for scheme in SCHEMES:
        if scheme.op_type == node.op_type:
            return scheme
    known = ", ".join(scheme.op_type for scheme in SCHEMES)
    raise EncodeError(
        f"node of {list(node.output)}: found {DOMAIN}::{node.op_type}, expected one of {known}; "
        "the file may come from a newer onnxprune"
    )
