"""`FoldBatchNorm`: a BatchNormalization goes into the weight and the bias of the layer before it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..arrays import Array, Masked, NDArray
from ..pipeline import Change, Skip, State
from ..storage.keys import first_output
from .affine import Affine, affine_from, part_factors, rounded_to, scaled
from .blocks import Block
from .draft import Draft
from .known import Known
from .layers import Layer, channel_vector, layer_before

_OLDEST = 7
_EPSILON = float(np.float32(1e-5))
_Bias = tuple[onnx.NodeProto, int, NDArray]
"""A node, the index of its input that is a bias, and what that becomes."""


@dataclass(frozen=True)
class FoldBatchNorm:
    """Scale the weight of Conv, ConvTranspose, Gemm or MatMul, and its bias, as the BatchNormalization behind it does.

    The weight keeps its key, its shape and its mask (zeros stay zeros); the BatchNormalization and its four vectors
    go. The bias may be an Add between the two; where there is none, one is made. Computed in float64 and rounded once
    to the weight's type, so outputs move by rounding. onnxruntime does the same when it loads a model: what is gained
    are parameters and bytes. In the main graph and in bodies of If, Loop and Scan. Opset 7 and newer.

    Left alone, with a Skip: a BatchNormalization that trains, or whose vectors are computed; one whose input has other
    readers or is an output; a weight that is computed, quantised, or read elsewhere too (a copy of it would take more
    than the vectors); one whose type cannot hold the result. A bias that is read elsewhere is copied.

    Attributes:
        keep_inputs: initializers that are graph inputs too, which a caller may set, stay as they are.
    """

    keep_inputs: bool = False

    @property
    def name(self) -> str:
        """The pass's name in logs, reports and recipes."""
        return "fold-batch-norm"

    def __call__(self, state: State) -> State:
        """The state with all of them folded that can be; the same object when there are none."""
        folded: list[str] = []
        while True:  # a BatchNormalization behind another one is for the next round
            one = _Round(state, keep_inputs=self.keep_inputs)
            if not one.folded:
                break
            folded += one.folded
            state = one.state()
        skips = [Skip(self.name, name, reason) for name, reason in one.refused.items()]
        if folded:
            total = len(folded) + len(skips)
            state = state.noted(
                Change(self.name, f"folded {len(folded)} of {total} BatchNormalizations into {', '.join(folded)}")
            )
        return state.noted(*skips)


class _Round:
    """Every BatchNormalization folded that has a layer before it, one for each layer.

    Attributes:
        folded: the keys of the weights that were scaled.
        refused: BatchNormalization → why it stays.
    """

    def __init__(self, before: State, *, keep_inputs: bool) -> None:
        self.folded: list[str] = []
        self.refused: dict[str, str] = {}
        self._before = before
        self._keep_inputs = keep_inputs
        self._changes: dict[str, Array | Masked | NDArray] = {}
        self._draft = Draft(before.model)
        found = [(block, node) for block in self._draft.blocks for node in block.nodes if _is_batch_norm(node)]
        if found and before.model.skeleton.training_info:
            self.refused["the graph"] = "it holds training graphs, which would no longer fit"
        elif found and before.model.opset < _OLDEST:
            self.refused["the graph"] = f"it uses opset {before.model.opset}, and {_OLDEST} is needed: upgrade it first"
        elif found:
            self._run(found)

    def state(self) -> State:
        """The state after the round."""
        after = self._draft.state(self._before)
        return replace(after, model=after.model.with_initializers(self._changes))

    def _run(self, found: list[tuple[Block, onnx.NodeProto]]) -> None:
        known, done = Known(self._before.model), set[int]()
        for block, node in found:
            reason = _why_it_stays(node, self._before.model.opset)
            layer = reason or layer_before(self._draft, known, block, node.input[0], keep_inputs=self._keep_inputs)
            if isinstance(layer, Layer):
                if id(layer.node) in done:
                    continue
                reason = self._fold(layer, node)
                if not reason:
                    done.add(id(layer.node))
                    self.folded.append(layer.key)
            else:
                reason = layer
            if reason:
                self.refused[node.name or first_output(node)] = reason

    def _fold(self, layer: Layer, norm: onnx.NodeProto) -> str:
        """Fold one; why not, or ''. Nothing is changed before everything is known to fit."""
        affine = self._affine(layer, norm)
        if isinstance(affine, str):
            return affine
        source = self._before.model.initializers.source(layer.key)
        factors = part_factors(
            layer.node.op_type, source.shape, affine.scale, out_axis=layer.out_axis, groups=layer.groups
        )
        weight = scaled(source, factors)
        if weight is None:
            return f"the scaled weight '{layer.key}' is beyond the range of {source.dtype}"
        biases = self._biases(layer, affine, source.dtype)
        if isinstance(biases, str):
            return biases
        addend = rounded_to(affine.of(np.zeros(layer.channels)), source.dtype)
        if addend is None:
            return f"its bias is beyond the range of {source.dtype}"
        self._changes[layer.key] = weight
        output, value = norm.output[0], norm.input[0]
        for node, index, values in biases:
            self._put(layer.block, node, index, values, f"{output}.bias")
        if not biases:
            shift = self._draft.add_constant(layer.block, f"{output}.bias", addend)
            self._draft.insert(layer.block, helper.make_node("Add", [value, shift], [output], norm.name), norm)
        vectors = norm.input[1:5]
        self._draft.remove(layer.block, norm)
        if biases:
            self._draft.rename(layer.block, value, output)
        self._draft.drop_unread(layer.block, vectors, keep_inputs=self._keep_inputs)
        return ""

    def _affine(self, layer: Layer, norm: onnx.NodeProto) -> Affine | str:
        """What `norm` does to the channels of `layer`; or why that is not known."""
        vectors = []
        for name in norm.input[1:5]:
            values = self._draft.constant(layer.block, name, default=not self._keep_inputs)
            if values is None or values.size != layer.channels:
                return f"its input '{name}' is computed, can be set by the caller, or is not one number a channel"
            vectors.append(values)
        epsilon = next((one.f for one in norm.attribute if one.name == "epsilon"), _EPSILON)
        affine = affine_from(vectors[0], vectors[1], vectors[2], vectors[3], epsilon)
        return affine if affine.is_finite else "its scale is not finite: a variance is negative, or 0 with epsilon 0"

    def _biases(
        self, layer: Layer, affine: Affine, dtype: np.dtype[Any]
    ) -> list[tuple[onnx.NodeProto, int, NDArray]] | str:
        """The constants that change: (node, its input, values). The last one takes the shift, another is scaled."""
        biases: list[tuple[onnx.NodeProto, int, NDArray]] = []
        for node, index in layer.bias_inputs:
            name = node.input[index] if index < len(node.input) else ""
            total = np.zeros(layer.channels)
            if name:
                values = self._draft.constant(layer.block, name, default=not self._keep_inputs)
                own = node.op_type in ("Conv", "ConvTranspose")
                vector = None if values is None else channel_vector(values, layer.channels, 2 if own else layer.rank)
                if vector is None:
                    return f"the bias '{name}' before it is computed, can be set, or is not one number a channel"
                total = vector.astype(np.float64) * (layer.beta if node.op_type == "Gemm" else 1.0)
            last = node is (layer.add or layer.node)
            rounded = rounded_to(affine.of(total) if last else affine.scale * total, dtype)
            if rounded is None:
                return f"the bias '{name}' before it, folded, is beyond the range of {dtype}"
            shape = (-1,) + (1,) * (layer.rank - 2 if node.op_type == "Add" else 0)
            biases.append((node, index, rounded.reshape(shape)))
        return biases

    def _put(self, block: Block, node: onnx.NodeProto, index: int, values: NDArray, wanted: str) -> None:
        """Let input `index` of `node` be `values`: in place where no one else reads the constant there, else anew."""
        draft, old = self._draft, node.input[index] if index < len(node.input) else ""
        beta = [one for one in node.attribute if one.name == "beta"]
        for attribute in beta:
            node.attribute.remove(attribute)
        key = draft.key(block, old) if old else None
        source = None if key is None else self._before.model.initializers.source(key)
        same = source is not None and source.shape == values.shape and source.dtype == values.dtype
        if key is not None and same and key not in self._before.masks and len(block.readers(old)) == 1:
            self._changes[key] = values
            return
        draft.set_input(block, node, index, draft.add_constant(block, wanted, values))
        draft.drop_unread(block, [old], keep_inputs=self._keep_inputs)


def _is_batch_norm(node: onnx.NodeProto) -> bool:
    return node.op_type == "BatchNormalization" and node.domain in ("", "ai.onnx")


def _why_it_stays(norm: onnx.NodeProto, opset: int) -> str:
    """Why a BatchNormalization is not one of inference, a number a channel; '' when it is."""
    flags = {one.name: one.i for one in norm.attribute if one.type == onnx.AttributeProto.INT}
    if flags.get("training_mode") or any(norm.output[1:]):
        return "it trains: it takes mean and variance of its input"
    if opset < 9 and not flags.get("spatial", 1):
        return "its vectors count more than channels (spatial is 0)"
    return ""
