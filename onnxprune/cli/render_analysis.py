"""What `onnxprune inspect` prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from ..analysis import Analysis, GroupAnalysis
from ..stored import StoredTensor
from .render import console, count_text, percent, shape_text, table


def show_analysis(analysis: Analysis, *, groups: bool) -> None:
    """What `onnxprune inspect` found; `groups` lists the neurons too."""
    out = console()
    out.print(_weight_table(analysis))
    if analysis.stored:
        out.print(_stored_table(analysis.stored))
    dead = [group for group in analysis.groups if groups or group.input_dead or group.output_dead]
    if dead:
        out.print(_group_table("Neurons" if groups else "Dead neurons", dead))
    if groups and analysis.channels:
        out.print(_channel_table(analysis))
    if analysis.removable is not None:
        out.print(Text(f"remove-dead-neurons: would have {analysis.removable}"), soft_wrap=True)
    for left in analysis.refused:
        out.print(Text(f"{left.by}: would leave {left.name} alone: {left.reason}"), soft_wrap=True)
    share = percent(analysis.zeros / max(analysis.parameters, 1))
    out.print(
        Text(f"weights: {analysis.parameters:,} entries, {share} zero; other tensors: {analysis.other_parameters:,}")
    )
    macs = (count_text(analysis.dense_macs), count_text(analysis.effective_macs))
    out.print(Text(f"MACs: {macs[0]} dense, {macs[1]} without the zeros"), soft_wrap=True)
    for note in analysis.notes:
        out.print(Text(note), soft_wrap=True)
    if analysis.file is not None:
        file = analysis.file
        out.print(
            Text(f"{file.path}: {file.bytes:,} bytes, opset {file.opset}, IR version {file.ir_version}"), soft_wrap=True
        )


def _weight_table(analysis: Analysis) -> Table:
    rows = [
        (
            weight.name,
            "/".join(dict.fromkeys(weight.ops)),
            shape_text(weight.shape),
            weight.dtype,
            percent(weight.density),
            f"{weight.bytes:,}",
            analysis.encoded.get(weight.name, "dense"),
            count_text(weight.dense_macs),
            count_text(weight.effective_macs),
        )
        for weight in analysis.weights
    ]
    columns = ("name", "op", "shape", "dtype", "density", "bytes", "stored", "MACs", "effective MACs")
    return table("Weights", columns, rows, text=("name", "op", "dtype", "stored"))


def _stored_table(stored: Sequence[StoredTensor]) -> Table:
    """One row for each encoded tensor and one for all of them; factors are of the dense tensor, gzip and zstd."""
    rows = [(one.name, one.scheme, percent(one.density), *_stored_cells([one])) for one in stored]
    if len(stored) > 1:
        rows.append(("all", "", "", *_stored_cells(stored)))
    names = ["name", "stored", "density", "index", "values", "bytes", "bound", "x bound", "dense", "dense / bytes"]
    names += [f"{name} / bytes" for name in ("gzip -9", "zstd -19") if _compared(stored, name)]
    return table("Encoded tensors (bytes; functions are not in them)", names, rows, text=("name", "stored"))


def _stored_cells(stored: Sequence[StoredTensor]) -> list[str]:
    index, values = sum(one.index_bytes for one in stored), sum(one.value_bytes for one in stored)
    nbytes, dense = sum(one.bytes for one in stored), sum(one.dense_bytes for one in stored)
    bound = sum(one.bound_bytes for one in stored)
    over = f"{(index + values) / bound:.3f}" if bound else "-"
    cells = [f"{index:,}", f"{values:,}", f"{nbytes:,}", f"{bound:,.0f}", over, f"{dense:,}", f"{dense / nbytes:.2f}"]
    for name in ("gzip -9", "zstd -19"):
        sizes = _compared(stored, name)
        cells += [f"{sum(sizes) / nbytes:.2f}"] if sizes else []
    return cells


def _compared(stored: Sequence[StoredTensor], name: str) -> list[int]:
    """Bytes of each tensor under a compressor; empty where that was not measured."""
    found = [one.gzip_bytes if name == "gzip -9" else one.zstd_bytes for one in stored]
    return [nbytes for nbytes in found if nbytes is not None]


def _group_table(title: str, groups: Iterable[GroupAnalysis]) -> Table:
    rows = [
        (
            group.name,
            f"{group.neurons:,}",
            str(group.input_dead),
            str(group.output_dead),
            ", ".join(group.coupled),
            "; ".join(group.pinned_by),
        )
        for group in groups
    ]
    columns = ("name", "neurons", "input-dead", "output-dead", "coupled", "pinned by")
    return table(title, columns, rows, text=("name", "coupled", "pinned by"))


def _channel_table(analysis: Analysis) -> Table:
    """One row for each coupled group; quartiles of the norms between the smallest and the largest."""
    rows = [
        (
            group.path,
            f"{group.channels:,}",
            "+".join(group.kinds),
            " ".join("-" if norm is None else f"{norm:.3g}" for norm in group.norms),
            group.pinned_by or "",
        )
        for group in analysis.channels
    ]
    columns = ("axes", "channels", "kind", "L2 norms: min, quartiles, max", "pinned by")
    return table("Coupled groups", columns, rows, text=("axes", "kind", "pinned by"))
