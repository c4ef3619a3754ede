"""`RemoveNoOps`: nodes that change nothing go, and their readers read what they read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import onnx

from ..pipeline import Change, Skip, State
from ..storage.keys import first_output
from .blocks import Block
from .draft import Draft
from .known import Known
from .neutral import Look, neutral_input


@dataclass(frozen=True)
class RemoveNoOps:
    """Take out nodes that give back an input as it is: values to the last bit, type and shape.

    Identity; Dropout that does not train; Cast to the type it has; Reshape, Flatten and Expand to the shape it has;
    Transpose that moves no axis; Pad by nothing; Slice and Split of everything; Tile by 1; Concat, Sum, Mean, Max and
    Min of one; Mul and Div by 1, Sub of 0, Add of −0, each where the other operand does not change the shape. An Add
    of +0 to floats stays, since it makes +0 of −0.

    In the main graph and in bodies of If, Loop and Scan; functions are not touched. The names of graph inputs and
    outputs stay, and so does a node that gives its name to an output that is an input, an initializer or another
    output. Constants that only such nodes read go too. Opset 7 and newer.
    """

    @property
    def name(self) -> str:
        """The pass's name in logs, reports and recipes."""
        return "remove-no-ops"

    def __call__(self, state: State) -> State:
        """The state without them; the same object when there are none and nothing new is to be said."""
        if state.model.skeleton.training_info:
            return state.noted(Skip(self.name, "the graph", "it holds training graphs, which would no longer fit"))
        draft = Draft(state.model)
        known = Known(state.model)
        counts: Counter[str] = Counter()
        skips: list[Skip] = []
        for block in draft.blocks:
            for node in tuple(block.nodes):
                index = neutral_input(Look(draft, known, block, node))
                if index is None:
                    continue
                reason = _bypassed(draft, block, node, node.input[index])
                if reason == "":
                    counts[node.op_type] += 1
                elif reason is not None:
                    skips.append(Skip(self.name, node.name or first_output(node), reason))
        if not counts:
            return state.noted(*skips)
        return draft.state(state).noted(Change(self.name, _summary(counts)), *skips)


def _bypassed(draft: Draft, block: Block, node: onnx.NodeProto, source: str) -> str | None:
    """Take `node`, whose output is its input `source`, out of `block`.

    Returns:
        '' when it was done; why it was not; None where the node is what makes an output.
    """
    output = node.output[0]
    if draft.is_annotated(output) or draft.is_annotated(source):
        return "a quantization annotation names its input or output"
    inputs = list(node.input)
    if any(value.name == output for value in block.graph.output):
        if block.home(source) is not block or not _takes_name(draft, block, node, source):
            return None
    elif not draft.redirect(block, output, source):
        return f"a body reads '{output}' in a place where '{source}' is something else"
    else:
        draft.remove(block, node)
    draft.drop_unread(block, (name for name in inputs if name != source))
    return ""


def _takes_name(draft: Draft, block: Block, node: onnx.NodeProto, source: str) -> bool:
    """Let the node that makes `source` make the output of `node` in its place; False when it cannot."""
    place = block.nodes.index(node)
    draft.remove(block, node)
    if draft.rename(block, source, node.output[0]):
        return True
    block.nodes.insert(place, node)
    block.made.update(dict.fromkeys((name for name in node.output if name), node))
    block.note_inputs(node)
    return False


def _summary(counts: Counter[str]) -> str:
    kinds = ", ".join(f"{count} {op_type}" for op_type, count in sorted(counts.items()))
    total = counts.total()
    return f"removed {total} node{'s' if total > 1 else ''} that change{'' if total > 1 else 's'} nothing: {kinds}"
