"""Several processes under torchrun: who is who, and what they tell each other.

Gradients go through DistributedDataParallel. Everything small (flags, RNG states, outputs to measure) goes through a
gloo group of its own, whatever the gradients use.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

Value = TypeVar("Value")
_KNOWN = inspect.signature(nn.parallel.DistributedDataParallel.__init__).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _KNOWN else "broadcast_buffers"
"""The argument, by its name in newer and older releases of torch, that sends buffers around before each pass."""


@dataclass(frozen=True)
class Processes:
    """The processes of a training; one alone has rank 0 of 1.

    Attributes:
        rank, world: which of how many.
        local_rank: which on its machine; the number of its GPU.
        control: the group for everything but gradients; None alone.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    control: Any = None

    @property
    def is_main(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def any_of(self, *flags: bool) -> tuple[bool, ...]:
        """Each flag, true when it is true in any process."""
        if self.world == 1:
            return flags
        found = torch.tensor([int(flag) for flag in flags])
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.control)
        return tuple(bool(flag) for flag in found.tolist())

    def sums(self, *numbers: float) -> tuple[float, ...]:
        """Each number, summed over all processes."""
        if self.world == 1:
            return numbers
        found = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(found, group=self.control)
        return tuple(found.tolist())

    def gathered(self, value: Value) -> list[Value]:
        """The values of all processes by rank, in the main process; an empty list in the others."""
        if self.world == 1:
            return [value]
        found: list[Any] | None = [None] * self.world if self.is_main else None
        dist.gather_object(value, found, 0, group=self.control)
        return found or []

    def from_main(self, value: Value) -> Value:
        """The value that the main process has."""
        if self.world == 1:
            return value
        found = [value]
        dist.broadcast_object_list(found, 0, group=self.control)
        return found[0]

    def average(self, tensors: list[torch.Tensor]) -> None:
        """Replace each tensor by its mean over all processes."""
        if self.world == 1:
            return
        for tensor in tensors:
            summed = tensor.detach().cpu()
            dist.all_reduce(summed, group=self.control)
            tensor.data.copy_(summed / self.world)

    def wrapped(self, module: nn.Module) -> nn.Module:
        """The module as one whose gradients are averaged over the processes."""
        if self.world == 1:
            return module
        devices = [self.local_rank] if next(module.parameters()).is_cuda else None
        without_buffers: dict[str, Any] = {_SYNC_BUFFERS: False}
        return nn.parallel.DistributedDataParallel(module, device_ids=devices, **without_buffers)


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """The processes that torchrun started, joined; one alone without torchrun.

    Args:
        device: `cuda` sends gradients by NCCL, anything else by gloo.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "RANK" not in os.environ:
        yield Processes()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    joined = dist.is_initialized()
    if not joined:
        if device == "cuda":
            torch.cuda.set_device(local)
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    control = dist.new_group(backend="gloo")
    yield Processes(dist.get_rank(), dist.get_world_size(), local, control)
    if not joined:
        dist.barrier(group=control)
        dist.destroy_process_group()


def is_main_process() -> bool:
    """Whether this is the process that writes: the only one, or the first that torchrun started."""
    return os.environ.get("RANK", "0") == "0"
