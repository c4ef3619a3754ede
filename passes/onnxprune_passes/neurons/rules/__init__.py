"""One file of rules for each family of ops; `REGISTRY` holds them all.

A new op: write its rule in the file of its family (or a new one, added below); the engine stays as it is.
"""

from __future__ import annotations

from ..rule import Rules
from . import (
    attention,
    branching,
    conv,
    einsum,
    elementwise,
    fused,
    indexing,
    joining,
    layout,
    matmul,
    norm,
    pool,
    quantised,
    recurrent,
    refused,
    shape,
)

REGISTRY: Rules = {
    **attention.RULES,
    **branching.RULES,
    **conv.RULES,
    **einsum.RULES,
    **elementwise.RULES,
    **fused.RULES,
    **indexing.RULES,
    **joining.RULES,
    **layout.RULES,
    **matmul.RULES,
    **norm.RULES,
    **pool.RULES,
    **quantised.RULES,
    **recurrent.RULES,
    **refused.RULES,
    **shape.RULES,
}
"""(domain, op type) → rule."""
