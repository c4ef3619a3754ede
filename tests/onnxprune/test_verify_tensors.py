"""Arrays that are the same byte for byte, and those that only look it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxprune.verify import same_bytes


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (np.array([0.0]), np.array([0.0]), True),
        (np.array([0.0]), np.array([-0.0]), False),
        (np.array([np.nan]), np.array([np.nan]), True),
        (np.zeros(2, np.float32), np.zeros(2, np.int32), False),
        (np.zeros((2, 1)), np.zeros((1, 2)), False),
        (np.zeros((2, 0)), np.zeros((2, 0)), True),
        (np.arange(6).reshape(2, 3).T, np.arange(6).reshape(2, 3).T.copy(), True),
        (np.array(5), np.array(5), True),
        (np.array(["a"], object), np.array(["a"], object), True),
        (np.array(["a"], object), np.array(["b"], object), False),
    ],
)
def test_same_bytes(before: Any, after: Any, expected: bool) -> None:
    assert same_bytes(before, after) is expected
