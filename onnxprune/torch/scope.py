"""The names that a graph, body or function sees while it is compiled, and the operator sets it imports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx
from onnx import AttributeProto
from onnxprune_passes.errors import ModelError

from onnxprune.torch.draft import ABSENT, Draft


@dataclass(eq=False)
class Scope:
    """The names that one graph or function body sees; `attributes` are those a function was called with."""

    draft: Draft
    prefix: str
    opsets: dict[str, int]
    outer: Scope | None = None
    names: dict[str, int] = field(default_factory=dict)
    attributes: dict[str, tuple[AttributeProto, str]] = field(default_factory=dict)
    keyed: bool = True

    def resolve(self, name: str) -> int:
        """The slot of a value. Raises ModelError when nothing makes it."""
        if not name:
            return ABSENT
        if name in self.names:
            return self.names[name]
        if self.outer is None:
            raise ModelError(
                f"value {name!r} is read{f' in {self.prefix}' if self.prefix else ''} before any node makes it: the "
                "graph is not valid, or its nodes are not in order; export it again"
            )
        slot = self.outer.resolve(name)
        return slot if self.outer.draft is self.draft else self.draft.capture(slot)


def plain_domain(domain: str) -> str:
    """The domain as it is looked up: ai.onnx has an empty name."""
    return "" if domain == "ai.onnx" else domain


def opsets_of(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """Domain → the version that is imported."""
    return {plain_domain(one.domain): one.version for one in imports}
