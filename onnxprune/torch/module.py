"""The module: an ONNX graph that torch can train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnxprune_passes.errors import DataError, SelectionError
from torch import Tensor, nn

from onnxprune.torch.assign import LATENT, PARAMETER, STATISTIC
from onnxprune.torch.escape import name_from_key
from onnxprune.torch.host import Host
from onnxprune.torch.node import RunState
from onnxprune.torch.ops.quantize import steps_of
from onnxprune.torch.parts import Bound, Check, InputSpec, Parts
from onnxprune.torch.plan import Plan, Step
from onnxprune.torch.table import as_text

BATCH_NORM_MODES = ("frozen", "train")


class OnnxModule(nn.Module):
    """An ONNX graph as a module; `module_from_model` makes it.

    Trained tensors are parameters under the escaped key of their ONNX tensor (`name_from_key`), in ONNX's layout.
    `state_dict` holds the parameters and the statistics of BatchNormalization; the other buffers stay in the file.

    Attributes:
        input_names, output_names: the graph's inputs that must be given, and what `forward` gives, in order.
        rows: what each stored tensor became, in the order of the graph.
        masks: the masks it was made with.
        check: how it compared with onnxruntime when it was made; None when it was not compared.
        batch_problem: why a batch of another size than the file's cannot be run; None when it can.
    """

    def __init__(self, parts: Parts, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.input_names = tuple(spec.name for spec in parts.inputs)
        self.output_names = parts.outputs
        self.rows = parts.rows
        self.masks = parts.masks
        self.check: Check | None = None
        self.batch_problem: str | None = None
        self._plan, self._state, self._specs = parts.plan, parts.state, parts.inputs
        self._bound, self._values = parts.bound, dict(parts.values)
        self._dropout: dict[str, float] = {}
        self._input_dropout: dict[int, float] = {}
        persistent = {name_from_key(row.key) for row in parts.rows if row.kind == STATISTIC}
        trained = {name_from_key(row.key): row.trained for row in parts.rows if row.kind in (PARAMETER, LATENT)}
        for name, tensor in tensors.items():
            if name in trained:
                self.register_parameter(name, nn.Parameter(tensor, requires_grad=trained[name]))
            else:
                self.register_buffer(name, tensor, persistent=name in persistent)
        self._ddp_params_and_buffers_to_ignore = [name for name in tensors if name not in {*trained, *persistent}]

    def forward(self, *inputs: Tensor, **named: Tensor) -> tuple[Tensor, ...]:
        """Run the graph.

        Args:
            inputs: the graph's inputs in the order of `input_names`, of the types that the file declares.
            named: the same by name.

        Returns:
            The outputs in the order of `output_names`.

        Raises:
            DataError: an input is missing, unknown or has other dims than the file declares (the first may differ).
            ModelError: a node has a form that its operator does not support.
        """
        values = self._all_values(self._arranged(inputs, named))
        found = self._plan.run(self._state, values)
        device = self._state.device
        return tuple(one.as_tensor(device) if isinstance(one, Host) else one for one in found)

    @property
    def plan(self) -> Plan:
        """The steps it runs."""
        return self._plan

    @property
    def values(self) -> Mapping[str, tuple[Step, int]]:
        """Key of a value → the step that makes it and which of its outputs it is."""
        return self._values

    @property
    def bound(self) -> tuple[Bound, ...]:
        """What the last of the plan's inputs are bound to, in their order: parameters and buffers."""
        return self._bound

    def prepared(self, inputs: Sequence[Tensor]) -> tuple[Plan, RunState, list[Any]]:
        """The plan, how it runs, and its slots filled for `inputs`, for a caller that runs the steps itself."""
        slots = self._plan.template.copy()
        for slot, value in zip(self._plan.inputs, self._all_values(list(inputs)), strict=True):
            slots[slot] = value
        return self._plan, self._state, slots

    def _all_values(self, values: list[Any]) -> list[Any]:
        """The inputs with the parameters and buffers behind them; sets how the module runs."""
        state = self._state
        state.training = self.training
        state.device = next((one.device for one in values if isinstance(one, Tensor)), state.device)
        state.batch_factor = self._batch_factor(values)
        if self._input_dropout and self.training:
            for index, probability in self._input_dropout.items():
                values[index] = nn.functional.dropout(values[index], probability, training=True)
        for bound in self._bound:
            value = (self._parameters if bound.is_parameter else self._buffers)[bound.name]
            if bound.dtype is not None and value is not None and bound.dtype.is_floating_point:
                value = value.to(bound.dtype)
            elif bound.dtype is not None and value is not None:
                scale, zero = self._buffers[bound.scale], self._buffers[bound.zero]
                value = steps_of(value, scale, zero, bound.dtype)  # type: ignore[arg-type]  # buffers are set
            values.append(value)
        return values

    @property
    def specs(self) -> tuple[InputSpec, ...]:
        """The inputs as the file declares them."""
        return self._specs

    @property
    def first_dims(self) -> tuple[int | None, ...] | None:
        """The dims that the file declares for the first input; None where it has none, or there is no input."""
        return self._specs[0].dims if self._specs else None

    @property
    def batch_norm(self) -> str:
        """`frozen`: the file's statistics, whatever the mode; `train`: the batch's while training, written back."""
        return self._state.batch_norm

    @batch_norm.setter
    def batch_norm(self, mode: str) -> None:
        if mode not in BATCH_NORM_MODES:
            raise SelectionError(f"batch_norm = {mode!r} is unknown; choose one of {', '.join(BATCH_NORM_MODES)}")
        self._state.batch_norm = mode

    @property
    def batch_norm_momentum(self) -> float | None:
        """The share of a batch in the statistics while batch_norm is `train`; None: 1 - each node's ONNX momentum.

        Setting 1 / (number of batches so far + 1) before each forward pass averages over all batches alike.
        """
        return self._state.momentum

    @batch_norm_momentum.setter
    def batch_norm_momentum(self, share: float | None) -> None:
        self._state.momentum = share

    @property
    def batch_norm_group(self) -> Any:
        """The processes (of torch.distributed) over whose batches statistics are computed in `train`; None: its own."""
        return self._state.group

    @batch_norm_group.setter
    def batch_norm_group(self, group: Any) -> None:
        self._state.group = group

    def named(self, *inputs: Tensor, **named: Tensor) -> dict[str, Tensor]:
        """What `forward` gives, by name."""
        return dict(zip(self.output_names, self(*inputs, **named), strict=True))

    def extra_repr(self) -> str:
        """Inputs, outputs and how many tensors train, for `print(module)`."""
        trained = sum(row.trained for row in self.rows)
        return f"{', '.join(self.input_names)} -> {', '.join(self.output_names)}; {trained} trained tensors"

    @property
    def dropout(self) -> dict[str, float]:
        """What `set_dropout` set last."""
        return dict(self._dropout)

    def set_dropout(self, probabilities: Mapping[str, float]) -> None:
        """Zero entries of values while training; replaces what was set before.

        Args:
            probabilities: key of a value (its name; a path in bodies and functions) → the probability, from 0 to
                below 1, with which one of its entries is zeroed. The others are scaled up by 1 / (1 - probability).

        Raises:
            SelectionError: a key names no value that the module computes, or a probability is out of range.
        """
        for key, probability in probabilities.items():
            if not 0 <= probability < 1:
                raise SelectionError(f"dropout of {key!r} is {probability}: give a probability from 0 to below 1")
            if key not in self._values and key not in self.input_names:
                raise SelectionError(f"dropout names {key!r}, but the module computes no value of that name")
        self._dropout = dict(probabilities)
        for step, _ in self._values.values():
            step.dropout = None
        self._input_dropout = {}
        for key, probability in probabilities.items():
            if probability and key in self.input_names:
                self._input_dropout[self.input_names.index(key)] = probability
            elif probability:
                step, index = self._values[key]
                step.dropout = {**(step.dropout or {}), index: probability}

    def parameters_table(self) -> str:
        """What each stored tensor became, as text: key, kind, roles, shape, type, note."""
        return as_text(self.rows)

    def _arranged(self, inputs: Sequence[Tensor], named: Mapping[str, Tensor]) -> list[Any]:
        """The inputs in the graph's order. Raises DataError when they do not fit."""
        names = self.input_names
        given = dict(zip(names, inputs, strict=False)) if named else None
        if given is not None:
            unknown = [name for name in named if name not in names or name in given]
            if unknown:
                raise DataError(
                    f"input {', '.join(unknown)} is unknown or given twice; the model takes {', '.join(names)}"
                )
            inputs = [one for name in names if (one := {**given, **named}.get(name)) is not None]
        if len(inputs) != len(names):
            raise DataError(f"{len(inputs)} inputs were given; the model takes {len(names)}: {', '.join(names)}")
        for spec, value in zip(self._specs, inputs, strict=True):
            if spec.dims is not None and isinstance(value, Tensor) and not _fits(spec.dims, value.shape):
                dims = ", ".join("?" if dim is None else str(dim) for dim in spec.dims)
                raise DataError(f"input {spec.name!r} has shape {list(value.shape)}; the model takes [{dims}]")
        return list(inputs)

    def _batch_factor(self, inputs: Sequence[Tensor]) -> int:
        """The batch over the one that the file declares for the first input; 1 where that is open."""
        if not inputs or not self._specs[0].dims or self._specs[0].dims[0] is None:
            return 1
        declared, actual = self._specs[0].dims[0], int(inputs[0].shape[0])
        if actual == declared:
            return 1
        if self.batch_problem is not None:
            raise DataError(f"the model runs batches of {declared} only ({self.batch_problem}); {actual} were given")
        if actual % declared:
            raise DataError(f"a batch of {actual} is not a multiple of the {declared} that the model declares")
        return int(actual // declared)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> OnnxModule:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch does not annotate it
        for plan in self._plan.below():
            for value in plan.template:
                if isinstance(value, Host) and value.tensor is not None:
                    value.tensor = fn(value.tensor)
        return self


def _fits(dims: Sequence[int | None], shape: Sequence[int]) -> bool:
    """Whether a shape fits declared dims; the first may differ, since it is most often the batch."""
    if len(dims) != len(shape):
        return False
    return all(dim is None or dim == size for dim, size in zip(dims[1:], shape[1:], strict=True))
