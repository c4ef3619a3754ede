"""Values that follow from graph inputs without any weight."""

from __future__ import annotations

from .draft import Draft

_MOVES = ("Identity", "Dropout", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Gather", "Slice")
_EACH = ("Add", "Sub", "Mul", "Div", "Neg", "Concat")


def near_inputs(draft: Draft) -> list[str]:
    """The graph inputs of the main graph, and what is made of them without weights, in the order of the graph."""
    main = draft.main
    near = [value.name for value in main.graph.input if value.name not in main.stored]
    known = set(near)
    for node in main.nodes:
        if node.domain not in ("", "ai.onnx") or node.op_type not in (*_MOVES, *_EACH):
            continue
        if node.op_type in _MOVES and node.input[0] not in known:
            continue  # a table that an input looks rows up in
        computed = [name for name in node.input if name and draft.key(main, name) is None]
        if computed and all(name in known for name in computed):
            near.append(node.output[0])
            known.add(node.output[0])
    return near
