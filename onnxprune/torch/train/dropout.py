"""Dropout put behind values of the graph while training, weaker where connections were pruned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from onnxprune_passes.errors import SelectionError
from onnxprune_passes.masks import Masks
from onnxprune_passes.selection import matches
from torch import nn

from onnxprune.torch.layers import Layers
from onnxprune.torch.module import OnnxModule
from onnxprune.torch.plan import Step
from onnxprune.torch.write import unwrapped


class DropoutHold:
    """Dropout on values of a module; `install` makes it.

    Attributes:
        layers: key of a value → the keys of the weights that make it (none behind an input of the model).
    """

    def __init__(self, module: OnnxModule, originals: Mapping[str, float], masks: Masks | None) -> None:
        self._module, self._originals = module, dict(originals)
        graph = Layers(module)
        self.layers = {
            key: graph.behind(module.values[key][0]) if key in module.values else () for key in self._originals
        }
        self._sizes = {row.key: math.prod(row.shape) for row in module.rows}
        self._rates: dict[str, float] = {}
        self.update(masks)

    @property
    def rates(self) -> Mapping[str, float]:
        """Key of a value → the rate D_r that holds now."""
        return MappingProxyType(self._rates)

    def update(self, masks: Masks | None = None) -> None:
        """Compute the rates anew, after a prune. None takes the masks that the module was made with."""
        masks = self._module.masks if masks is None else masks
        self._rates = {
            key: original * math.sqrt(self._density(self.layers[key], masks))
            for key, original in self._originals.items()
        }
        self._module.set_dropout(self._rates)

    def remove(self) -> None:
        """Take the dropout out again."""
        self._rates = {}
        self._module.set_dropout({})

    def _density(self, keys: tuple[str, ...], masks: Masks) -> float:
        """C_ir / C_io of the weights of a layer together; 1 where there are none."""
        total = sum(self._sizes[key] for key in keys)
        kept = sum(masks.kept(key) if key in masks else self._sizes[key] for key in keys)
        return kept / total if total else 1.0


def install(module: nn.Module, originals: Mapping[str, float], masks: Masks | None = None) -> DropoutHold:
    """Drop entries of named values while the module trains; the graph is not touched.

    The rate follows the connections that are left (Han et al. 2015, section 3.2, equation 2):
    D_r = D_o · √(C_ir / C_io). C_io is the size of the weights that make the value (all of those nearest behind it: the
    Gemm behind a Relu, both branches of a sum), C_ir what the masks keep of them.

    Args:
        module: what `module_from_model` gave, or what wraps it. Dropout set on it before is replaced.
        originals: glob → the rate D_o of the dense network, from 0 to below 1. A glob is matched with the names of
            values; then, where it matches none, with those of nodes (their first output is meant); then with the keys
            of weights (meant is the output of the node that reads it, behind the Add of a bias). Dropout nodes of the
            graph are nodes like others. Where two match a value the last one counts.
        masks: which entries are kept; None takes those the module was made with.

    Returns:
        The hold: `rates`, `update(masks)` after a prune, `remove()`.

    Raises:
        SelectionError: a glob matches nothing, a rate is out of range, or a value is made by a Dropout node that
            the file itself switches on.
    """
    inner = unwrapped(module)
    chosen: dict[str, float] = {}
    for glob, rate in originals.items():
        if not 0 <= rate < 1:
            raise SelectionError(f"dropout of {glob!r} is {rate}: give a rate from 0 to below 1")
        chosen.update(dict.fromkeys(_values_of(inner, glob), rate))
    for key in chosen:
        if key in inner.values:
            _refuse_own_dropout(inner, inner.values[key][0])
    return DropoutHold(inner, chosen, masks)


def _values_of(module: OnnxModule, glob: str) -> tuple[str, ...]:
    """The keys of the values that a glob means."""
    values = tuple(key for key in (*module.input_names, *module.values) if matches(key, glob))
    if values:
        return values
    named = tuple(key for key, (step, at) in module.values.items() if at == 0 and matches(step.node.name, glob))
    if named:
        return named
    graph = Layers(module)
    weights = [row.key for row in module.rows if row.trained and matches(row.key, glob)]
    found = tuple(dict.fromkeys(value for key in weights for value in _outputs_of(module, graph, key)))
    if not found:
        raise SelectionError(
            f"dropout on {glob!r}: no value, node or weight has that name; the values are "
            f"{', '.join(list(module.values)[:4])}{', …' if len(module.values) > 4 else ''}"
        )
    return found


def _outputs_of(module: OnnxModule, graph: Layers, weight: str) -> tuple[str, ...]:
    """The values behind the nodes that read a weight, the Add of a constant passed."""
    keys = {id(step): key for key, (step, at) in module.values.items() if at == 0}
    found = []
    for step in graph.readers(weight):
        last = step
        while (bias := graph.bias_behind(last)) is not None:
            last = bias
        if id(last) in keys:
            found.append(keys[id(last)])
    return tuple(found)


def _refuse_own_dropout(module: OnnxModule, step: Step) -> None:
    """Raise SelectionError when a value is the output of a Dropout node that drops entries without being asked."""
    if step.node.op_type != "Dropout" or len(step.inputs) < 3 or step.node.domain:
        return
    switch = Layers(module).number(step, 2)
    if switch is None or bool(switch):
        raise SelectionError(
            f"dropout on the output of {step.node}: the file sets its training_mode, so it drops entries of its own; "
            "name the value before it"
        )
