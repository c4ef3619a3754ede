"""The same numbers at every run: seeds, threads and deterministic kernels, put back as they were afterwards."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from onnxprune.torch.train.checkpoints import rng_states, set_rng_states


@contextmanager
def settled(seed: int, threads: int | None) -> Iterator[None]:
    """Within it torch, numpy and random draw from `seed`, and kernels are deterministic where torch has such.

    Args:
        seed: of all generators; give each process its own.
        threads: of torch; None leaves them as they are.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.get_num_threads(), rng_states()
    strict = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    benchmark, fill = torch.backends.cudnn.benchmark, memory.fill_uninitialized_memory
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = False
        torch.backends.cudnn.benchmark = False
        if threads is not None:
            torch.set_num_threads(threads)
        torch.manual_seed(seed)
        np.random.seed(seed % (1 << 32))
        random.seed(seed)
        yield
    finally:
        torch.use_deterministic_algorithms(strict[0], warn_only=strict[1])
        memory.fill_uninitialized_memory = fill
        torch.backends.cudnn.benchmark = benchmark
        torch.set_num_threads(before[0])
        set_rng_states(before[1])
