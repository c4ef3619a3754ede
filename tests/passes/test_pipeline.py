from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, replace

import numpy as np
import pytest
from builders import matmuls, ramp
from onnxprune_passes.errors import ModelError, OnnxPruneError, PassError
from onnxprune_passes.masks import Masks
from onnxprune_passes.pipeline import Change, Skip, State, chain, repeat, until_stable


@dataclass(frozen=True)
class Note:
    """Adds one Change to the log, until there are `most`."""

    text: str
    most: int = 100
    name: str = "note"

    def __call__(self, state: State) -> State:
        return state if len(state.log) >= self.most else state.noted(Change(self.name, self.text))


@dataclass(frozen=True)
class Fail:
    error: Exception
    name: str = "fail"

    def __call__(self, state: State) -> State:
        del state
        raise self.error


@pytest.fixture
def state() -> State:
    return State(matmuls({"w": ramp(3, 3)}))


def texts(state: State) -> list[str]:
    return [entry.summary if isinstance(entry, Change) else entry.reason for entry in state.log]


def test_a_chain_runs_in_order_and_leaves_its_input(state: State) -> None:
    after = chain(Note("a"), Note("b"), chain(Note("c")))(state)
    assert texts(after) == ["a", "b", "c"]
    assert state.log == ()
    assert after.model is state.model


def test_an_empty_chain_gives_the_same_object(state: State) -> None:
    assert chain()(state) is state
    assert repeat(Note("a"), 0)(state) is state
    assert chain(Note("a", most=0), Note("b", most=0))(state) is state


def test_an_error_names_its_pass_and_those_before(state: State) -> None:
    with pytest.raises(PassError) as caught:
        chain(Note("a", name="first"), Note("b", name="second"), Fail(ModelError("no weights")))(state)
    assert str(caught.value) == "fail (after first, second): no weights"
    assert isinstance(caught.value.__cause__, ModelError)
    with pytest.raises(PassError) as caught:
        chain(Fail(ModelError("no weights")))(state)
    assert str(caught.value) == "fail: no weights"


def test_an_error_in_an_inner_chain_names_all_that_ran(state: State) -> None:
    with pytest.raises(PassError) as caught:
        chain(Note("a", name="outer"), chain(Note("b", name="inner"), Fail(ModelError("no weights"))))(state)
    assert str(caught.value) == "fail (after inner): no weights (after outer)"
    assert isinstance(caught.value.__cause__, ModelError)


def test_a_pass_s_own_pass_error_names_those_before(state: State) -> None:
    with pytest.raises(PassError) as caught:
        chain(Note("a", name="first"), until_stable(Note("b", name="restless"), limit=3))(state)
    assert str(caught.value) == "restless did not come to rest within 3 runs (after first)"


@pytest.mark.parametrize("error", [KeyError("bug"), KeyboardInterrupt()])
def test_what_is_not_ours_goes_through_untouched(state: State, error: Exception) -> None:
    with pytest.raises(type(error)):
        chain(Note("a"), Fail(error))(state)
    assert not isinstance(error, OnnxPruneError)


def test_repeat_runs_as_often_as_it_says(state: State) -> None:
    assert texts(repeat(Note("a"), 3)(state)) == ["a", "a", "a"]
    assert repeat(Note("a"), 3).name == "note x 3"


@pytest.mark.parametrize("most", [0, 1, 4])
def test_until_stable_runs_until_nothing_changes(state: State, most: int) -> None:
    inner = Note("a", most)
    assert until_stable(inner).name == "note"
    after = until_stable(inner, limit=most + 1)(state)
    assert len(after.log) == most
    assert (after is state) == (most == 0)
    with pytest.raises(PassError, match=f"note did not come to rest within {most} runs"):
        until_stable(inner, limit=most)(state)


def test_the_log_takes_every_change_and_each_skip_once(state: State) -> None:
    change, skip = Change("p", "pruned half"), Skip("p", "w", "fixed")
    once = state.noted(change, skip, skip)
    twice = once.noted(change, skip)  # the same step again: it happened again
    assert once.log == (change, skip)
    assert twice.log == (change, skip, change)
    assert once.noted(skip) is once
    assert state.noted() is state


def test_values_are_frozen(state: State) -> None:
    with pytest.raises(FrozenInstanceError):
        state.log = ()  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Change("p", "s").by = "q"  # type: ignore[misc]
    other = replace(state, masks=Masks({"w": np.ones((3, 3), np.bool_)}))
    assert len(state.masks) == 0
    assert len(other.masks) == 1
