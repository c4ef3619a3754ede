"""Which value the loss is taken on: the scores before a last Softmax, LogSoftmax or Sigmoid."""

from __future__ import annotations

import onnx
from onnxprune_passes.errors import SelectionError
from onnxprune_passes.model import Model

from onnxprune.shapes import Shape, inferred_model
from onnxprune.torch.train.losses import TAKE_LOGITS

_TAILS = ("Softmax", "LogSoftmax", "Sigmoid")
_MOVES = ("Identity", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Dropout")
_NO_SCORES = ("ArgMax", "ArgMin", "NonMaxSuppression")


def loss_output(model: Model, output: str | None = None, *, loss: str = "ce") -> tuple[str, str | None]:
    """The value to train on, and what was left off behind it.

    Cross entropy and distillation take logits. Where output 0 is a Softmax, LogSoftmax or Sigmoid, possibly behind
    Identity, Cast, Flatten, Reshape, Squeeze or Unsqueeze that keep the order of the classes, that is the input of the
    function. A Softmax may be spelled out as Exp over ReduceSum. For other losses it is the output itself.

    Args:
        model: the model.
        output: a value of the main graph to train on, exactly as it is; None looks at output 0.
        loss: a name as `losses.loss_from` takes it; a user's `module:function` counts among those that take logits.

    Returns:
        The value's name, and the operator that was left off, None when nothing was.

    Raises:
        SelectionError: there is no such value, output 0 holds no scores to train on (ArgMax), or a Reshape behind a
            Softmax mixes classes with something else.
    """
    made = {name: node for node in model.graph.node for name in node.output if name}
    if output is not None:
        known = {*made, *(value.name for value in model.graph.input)}
        if output not in known:
            raise SelectionError(f"output {output!r} is no value of the model's main graph: name an output of a node")
        return output, None
    if not model.graph.output:
        raise SelectionError("the model has no outputs: name the value to train on (--output-name)")
    first = model.graph.output[0].name
    name, moves = first, []
    while (node := made.get(name)) is not None and node.op_type in _MOVES and not node.domain and node.input:
        moves.append(node)
        name = node.input[0]
    if node is not None and node.op_type in _NO_SCORES:
        raise SelectionError(
            f"output {first!r} comes out of {node.op_type}, which has no gradient: name the scores before it "
            "(--output-name)"
        )
    if node is None or node.domain or not (loss in TAKE_LOGITS or ":" in loss):
        return first, None
    power = _spelled_out(made, node)
    if power is None and node.op_type not in _TAILS:
        return first, None
    _require_kept_order(model, node, moves, first)
    return (node.input[0], node.op_type) if power is None else (power.input[0], "Softmax")


def _spelled_out(made: dict[str, onnx.NodeProto], node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The Exp node of a Softmax written as Exp(x) / ReduceSum(Exp(x)), as TensorFlow's converter does; else None."""
    if node.op_type != "Div" or node.domain:
        return None
    power, total = (made.get(name) for name in node.input)
    while total is not None and total.op_type in ("Identity", "Reshape", "Unsqueeze", "Expand"):
        total = made.get(total.input[0])
    if power is None or total is None or power.op_type != "Exp" or total.op_type != "ReduceSum":
        return None
    return power if total.input[0] == power.output[0] else None


def _require_kept_order(model: Model, tail: onnx.NodeProto, moves: list[onnx.NodeProto], output: str) -> None:
    """Raise SelectionError when the function, or what follows it, mixes the classes with something else."""
    _require_one_axis(model, tail, output)
    if all(node.op_type in ("Identity", "Cast", "Squeeze", "Unsqueeze", "Dropout") for node in moves):
        return
    shapes = _shapes(model)
    before, after = shapes.get(tail.output[0]), shapes.get(output)
    if before is None or after is None or not _keeps_classes(before, after):
        raise SelectionError(
            f"output {output!r} reshapes the result of {tail.op_type} node {tail.name or tail.output[0]!r} from "
            f"{before} to {after}, so where its classes are is not plain: name the value to train on (--output-name)"
        )


def _require_one_axis(model: Model, tail: onnx.NodeProto, output: str) -> None:
    """Raise SelectionError when the function is an old Softmax that takes more than one axis longer than 1 as one."""
    if model.opset >= 13 or tail.op_type == "Sigmoid":
        return
    axis = next((one.i for one in tail.attribute if one.name == "axis"), 1)
    shape = _shapes(model).get(tail.output[0])
    if shape is not None and sum(size != 1 for size in shape[axis:]) > 1:
        raise SelectionError(
            f"output {output!r}: {tail.op_type} node {tail.name or tail.output[0]!r} of opset {model.opset} takes the "
            f"axes from {axis} on as one ({shape}), so no axis counts classes: name the value to train on (--output)"
        )


def _keeps_classes(before: Shape, after: Shape) -> bool:
    """Whether the sizes but 1 are equal, or the last axis is and only axes before it were merged or split."""
    kept = [size for size in before if size != 1], [size for size in after if size != 1]
    if kept[0] == kept[1]:
        return True
    return bool(before and after) and before[-1] is not None and before[-1] == after[-1] != 1


def _shapes(model: Model) -> dict[str, Shape]:
    graph = inferred_model(model.skeleton).graph
    found: dict[str, Shape] = {}
    for value in (*graph.value_info, *graph.output, *graph.input):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            found[value.name] = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in dims)
    return found
