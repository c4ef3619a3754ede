"""The numbers of a comparison and what they are allowed to be.

Tolerances on the error scaled by the largest |value| of the output before:

| coarsest of output and weights | allowed |
|---|---|
| float32, float64 | 1e-5 |
| float16, bfloat16, 8-bit floats | 2 steps of that type at 1.0: 2·2^-10, 2·2^-7, … |
| quantised (int8, uint8) | at most one step, on at most 1 % of the elements |
| other integers, booleans, strings | 99 % of the elements equal |

NaN equals NaN, and an infinity equals the same infinity; any other pair with one of them is a failure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

FLOAT_TOLERANCE = 1e-5
LARGEST_SHARE = 0.01  # of elements that may differ in quantised and integer outputs
QUANTISED = ("int8", "uint8")
_TOLERANCES = {
    **dict.fromkeys(("float32", "float64"), FLOAT_TOLERANCE),
    **{"float16": 2 * 2.0**-10, "bfloat16": 2 * 2.0**-7},
    **dict.fromkeys(("float8_e4m3fn", "float8_e4m3fnuz"), 2 * 2.0**-3),
    **dict.fromkeys(("float8_e5m2", "float8_e5m2fnuz"), 2 * 2.0**-2),
}
_GRID = 127  # steps between 0 and the largest value of a symmetric 8-bit grid


@dataclass(frozen=True)
class OutputComparison:
    """One output of both models over all batches.

    `count` elements were compared. `scale` is the largest finite |value| before (1 when all are zero, so that errors
    are then absolute). `max_error` and `mean_error` are |after − before| over the elements finite in both, divided by
    `scale`; for integer types `max_difference` is the largest undivided difference, in steps. `unequal` counts
    elements that are not the same value, `beyond` those whose scaled error passes `FLOAT_TOLERANCE`,
    `nonfinite_mismatches` those where one is NaN or Inf and the other is not the same. `agreement` is the share of
    rows with the same first class, None for outputs that are no class scores. `mismatch` says how dtype or shape
    differ, empty when they do not; `max_error` and `mean_error` are then infinite.
    """

    name: str
    dtype: str
    count: int
    scale: float
    max_error: float
    mean_error: float
    max_difference: float
    unequal: int
    beyond: int
    nonfinite_mismatches: int
    agreement: float | None
    mismatch: str

    @property
    def equal(self) -> bool:
        """Whether every element is equal, NaN to NaN included, as `numpy.array_equal` with `equal_nan` says."""
        return not self.mismatch and self.unequal == 0


@dataclass(frozen=True)
class Comparison:
    """Two models on the same feeds, at one level of graph optimisation.

    `accuracy_before` and `accuracy_after` are None without labels, or when no output has one row of class scores per
    label. `notes` says what was left out and why. `steps`, which the caller fills in for a quantised model
    (`quantised_steps`), maps an output to one quantisation step in its unit; an output without one is held to 1/127 of
    its size.
    """

    before: str
    after: str
    optimize: bool
    batches: int
    outputs: tuple[OutputComparison, ...]
    accuracy_before: float | None
    accuracy_after: float | None
    notes: tuple[str, ...]
    steps: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def max_error(self) -> float:
        """The largest `max_error` of all outputs; 0 when there is none."""
        return max((output.max_error for output in self.outputs), default=0.0)

    @property
    def mean_error(self) -> float:
        """The largest `mean_error` of all outputs; 0 when there is none."""
        return max((output.mean_error for output in self.outputs), default=0.0)

    @property
    def agreement(self) -> float | None:
        """The smallest `agreement` of all outputs that have one."""
        return min((output.agreement for output in self.outputs if output.agreement is not None), default=None)

    @property
    def equal(self) -> bool:
        """Whether every output is equal."""
        return all(output.equal for output in self.outputs)

    def failures(self, precision: str = "float32", *, exact: bool = False) -> tuple[str, ...]:
        """What passes its tolerance: one line per failure with output, found and allowed; empty when all is well.

        Args:
            precision: numpy name of the coarsest weight dtype of the model (a float32 output of float16 weights is as
                exact as float16), "int8" or "uint8" for a quantised one.
            exact: True when the outputs must be equal, element by element.

        Raises:
            ValueError: `precision` is no such name.
        """
        level = "on" if self.optimize else "off"
        where = f"(optimisations {level})"
        lines = [f"output {name}: {problem} {where}" for name, problem in self._problems(precision, exact)]
        return tuple(lines) if self.outputs else (f"nothing was compared {where}; the model has no output to compare",)

    def _problems(self, precision: str, exact: bool) -> Iterator[tuple[str, str]]:
        """Output name and problem, without where."""
        if precision not in _TOLERANCES and precision not in QUANTISED:
            known = ", ".join((*_TOLERANCES, *QUANTISED))
            raise ValueError(f"precision {precision!r} is unknown; give one of {known}")
        for output in self.outputs:
            name = output.name
            if output.mismatch:
                yield name, output.mismatch
            elif exact:
                if not output.equal:
                    yield name, f"{output.unequal} of {output.count} elements differ, allowed 0"
            elif output.dtype not in _TOLERANCES:
                yield from ((name, problem) for problem in _integer_problems(output))
            else:
                if output.nonfinite_mismatches:
                    yield name, f"{output.nonfinite_mismatches} elements are NaN or Inf in one model only, allowed 0"
                if precision in QUANTISED:
                    step = self.steps.get(name, output.scale / _GRID)
                    yield from ((name, problem) for problem in _quantised_problems(output, step))
                elif output.max_error > (allowed := max(_TOLERANCES[precision], _TOLERANCES[output.dtype])):
                    yield name, f"error {output.max_error:.3g} of its size ({output.scale:.3g}), allowed {allowed:.3g}"


def _integer_problems(output: OutputComparison) -> Iterator[str]:
    """Problems of an output that is no float: how many elements differ, and for 8-bit ones by how much."""
    share = output.unequal / max(output.count, 1)
    if share > LARGEST_SHARE:
        yield f"{share:.2%} of the elements differ, allowed {LARGEST_SHARE:.0%}"
    if output.dtype in QUANTISED and output.max_difference > 1:
        yield f"differs by {output.max_difference:.0f} steps, allowed 1"


def _quantised_problems(output: OutputComparison, step: float) -> Iterator[str]:
    """Problems of a float output of a quantised model; `step` in the unit of the output."""
    share = output.beyond / max(output.count, 1)
    if share > LARGEST_SHARE:
        yield f"{share:.2%} of the elements differ, allowed {LARGEST_SHARE:.0%}"
    if output.max_difference > step * (1 + FLOAT_TOLERANCE):
        yield f"differs by {output.max_difference / step:.3g} steps of {step:.3g}, allowed 1"
