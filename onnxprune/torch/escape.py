"""Names of parameters and buffers from the keys of tensors, and back.

torch allows any name without a dot that is no attribute of the module already. A key gets the prefix `t:`, and `%` and
`.` are written `%25` and `%2E`.
"""

from __future__ import annotations

PREFIX = "t:"


def name_from_key(key: str) -> str:
    """The name under which the tensor `key` is registered: `conv.weight` → `t:conv%2Eweight`."""
    return PREFIX + key.replace("%", "%25").replace(".", "%2E")


def key_from_name(name: str) -> str:
    """The key behind a registered name; wrappers' prefixes (`module.`) are dropped.

    Raises:
        ValueError: `name` is not one that `name_from_key` made.
    """
    last = name.rpartition(".")[2]
    if not last.startswith(PREFIX):
        raise ValueError(f"{name!r} is not the name of an ONNX tensor: it does not begin with {PREFIX!r}")
    return last[len(PREFIX) :].replace("%2E", ".").replace("%25", "%")
