"""Which tool takes which encoding: made, measured and compared with what a table says.

    python tests/compat/compat_matrix.py [--markdown docs/benchmarks/compatibility.md]

Every tool works on a dense file and on the encoded one, and its two results are compared:

- pass: the same answers (of a tool that changes them: as near to the model's), and what a tool wrote is still encoded;
- re-densified: the same answers, but what it wrote holds the weights dense again;
- no effect: a tool that changes answers did not find the encoded weights, and the answers are the untouched model's;
- breaks: it fails, or the answers differ, where the dense file does well;
- fails on dense: the tool does not take the dense file either.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from compat_nets import nets
from compat_tools import REWRITERS, TOOLS, is_installed, tool_version
from onnxprune_passes.encode import encode_model
from onnxprune_passes.encode.plan import Encoding
from onnxprune_passes.pipeline import Pass, State
from onnxprune_passes.storage import save
from onnxprune_passes.values import QuantizeValues, RoundValues, ShareValues

Array = npt.NDArray[Any]
INLINE = " inline"
"""What the name of an encoding ends in when its decoders are written out as plain nodes."""
VALUES: Mapping[str, Pass] = {"codes": ShareValues(4), "f16": RoundValues("f16"), "int8": QuantizeValues()}
"""Value scheme → what makes values that it stores; the index scheme is the smallest."""
_INDEX: tuple[str, ...] = tuple(name for name in get_args(Encoding) if name not in ("auto", "dense"))
_NAMES = (*_INDEX, *VALUES)
CONSTANT = "coo in Constant"
"""The standard's other place for sparse tensors, Constant(sparse_value)."""
ENCODINGS = ("coo", CONSTANT, *_NAMES[1:], *(name + INLINE for name in _NAMES if name != "coo"))
SIZED = "LeNet-300-100"
"""The net whose bytes are in the table."""
EXPECTED = Path(__file__).with_name("expected.json")
_TOLERANCE = 1e-5
_LOSS = 3
"""A tool that changes answers may be so many times as far from the untouched model's as with the dense file."""
_STILL_ENCODED = 0.7
"""An encoded file of a net that is 90 % zeros takes less than this share of the dense one; measured: 0.12 to 0.5."""
_TOOL_SECONDS = 600


@dataclass(frozen=True)
class Case:
    """One file: a net in one encoding ("dense" for none); `values`: the value scheme that its values were made for."""

    net: str
    encoding: str
    model: Path
    feeds: Path
    values: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a tool made of an encoded file, and why where it is not "pass"."""

    said: str
    detail: str = ""


def cases(folder: Path, only: Sequence[str] | None = None) -> tuple[Case, ...]:
    """Every net in every encoding, written to `folder`; `only`: names of nets."""
    made = []
    for number, (name, (model, feeds)) in enumerate(nets().items()):
        if only is not None and name not in only:
            continue
        feeds_file = folder / f"{number}.npz"
        np.savez(feeds_file, allow_pickle=False, **feeds)
        models = {"": model, **{scheme: change(State(model)).model for scheme, change in VALUES.items()}}
        for values, changed in models.items():
            save(changed, folder / f"{number}.dense{values}.onnx")
            made.append(Case(name, "dense", folder / f"{number}.dense{values}.onnx", feeds_file, values))
        for encoding in ENCODINGS:
            kind = "coo" if encoding == CONSTANT else encoding.removesuffix(INLINE)
            values = _values_of(encoding)
            scheme: Any = "auto" if values else kind
            encoded = encode_model(models[values], scheme, inline=encoding.endswith(INLINE))
            assert any(kind in one.scheme for one in encoded.tensors), f"{name}: nothing was encoded as {encoding}"
            path = folder / f"{number}.{encoding}.onnx"
            save(encoded.model, path)
            if encoding == CONSTANT:
                _sparse_constants(path)
            made.append(Case(name, encoding, path, feeds_file, values))
    return tuple(made)


def _sparse_constants(path: Path) -> None:
    """Move the sparse initializers of a file to Constant nodes, in bodies too."""

    def moved(graph: onnx.GraphProto) -> None:
        nodes = [
            onnx.helper.make_node("Constant", [], [sparse.values.name], sparse_value=sparse)
            for sparse in graph.sparse_initializer
        ]
        bodies = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
        for body in bodies:
            moved(body)
        others = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
        del graph.sparse_initializer[:], graph.node[:]
        graph.node.extend([*nodes, *others])

    model = onnx.load(path)
    moved(model.graph)
    onnx.save(model, path)


def nbytes(folder: Path) -> dict[str, int]:
    """Encoding → bytes of the net `SIZED`."""
    return {case.encoding + case.values: case.model.stat().st_size for case in cases(folder, (SIZED,))}


def verdicts(tool: str, made: Sequence[Case], folder: Path) -> dict[tuple[str, str], Verdict]:
    """(net, encoding) → what `tool` makes of it."""
    suffix = "onnx" if tool in REWRITERS else "npz"
    targets = [folder / f"{index}.result.{suffix}" for index in range(len(made))]
    said = _done(tool, [(case, target) for case, target in zip(made, targets, strict=True)])
    results = [_Result(case, target, line) for case, target, line in zip(made, targets, said, strict=True)]
    dense = {(one.case.net, one.case.values): one for one in results if one.case.encoding == "dense"}
    found = {}
    for result in results:
        case = result.case
        if case.encoding != "dense":
            found[case.net, case.encoding] = _verdict(tool, dense[case.net, case.values], result)
    for target in targets:
        target.unlink(missing_ok=True)
    return found


def _values_of(encoding: str) -> str:
    kind = encoding.removesuffix(INLINE)
    return kind if kind in VALUES else ""


@dataclass(frozen=True)
class _Result:
    case: Case
    target: Path
    said: str

    def outputs(self) -> list[Array]:
        """What the tool computed, or what onnxruntime computes from the model it wrote."""
        if self.target.suffix == ".npz":
            with np.load(self.target) as file:
                return [file[name] for name in file.files]
        return _outputs(self.target, self.case.feeds)


def _verdict(tool: str, dense: _Result, encoded: _Result) -> Verdict:
    if dense.said != "ok":
        return Verdict("fails on dense", dense.said)
    if encoded.said != "ok":
        return Verdict("breaks", encoded.said.removeprefix("failed: "))
    wanted = dense.outputs()
    try:
        found = encoded.outputs()
    except Exception as error:  # noqa: BLE001 - onnxruntime has no common error type
        return Verdict("breaks", f"onnxruntime on the result: {type(error).__name__}: {str(error)[:160]}")
    same = _same(wanted, found)
    if tool not in REWRITERS:
        return Verdict("pass") if same else Verdict("breaks", "other answers")
    if not same:
        untouched = _outputs(dense.case.model, dense.case.feeds)
        if _same(untouched, found) and not _same(untouched, wanted):
            return Verdict("no effect")
        if _distance(untouched, found) > _LOSS * _distance(untouched, wanted):
            return Verdict("breaks", "other answers")
    is_encoded = encoded.target.stat().st_size < _STILL_ENCODED * dense.target.stat().st_size
    return Verdict("pass" if is_encoded else "re-densified")


def _outputs(model: Path, feeds: Path) -> list[Array]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, dict(np.load(feeds)))]


def _same(wanted: Sequence[Array], found: Sequence[Array]) -> bool:
    """Whether outputs agree within 1e-5 of the largest entry."""
    return _distance(wanted, found) <= _TOLERANCE


def _distance(wanted: Sequence[Array], found: Sequence[Array]) -> float:
    """The largest error of an output ÷ its largest entry; infinite when outputs or shapes are others."""
    if [one.shape for one in wanted] != [one.shape for one in found]:
        return float("inf")
    errors = [
        float(np.abs(one - other).max(initial=0) / max(np.abs(one).max(initial=0), np.finfo(np.float32).tiny))
        for one, other in zip(wanted, found, strict=True)
    ]
    return max(errors, default=0.0)


def _done(tool: str, jobs: Sequence[tuple[Case, Path]]) -> list[str]:
    """What the tool says of each job; a job that ends the tool's process is a failure, and a new process goes on."""
    said: list[str] = []
    while len(said) < len(jobs):
        lines = [
            json.dumps({"model": str(case.model), "feeds": str(case.feeds), "target": str(target)})
            for case, target in jobs[len(said) :]
        ]
        tools = Path(__file__).with_name("compat_tools.py")
        process = subprocess.run(
            [sys.executable, str(tools), tool],
            input="\n".join(lines) + "\n",
            capture_output=True,
            text=True,
            timeout=_TOOL_SECONDS,
            check=False,
        )
        said += [line[1:] for line in process.stdout.splitlines() if line.startswith("#")]
        if process.returncode != 0:
            said.append(f"failed: the process ended with {process.returncode}")
    return said[: len(jobs)]


def matrix(folder: Path, only: Sequence[str] | None = None) -> Iterator[tuple[str, dict[tuple[str, str], Verdict]]]:
    """Each installed tool with its verdicts."""
    made = cases(folder, only)
    for tool in TOOLS:
        if is_installed(tool):
            yield tool, verdicts(tool, made, folder)


def expected() -> dict[str, dict[str, dict[str, str]]]:
    """Tool → encoding → net → verdict, as it is on record."""
    found: dict[str, dict[str, dict[str, str]]] = json.loads(EXPECTED.read_text())
    return found


def table(found: Mapping[str, Mapping[tuple[str, str], Verdict]], sizes: Mapping[str, int]) -> str:
    """The matrix as Markdown: a row for each tool, a column for each encoding; nets are named where they differ."""
    lines = [f"| tool | {' | '.join(ENCODINGS)} |", f"|---|{'---|' * len(ENCODINGS)}"]
    if sizes:
        own = [f"{sizes[encoding + _values_of(encoding)]:,}" for encoding in ENCODINGS]
        lines.append(f"| bytes of {SIZED}, dense {sizes['dense']:,} | {' | '.join(own)} |")
    for tool, of_tool in found.items():
        cells = []
        for encoding in ENCODINGS:
            by_net = {net: verdict.said for (net, its_encoding), verdict in of_tool.items() if its_encoding == encoding}
            said = set(by_net.values())
            cells.append(said.pop() if len(said) == 1 else "; ".join(f"{net}: {what}" for net, what in by_net.items()))
        lines.append(f"| {tool} ({tool_version(tool)}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def reasons(found: Mapping[str, Mapping[tuple[str, str], Verdict]]) -> str:
    """Why, where it breaks: a line for each tool, encoding and reason."""
    lines: dict[str, None] = {}
    for tool, of_tool in found.items():
        for (net, encoding), verdict in of_tool.items():
            if verdict.detail:
                detail = re.sub(r"\S*/(\S+\.onnx)", r"\1", verdict.detail)  # no folder of one machine
                lines[f"- {tool}, {encoding}, {net}: {verdict.said}: {detail}"] = None
    return "\n".join(lines)


_PAGE = """# What other tools make of an encoded file

Written by `python tests/compat/compat_matrix.py --markdown docs/benchmarks/compatibility.md` (extra `compat`).

{when}, {machine}, Python {python}, numpy {numpy}

{table}

*gaps*, *bitmask*, *rice*, *2of4* and *blocks* store positions so (the last two are for patterns that these nets do not
have), and float32 values with their exponents split off where that pays; *codes* (shared values, 4 bits), *f16* and
*int8* store values so, and positions the smallest way. *inline*: plain nodes instead of functions. *coo* is a
sparse_initializer, *coo in Constant* a Constant(sparse_value), the standard's own way. Each tool works on the dense
file and on the encoded one of LeNet-300-100, a BatchNorm CNN and a net with an If, 90 % of the weights zeroed,
ai.onnx 17, IR version 8; its two results are compared.
**pass**: the same answers, and what a tool
wrote is still encoded. **re-densified**: the same answers, the weights dense again. **no effect**: a tool that changes
answers did not find the encoded weights. **breaks**: it fails, or the answers differ, where the dense file does well.
`onnxprune densify` before such a tool is the way round. OpenVINO knows no functions, and takes files written with
`--inline`.

Not measured by this script, seen with a LeNet-300-100 of the same density in November 2026: polygraphy 0.53.6 (its
`surgeon prune`) drops sparse initializers, and the file does not load; onnx2torch 1.5.15 refuses both kinds of sparse
tensors, and gives other answers for a bitmask of plain nodes (144,380 bytes).

{reasons}
"""


def main() -> None:
    """Measure; print the table, or write the page and the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", type=Path, help="write the page, and what the test expects")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sizes = nbytes(Path(name))
        found = dict(matrix(Path(name)))
    if args.markdown is None:
        print(table(found, sizes), reasons(found), sep="\n\n")
        return
    args.markdown.write_text(
        _PAGE.format(
            when=datetime.now(UTC).date(),
            machine=f"{platform.machine()}, {platform.system()}",
            python=platform.python_version(),
            numpy=np.__version__,
            table=table(found, sizes),
            reasons=reasons(found),
        )
    )
    record: dict[str, dict[str, dict[str, str]]] = {}
    for tool, of_tool in found.items():
        for (net, encoding), verdict in of_tool.items():
            record.setdefault(tool, {}).setdefault(encoding, {})[net] = verdict.said
    EXPECTED.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
