"""Functions of the user's own, given to a command as "module:function"."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnxprune_passes.errors import SelectionError

_FAILURES: tuple[type[Exception], ...] = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What a module may raise while it is imported, ImportError apart."""


def named_function(spec: str) -> Callable[..., Any]:
    """The callable that "module:function" names; modules in the current folder are found too.

    Raises:
        SelectionError: no such module or function, a module that fails while it is imported, or something that cannot
            be called.
    """
    module_name, _, name = spec.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise SelectionError(
            f"{spec}: module {module_name!r} cannot be imported ({error}); name it as an import statement does"
        ) from error
    except _FAILURES as error:
        reason = f"{type(error).__name__}: {error}"
        raise SelectionError(f"{spec}: module {module_name!r} fails while it is imported ({reason})") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise SelectionError(f"{spec}: {module_name} has no {name!r}; name a function of that module")
        found = getattr(found, part)
    if not callable(found):
        raise SelectionError(f"{spec}: expected a function, found {type(found).__name__}; name a function")
    function: Callable[..., Any] = found
    return function
