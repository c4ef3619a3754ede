"""Checks of the models of a run: do they decode, do they agree, on what were they run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnxprune_passes.encode import OUTPUT, densify, standalone_decoders
from onnxprune_passes.model import Model
from onnxprune_passes.storage import load, save, to_proto

from .products import Products
from .recipe import PruneOptions
from .records import Accuracy, Comparison, Decoded
from .runtime import Array, NoKernelError, open_session, run
from .steps import Steps
from .verification import (
    Link,
    Source,
    accuracy_note,
    cast_to_float32,
    check_links,
    described,
    inputs_for,
    precision_of,
)
from .verify import same_bytes


@dataclass(frozen=True)
class Checked:
    """What the checks of a run showed; the fields are those of the `Report`."""

    verified: bool
    problems: tuple[str, ...] = ()
    inputs_from: str | None = None
    comparisons: tuple[Comparison, ...] = ()
    decoded: tuple[Decoded, ...] = ()
    accuracy: Accuracy | None = None
    accuracy_note: str | None = None
    warnings: tuple[str, ...] = ()


def verify_products(options: PruneOptions, products: Products, encoded: Path, folder: Path, steps: Steps) -> Checked:
    """Check the staged file `encoded` against the models it was made from; `folder` takes intermediate files.

    Raises:
        DataError: nothing was found to run the input on, or `--data` does not fit.
        ModelError, VerifyError: onnxruntime does not load or run one of the models.
    """
    if options.check == 0:
        note = "accuracy was not measured: --check 0"
        return Checked(False, accuracy_note=note, warnings=("the output was not verified: --check 0",))
    with steps.step("choose inputs"):
        source = Source(options.data, options.data_option, options.check, options.seed)
        inputs = inputs_for(options.model, folder, source)
    decoded = _decoded(products, encoded, folder, steps)
    files, links = _files_and_links(options, products, encoded, folder)
    outcome = check_links(
        files,
        links,
        inputs,
        precision_of(products.original),
        steps,
        measured=("original", "encoded"),
        folder=folder,
    )
    lost = [f"{found.by} does not give back {', '.join(found.different)}" for found in decoded if found.different]
    problems = (*lost, *outcome.problems)
    return Checked(
        verified=not problems,
        problems=problems,
        inputs_from=described(inputs),
        comparisons=outcome.comparisons,
        decoded=decoded,
        accuracy=outcome.accuracy,
        accuracy_note=accuracy_note(options.data, inputs.feeds, outcome.accuracy),
        warnings=outcome.notes,
    )


def _files_and_links(
    options: PruneOptions, products: Products, encoded: Path, folder: Path
) -> tuple[dict[str, Path], tuple[Link, ...]]:
    """A file for each model of the run, and what must hold between them; models that are one object share a file."""
    made = {
        "original": None if products.was_encoded else products.original,
        "pruned": products.pruned.model,
        "folded": products.folded.model,
        "shrunk": products.shrunk.model,
        "rounded": products.rounded.model,
        "dense": _dense(products),
        "encoded": products.encoded.model,
    }
    known = {id(made["original"]): Path(options.model), id(made["encoded"]): encoded}
    files: dict[str, Path] = {"original": Path(options.model)}
    for name, model in made.items():
        if model is not None and id(model) not in known:
            known[id(model)] = save(model, folder / f"{name}.onnx")
        files[name] = known[id(model)]
    before_shrinking = "pruned" if products.folded.model is products.pruned.model else "folded"
    before_encoding = "shrunk" if products.rounded.model is products.shrunk.model else "rounded"
    links = (
        Link("original", "pruned", checked=False),
        Link("pruned", "folded"),
        Link(before_shrinking, "shrunk"),
        Link("shrunk", "rounded", checked=False),
        Link(before_encoding, "dense"),
        Link("dense", "encoded", exact=True),
        Link("original", "encoded", checked=False),
    )
    return files, tuple(link for link in links if files[link.before] != files[link.after])


def _dense(products: Products) -> Model:
    """The dense model of the encoded one's graph: the rounded one, unless encoding changed the opset or the inputs."""
    rounded, encoded = products.rounded.model, products.encoded.model
    inputs = [[value.name for value in model.graph.input] for model in (rounded, encoded)]
    return rounded if rounded.opset == encoded.opset and inputs[0] == inputs[1] else densify(encoded)


def _decoded(products: Products, encoded: Path, folder: Path, steps: Steps) -> tuple[Decoded, ...]:
    """Every encoded tensor of the file, decoded by `densify` and by onnxruntime, against the tensor it stands for."""
    keys = tuple(tensor.key for tensor in products.encoded.tensors)
    if not keys:
        return ()
    wanted, stored = products.rounded.model.initializers, load(encoded)
    with steps.step("decode", "by densify"):
        dense = densify(stored).initializers
        pairs = ((key, dense[key]) for key in keys if key in dense)
        found = [Decoded("densify", len(keys), _different(keys, pairs, wanted))]
    for optimize in (False, True):
        level = "default" if optimize else "off"
        with steps.step("decode", f"by onnxruntime, optimisations {level}"):
            pairs = ((key, _fetched(one, folder, optimize=optimize)) for key, one in standalone_decoders(stored))
            found.append(Decoded(f"onnxruntime ({level})", len(keys), _different(keys, pairs, wanted)))
    return tuple(found)


def _fetched(decoder: Model, folder: Path, *, optimize: bool) -> Array:
    """What onnxruntime makes of a standalone decoder; cast to float32 where it has no kernel for the type."""
    try:
        with open_session(to_proto(decoder).SerializeToString(), optimize=optimize) as session:
            return run(session, {})[OUTPUT]
    except NoKernelError:
        copy = cast_to_float32(save(decoder, folder / "decoder.onnx"), folder)
        with open_session(copy, optimize=optimize) as session:
            return run(session, {})[OUTPUT]


def _different(keys: Iterable[str], pairs: Iterable[tuple[str, Array]], wanted: Mapping[str, Array]) -> tuple[str, ...]:
    """The keys whose decoded array is missing or not byte for byte the wanted one (cast as the decoded one was)."""
    equal = {key for key, array in pairs if key in wanted and same_bytes(_cast(wanted[key], array), array)}
    return tuple(key for key in keys if key not in equal)


def _cast(wanted: Array, found: Array) -> Array:
    """`wanted`, as float32 where only a float32 copy could be run."""
    return wanted.astype(np.float32) if found.dtype == np.float32 and wanted.dtype != np.float32 else wanted
