"""Which function runs which operator.

An operator is looked up by domain, name and the opset that the model imports: of the functions registered for it, the
one with the highest `since` that is not above the opset, a user's before ours. Most functions serve every opset and
look at `node.opset` where a version differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from onnxprune_passes.errors import SelectionError

OpFunction = Callable[..., Any]
_F = TypeVar("_F", bound=OpFunction)

MICROSOFT = "com.microsoft"
OLDEST_OPSET = 7


@dataclass(frozen=True)
class Entry:
    """One implementation.

    Attributes:
        since: the first opset of its domain that it serves.
        run: `run(node, *inputs)` → a value, or a tuple of them in the order of the outputs. Absent inputs are None.
        host: the inputs that are handed over as `Host` (Python numbers), whatever they are.
        keep: the inputs that are handed over as `Host` where they are Hosts, else as tensors.
        own: registered by a user.
    """

    since: int
    run: OpFunction
    host: frozenset[int] = frozenset()
    keep: frozenset[int] = frozenset()
    own: bool = False


_ENTRIES: dict[tuple[str, str], tuple[Entry, ...]] = {}
_ON_HOST: dict[tuple[str, str], OpFunction] = {}
ALL = frozenset(range(1024))
"""For `keep`: every input."""


def op(
    *names: str,
    since: int = 1,
    domain: str = "",
    host: tuple[int, ...] = (),
    keep: tuple[int, ...] | frozenset[int] = (),
) -> Callable[[_F], _F]:
    """Register the function under it for the operators `names` of `domain`; the arguments are those of `Entry`."""

    def registered(function: _F) -> _F:
        for name in names:
            _add(domain, name, Entry(since, function, frozenset(host), frozenset(keep)))
        return function

    return registered


def on_host(*names: str) -> Callable[[_F], _F]:
    """Register the function under it for operators of ai.onnx whose inputs are all Hosts; it gives Hosts.

    It may give NotImplemented, and the operator then runs on tensors.
    """

    def registered(function: _F) -> _F:
        for name in names:
            _ON_HOST[("", name)] = function
        return function

    return registered


def register_op(op_type: str, run: OpFunction, *, domain: str = "", since: int = 1, host: tuple[int, ...] = ()) -> None:
    """Teach the adapter an operator, or replace one it knows.

    Args:
        op_type: the operator's name.
        run: `run(node, *inputs)`, called with a `Node` (attributes, opset, place) and the inputs as tensors, None for
            an absent one. It gives a tensor, or a tuple of tensors for several outputs, and should be differentiable.
        domain: its domain; `""` is ai.onnx.
        since: the first opset of the domain that it serves.
        host: the inputs that `run` wants as Python numbers: they come as `Host` (`values`, `shape`).

    It comes before what the adapter has, and before a model-local function of the same domain and name. Modules that
    exist already are not changed.

    Raises:
        SelectionError: `op_type` is empty, or `since` is below 1.
    """
    if not op_type or since < 1:
        raise SelectionError(
            f"register_op({op_type!r}, since={since}): give the operator's name, and since as an opset from 1 on"
        )
    domain = "" if domain == "ai.onnx" else domain
    _add(domain, op_type, Entry(since, run, frozenset(host), own=True))
    _ON_HOST.pop((domain, op_type), None)


def lookup(domain: str, op_type: str, opset: int) -> Entry | None:
    """The implementation that serves the operator at `opset`; None when there is none."""
    return next((entry for entry in _ENTRIES.get((domain, op_type), ()) if entry.since <= opset), None)


def host_function(domain: str, op_type: str) -> OpFunction | None:
    """The function that runs the operator on Hosts; None when there is none."""
    return _ON_HOST.get((domain, op_type))


def known_ops(domain: str = "") -> tuple[str, ...]:
    """The operators of a domain that have an implementation of their own, sorted."""
    return tuple(sorted(name for entry_domain, name in _ENTRIES if entry_domain == domain))


def _add(domain: str, name: str, entry: Entry) -> None:
    others = [one for one in _ENTRIES.get((domain, name), ()) if (one.since, one.own) != (entry.since, entry.own)]
    _ENTRIES[(domain, name)] = tuple(sorted((*others, entry), key=lambda one: (not one.own, -one.since)))
