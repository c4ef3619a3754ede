"""Every tool makes of every encoding what the record says: a regression of ours fails here.

Run by default: the tools that come with onnx and onnxruntime, on the smallest net. The whole matrix is `slow`, and
needs the extra `compat`, whose versions the record was made with.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from compat_matrix import Case, cases, expected, verdicts
from compat_tools import PACKAGES, TOOLS, is_installed

_OWN = tuple(tool for tool in TOOLS if tool not in PACKAGES or PACKAGES[tool] == "onnx_graphsurgeon")


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, ...]:
    """All nets in all encodings."""
    return cases(tmp_path_factory.mktemp("nets"))


def _check(tool: str, made: tuple[Case, ...], folder: Path) -> None:
    found = verdicts(tool, made, folder)
    record = expected()[tool]
    assert found
    for (net, encoding), verdict in found.items():
        assert verdict.said == record[encoding][net], f"{tool} on {net} as {encoding}: {verdict.detail}"


def test_the_tools_at_hand_take_what_they_took(tmp_path: Path) -> None:
    made = cases(tmp_path, ("net with If",))
    for tool in _OWN:
        _check(tool, made, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_each_tool_takes_what_it_took(tool: str, every: tuple[Case, ...], tmp_path: Path) -> None:
    if not is_installed(tool):
        pytest.skip(f"{PACKAGES[tool]} is not installed (extra compat)")
    _check(tool, every, tmp_path)


def test_the_record_has_every_tool() -> None:
    assert tuple(expected()) == TOOLS
