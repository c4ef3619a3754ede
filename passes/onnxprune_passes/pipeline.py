"""`State`, the one value that flows, and the ways to put passes together.

A pass takes a State and gives a State; it never changes what it got, never prints, never reads a file. Nothing to do
means that the same object comes back. What a pass did is a `Change` in the log, what it left alone is a `Skip` with
the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

from .errors import OnnxPruneError, PassError
from .masks import Masks
from .model import Model


@dataclass(frozen=True)
class Change:
    """What the pass `by` did, in one line."""

    by: str
    summary: str


@dataclass(frozen=True)
class Skip:
    """What the pass `by` left alone: `name` is the initializer or neuron group, `reason` says why and which node
    blocked it.
    """

    by: str
    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class State:
    """A model, its masks (which its values already follow: see `apply_masks`), and what was done to get here."""

    model: Model
    masks: Masks = field(default_factory=Masks)
    log: tuple[Change | Skip, ...] = ()

    def noted(self, *entries: Change | Skip) -> State:
        """This state with `entries` in its log, but no Skip twice; the same object when nothing is new."""
        new = tuple(entry for entry in dict.fromkeys(entries) if isinstance(entry, Change) or entry not in self.log)
        return replace(self, log=(*self.log, *new)) if new else self


class Pass(Protocol):
    """A frozen dataclass whose fields are its options; calling it gives the next State."""

    @property
    def name(self) -> str:
        """Kebab-case, the same in logs, reports, the command line and recipes."""

    def __call__(self, state: State) -> State:
        """The state after the pass; the same object when there was nothing to do."""


@dataclass(frozen=True)
class Chain:
    """Passes one after the other. Use `chain`."""

    passes: tuple[Pass, ...]
    name: str = "chain"

    def __call__(self, state: State) -> State:
        """Run the passes in order. Raises PassError naming the pass that failed and those that ran before it."""
        done: list[str] = []
        for one in self.passes:
            try:
                state = one(state)
            except PassError as error:  # it names its pass already
                if not done:
                    raise
                raise PassError(f"{error} (after {', '.join(done)})") from (error.__cause__ or error)
            except OnnxPruneError as error:
                before = f" (after {', '.join(done)})" if done else ""
                raise PassError(f"{one.name}{before}: {error}") from error
            done.append(one.name)
        return state


@dataclass(frozen=True)
class UntilStable:
    """A pass run until it gives back the object it got. Use `until_stable`."""

    inner: Pass
    limit: int

    @property
    def name(self) -> str:
        """The name of the inner pass."""
        return self.inner.name

    def __call__(self, state: State) -> State:
        """Run the inner pass to its fixed point. Raises PassError when `limit` runs do not reach it."""
        for _ in range(self.limit):
            after = self.inner(state)
            if after is state:
                return state
            state = after
        raise PassError(f"{self.name} did not come to rest within {self.limit} runs")


def chain(*passes: Pass) -> Chain:
    """A pass that runs `passes` in order."""
    return Chain(passes)


def repeat(inner: Pass, times: int) -> Chain:
    """A pass that runs `inner` `times` times."""
    return Chain((inner,) * times, name=f"{inner.name} x {times}")


def until_stable(inner: Pass, limit: int = 100) -> UntilStable:
    """A pass that runs `inner` until nothing changes, at most `limit` times."""
    return UntilStable(inner, limit)
