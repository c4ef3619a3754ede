from __future__ import annotations

import re

import pytest
from onnxprune_passes import errors
from onnxprune_passes.errors import OnnxPruneError

ALL = {name: thing for name, thing in vars(errors).items() if isinstance(thing, type) and issubclass(thing, Exception)}


def test_the_tree_in_the_module_s_text_is_the_tree_of_the_classes() -> None:
    lines = re.findall(r"^ +((?:[├└]── )?)(\w+Error)\b", errors.__doc__ or "", re.MULTILINE)
    drawn = {name: mark for mark, name in lines}
    assert set(drawn) == set(ALL)
    for name, mark in drawn.items():
        assert ALL[name].__bases__ == ((OnnxPruneError,) if mark else (Exception,))


@pytest.mark.parametrize("error", ALL.values())
def test_one_except_clause_catches_them_all(error: type[Exception]) -> None:
    with pytest.raises(OnnxPruneError):
        raise error("what, where")
