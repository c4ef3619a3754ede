"""`--round-to auto`: the roundings of channel counts, measured in onnxruntime.

Ragged channel counts can run slower than the dense model, and how much to round is a matter of the processor. So each
rounding is pruned, shrunk and timed beside the model as it came, in pairs, and the fastest is taken. Where intervals
of the ratios overlap two are equally fast, and the smaller file is taken.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from onnxprune_passes.model import Model
from onnxprune_passes.storage import save

from .analysis import weight_rows
from .feeds import Feeds, synthesize_feeds
from .files import nbytes_on_disk
from .macs import total
from .recipe import ROUNDINGS, PruneOptions
from .records import Rounding, RoundingCandidate
from .runtime import NoKernelError, PairTiming, input_specs, time_pair
from .samples import first_sample
from .steps import Steps
from .verification import Inputs, Source, cast_to_float32, described

SECONDS = 6.0
"""What the timing of one rounding may take."""


def measure_roundings(
    original: str | Path,
    smaller: Callable[[int], Model],
    inputs: Inputs,
    *,
    threads: int = 1,
    seconds: float = SECONDS,
    folder: Path | None = None,
    steps: Steps | None = None,
) -> Rounding:
    """Time what `smaller` makes of each of the roundings 1, 4, 8 and 16 beside the file `original`.

        model = load("model.onnx")
        inputs = inputs_for_timing("model.onnx")

        def smaller(round_to: int) -> Model:
            return chain(PruneChannels(0.5, round_to=round_to), RemoveDeadNeurons())(State(model)).model

        print(measure_roundings("model.onnx", smaller, inputs).chosen)

    Args:
        original: the model that the ratios are to.
        smaller: rounding → model; models of the same shapes are timed once.
        inputs: what to run them on; the first batch is taken.
        threads: threads inside one operator.
        seconds: at most about so long for one rounding.
        folder: where each model lies while it is timed; the system's temporary folder when None.
        steps: told of each rounding.

    Raises:
        VerifyError: onnxruntime does not load or run one of the models; names its file.
    """
    steps = steps or Steps(len(ROUNDINGS))
    found: list[RoundingCandidate] = []
    timings: list[PairTiming] = []
    shapes: dict[tuple[object, ...], RoundingCandidate] = {}
    for round_to in ROUNDINGS:
        with steps.step("measure", f"rounded to {round_to}"):
            model = smaller(round_to)
            known = shapes.get(_shapes(model))
            if known is not None:
                found.append(msgspec.structs.replace(known, round_to=round_to, same_as=known.round_to))
                continue
            with tempfile.TemporaryDirectory(prefix=".onnxprune-", dir=folder) as temporary:
                file = save(model, Path(temporary) / f"rounded_to_{round_to}.onnx")
                before, after = (_as_timed(one, inputs, Path(temporary)) for one in (original, file))
                feeds = inputs.feeds.batches[0]
                timings.append(time_pair(before, after, feeds, threads=threads, seconds=seconds))
                found.append(_candidate(round_to, model, nbytes_on_disk(file), timings[-1]))
            shapes[_shapes(model)] = found[-1]
    return Rounding(
        chosen=choice(tuple(found)),
        threads=threads,
        inputs_from=described(inputs),
        milliseconds=sum(one.before_ms for one in timings) / len(timings),
        candidates=tuple(found),
    )


def choice(candidates: tuple[RoundingCandidate, ...]) -> int:
    """The rounding of the fastest; of those whose interval overlaps with its own, that of the smallest file.

    Of files of equal size that of the finest rounding.
    """
    fastest = min(candidates, key=lambda one: one.ratio)
    ties = [one for one in candidates if one.ratio_low <= fastest.ratio_high and fastest.ratio_low <= one.ratio_high]
    return min(ties, key=lambda one: (one.bytes, one.round_to)).round_to


def settled(
    options: PruneOptions, smaller: Callable[[PruneOptions], Model], steps: Steps
) -> tuple[PruneOptions, Rounding]:
    """`options` with a number in place of `round_to: auto`, and what was measured. `smaller`: what options make."""

    def rounded(round_to: int) -> Model:
        return smaller(msgspec.structs.replace(options, round_to=round_to))

    with steps.step("choose inputs", "to measure on"):
        inputs = inputs_for_timing(options.model, Source(options.data, options.data_option, seed=options.seed))
    found = measure_roundings(
        options.model,
        rounded,
        inputs,
        threads=options.round_threads or 1,
        seconds=SECONDS,
        folder=Path(str(options.output)).parent,
        steps=steps,
    )
    return msgspec.structs.replace(options, round_to=found.chosen, round_threads=None), found


def inputs_for_timing(model: str | Path, source: Source | None = None) -> Inputs:
    """One batch to time the file `model` on: the first sample of the data that `source` names, or a seeded batch.

    Raises DataError when nothing fits, and what onnxruntime says of a model it does not load.
    """
    source = source or Source(None)
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as temporary:
        try:
            return Inputs(_feeds(model, source))
        except NoKernelError:
            return Inputs(_feeds(cast_to_float32(model, Path(temporary)), source), float32=True)


def _feeds(model: str | Path, source: Source) -> Feeds:
    if source.data is None:
        return synthesize_feeds(model, 1, source.seed)
    return first_sample(source.data, input_specs(model), source.data_options)


def _as_timed(file: str | Path, inputs: Inputs, folder: Path) -> Path:
    """The file that is run: a copy in `folder`, cast to float32, where inputs are float32."""
    return cast_to_float32(file, Path(tempfile.mkdtemp(dir=folder))) if inputs.float32 else Path(file)


def _candidate(round_to: int, model: Model, nbytes: int, timing: PairTiming) -> RoundingCandidate:
    rows = weight_rows(model)
    return RoundingCandidate(
        round_to=round_to,
        parameters=sum(row.parameters for row in rows),
        dense_macs=total(row.dense_macs for row in rows),
        bytes=nbytes,
        pairs=timing.pairs,
        milliseconds=timing.after_ms,
        ratio=timing.ratio,
        ratio_low=timing.low,
        ratio_high=timing.high,
    )


def _shapes(model: Model) -> tuple[object, ...]:
    """What the speed of a model rests on, as far as pruning can tell two apart."""
    return tuple((key, model.initializers.source(key).shape) for key in model.initializers)
