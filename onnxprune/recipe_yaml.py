"""Reading a recipe file.

YAML 1.1, which PyYAML reads, takes `2:4` for 124 (base 60) and `1e-3` for text. Both are everyday values here, so
numbers are read by the rules of YAML 1.2. A key that stands twice is an error.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from onnxprune_passes.errors import SelectionError

from .recipe import KEYS, LIST_KEYS, unknown_key

_INT = re.compile(r"^[-+]?[0-9]+$")
_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")


class _Loader(yaml.SafeLoader):
    """The safe loader with YAML 1.2's numbers; it refuses a double key."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _with_numbers_of_yaml_1_2(loader: type[yaml.SafeLoader]) -> None:
    numbers = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    inherited = yaml.SafeLoader.yaml_implicit_resolvers
    loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in numbers]
        for first, resolvers in inherited.items()
    }
    starts = list("-+.0123456789")
    loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, starts)
    loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, starts)
    loader.add_constructor("tag:yaml.org,2002:int", lambda _loader, node: int(node.value))


_with_numbers_of_yaml_1_2(_Loader)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The options in the recipe file `path`, by key; a key with no value counts as not given.

    Raises:
        SelectionError: the file cannot be read, is no YAML mapping, or has a key that no option has.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise SelectionError(f"the recipe {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SelectionError(f"the recipe {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise SelectionError(f"the recipe {path} is not a mapping of options: write lines such as 'sparsity: 0.9'")
    for key in content:
        if key not in KEYS:
            raise SelectionError(f"{path}: {unknown_key(str(key))}")
    given = {key: value for key, value in content.items() if value is not None}
    return {key: [value] if key in LIST_KEYS and isinstance(value, str) else value for key, value in given.items()}
