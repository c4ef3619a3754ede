"""What FoldBatchNorm, GatherLiveInputs, RemoveNoOps and RemoveUnused take from each given model, verified.

    python tests/benchmarks/folding.py [--sparsity 0.5] [--only NAME ...] [--rows FILE] [--markdown FILE]

Needs the folder of real models that ONNXPRUNE_DATA names (or ../shared/data); models/ of this repository is run too.
Each model is pruned by magnitude; the passes then run one after the other, and after each one nodes (those of bodies
too), parameters (entries of tensors, but for sizes and positions) and bytes of the dense file are counted. The result
is compared with the pruned model in onnxruntime, on the model's own inputs, optimisations off and on. Then the whole
command runs with --fold. `--rows` keeps finished rows in a file, so that a later run goes on from there.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from dataclasses import asdict, dataclass
from datetime import date
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from corpus import ROOT, inputs_of, models, run, worst
from onnxprune_passes.encode import file_nbytes

from onnxprune.files import nbytes_on_disk
from onnxprune.passes import (
    FoldBatchNorm,
    GatherLiveInputs,
    MagnitudePrune,
    Model,
    Pass,
    RemoveDeadNeurons,
    RemoveNoOps,
    RemoveUnused,
    Sparsity,
    State,
    chain,
    encode_model,
    load,
    save,
)
from onnxprune.verification import verify_files

MODELS = ROOT / "models"
PASSES: tuple[Pass, ...] = (RemoveNoOps(), FoldBatchNorm(), GatherLiveInputs("dense"), RemoveUnused())


PAGE = """# What folding and tidying take from models from the wild

Written by `python tests/benchmarks/folding.py --markdown docs/benchmarks/folding.md`.

{machine}.

Each model is pruned by magnitude to a sparsity of {sparsity:g}. A cell says what the pass took: nodes (those of bodies
too) / parameters / bytes of the dense file, in the order of the columns, dead neurons left in. `error`: the result
against the pruned model in onnxruntime, on the model's own inputs (seeded ones where it has none), scaled by the
largest output, the larger one of both optimisation levels. The last three columns are of the command,
`onnxprune MODEL --sparsity {sparsity:g} --fold`: the largest errors of its steps, and how it ended.

onnxruntime folds BatchNormalization itself at load: the gain is in parameters and bytes, not in time.

A last layer that is a Sigmoid of very negative numbers gives numbers that onnxruntime computes in steps of 6e-8. Where
they are some 1e-5 themselves, one step is beyond the tolerance, as for `yunet_n_dynamic` in `corpus.md`. The check then
refuses the folded model, though it agrees before the Sigmoid; such a model keeps its BatchNormalizations, which is the
default.

| model | before | no-ops | BatchNorm | dead inputs | unused | error | `--fold` step | shrinking | command |
|---|---|---|---|---|---|---|---|---|---|
"""
GATHER = """
LeNet-300-100 of `models/`, pruned and without dead neurons: its 784 pixels, and the bytes of the file without and with
the Gather of the live ones; equal where it does not pay.

| sparsity | live pixels | dense | with Gather | default encoding | with Gather |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Counts:
    """Of one model."""

    nodes: int
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Row:
    """One model: counts before the passes and after each, the largest scaled error, and how the command ended."""

    model: str
    counts: list[Counts]
    error: float
    verified: bool
    inner: float | None
    folding: str
    shrinking: str
    command: str


def nodes_of(graph: onnx.GraphProto) -> int:
    """The nodes of a graph and of the bodies below it."""
    bodies = (attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g"))
    return len(graph.node) + sum(map(nodes_of, bodies))


def counted(model: Model, path: Path) -> Counts:
    """What `model` has; it is left at `path`."""
    sources = (model.initializers.source(key) for key in model.initializers)
    parameters = sum(source.size for source in sources if source.dtype not in (np.int32, np.int64, np.bool_))
    path.parent.mkdir(exist_ok=True)
    return Counts(nodes_of(model.graph), parameters, nbytes_on_disk(save(model, path)))


def error_before_sigmoid(before: Path, after: Path, inputs: Path) -> float | None:
    """The largest difference of what goes into the last Sigmoid, scaled by its largest entry; None without one."""
    values = []
    for path in (before, after):
        proto = onnx.load(str(path))
        last = next((node for node in reversed(proto.graph.node) if node.op_type == "Sigmoid"), None)
        if last is None:
            return None
        proto.graph.output.append(onnx.helper.make_tensor_value_info(last.input[0], onnx.TensorProto.FLOAT, None))
        feeds = dict(np.load(inputs))
        values.append(onnxruntime.InferenceSession(proto.SerializeToString()).run([last.input[0]], feeds)[0])
    return float(np.abs(values[0] - values[1]).max() / np.abs(values[0]).max())


def name_of(model: Path) -> str:
    """The name in the table."""
    return model.parent.name if model.name == "model.onnx" else model.stem


def row_of(path: Path, sparsity: float, folder: Path) -> Row:
    """Run the passes on one model, compare, and run the command."""
    before, after = folder / "before" / "model.onnx", folder / "after" / "model.onnx"
    state = MagnitudePrune(Sparsity(sparsity))(State(load(path)))
    counts = [counted(state.model, before)]
    for one in PASSES:
        state = one(state)
        counts.append(counted(state.model, after))
    data = str(inputs_of(path)) if inputs_of(path).exists() else None
    report = verify_files(str(before), str(after), data=data)
    errors = [found.max_error for one in report.comparisons for found in one.outputs]
    given = ["--data", data] if data else []
    code, said, error = run(path, folder, "--sparsity", str(sparsity), "--fold", *given)
    folding = worst(said, "pruned", "folded")
    shrinking = worst(said, "pruned" if folding == "-" else "folded", "shrunk")
    command = "ok" if code == 0 and said.get("verified") else f"exit {code}: {error}"
    worst_error = max((one for one in errors if one is not None), default=0.0)
    inner = None if report.verified else error_before_sigmoid(before, after, inputs_of(path))
    return Row(name_of(path), counts, worst_error, report.verified, inner, folding, shrinking, command)


def taken(before: Counts, after: Counts) -> str:
    """What one pass took: nodes / parameters / bytes."""
    gone = (before.nodes - after.nodes, before.parameters - after.parameters, before.bytes - after.bytes)
    return "-" if not any(gone) else " / ".join(f"{number:,}" for number in gone)


def table(rows: list[Row], sparsity: float) -> str:
    """The page."""
    versions = " ".join(f"{name} {metadata.version(name)}" for name in ("onnx", "onnxruntime", "numpy", "onnxprune"))
    machine = f"{date.today()}, {platform.machine()}, Python {platform.python_version()}, {versions}"
    lines = PAGE.format(machine=machine, sparsity=sparsity).splitlines()
    for row in rows:
        first = row.counts[0]
        steps = [taken(*pair) for pair in zip(row.counts, row.counts[1:], strict=False)]
        start = f"{first.nodes:,} / {first.parameters:,} / {first.bytes:,}"
        inner = "" if row.inner is None else f" ({row.inner:.1e} before its Sigmoid)"
        error = f"{row.error:.1e}" + ("" if row.verified else f" FAILED{inner}")
        cells = [row.model, start, *steps, error, row.folding, row.shrinking, row.command]
        lines.append(f"| {' | '.join(cells)} |")
    verified = sum(row.verified for row in rows)
    lines += [
        "",
        f"Verified: {verified} of {len(rows)}; the command ended well on {sum(row.command == 'ok' for row in rows)}.",
    ]
    return "\n".join([*lines, *gather_table()]) + "\n"


def gather_table() -> list[str]:
    """What the Gather of live pixels is worth to LeNet-300-100, dense and encoded."""
    lines = GATHER.splitlines()
    model = load(MODELS / "lenet_300_100.onnx")
    for sparsity in (0.5, 0.8, 0.9, 0.95):
        state = chain(MagnitudePrune(Sparsity(sparsity)), RemoveDeadNeurons())(State(model))
        cells = [f"{sparsity:g}", str(int(state.model.initializers["fc1.weight"].any(axis=0).sum()))]
        for encoding in ("dense", "auto"):
            for one in (state, GatherLiveInputs(encoding)(state)):
                cells.append(f"{file_nbytes(encode_model(one.model, encoding).model):,}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--only", nargs="*", help="names of models")
    parser.add_argument("--rows", type=Path, help="finished rows, read and written")
    parser.add_argument("--markdown", type=Path, help="where to write the table")
    arguments = parser.parse_args()
    kept = json.loads(arguments.rows.read_text()) if arguments.rows and arguments.rows.exists() else []
    rows = {one["model"]: Row(**{**one, "counts": [Counts(**entry) for entry in one["counts"]]}) for one in kept}
    every = [*models(), *sorted(MODELS.glob("*.onnx"))]
    for path in every:
        name = name_of(path)
        if name in rows or (arguments.only and name not in arguments.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = row_of(path, arguments.sparsity, Path(folder))
        print(rows[name], flush=True)
        if arguments.rows:
            arguments.rows.write_text(json.dumps([asdict(row) for row in rows.values()], indent=1))
    text = table([rows[name] for name in map(name_of, every) if name in rows], arguments.sparsity)
    if arguments.markdown:
        arguments.markdown.write_text(text)


if __name__ == "__main__":
    main()
