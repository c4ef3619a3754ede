"""Functions that a user names as `module:function`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnxprune_passes.errors import SelectionError


def function_from(name: str, what: str) -> Callable[..., Any]:
    """The function `name` = `module:function`; modules of the working directory are found too.

    Args:
        name: a module's dotted name, a colon, and the name of a function in it (dots reach into classes).
        what: what it is for, in messages: `loss`, `metric`.

    Raises:
        SelectionError: there is no such module or function, or the module fails while it is imported.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise SelectionError(f"{what} {name!r} is no module:function")
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise SelectionError(f"{what} {name!r}: the module {module_name!r} cannot be imported: {error}") from error
    except (SyntaxError, AttributeError, NameError, TypeError, ValueError, RuntimeError, LookupError, OSError) as error:
        raise SelectionError(f"{what} {name!r}: {module_name!r} fails while it is imported: {error}") from error
    finally:
        sys.path.remove(here)
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise SelectionError(f"{what} {name!r}: the module {module_name!r} has no function {attribute!r}")
    function: Callable[..., Any] = found
    return function
