from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from onnxprune_passes.errors import ModelError

from onnxprune.analysis import Analysis
from onnxprune.prune import prune_file
from onnxprune.recipe import PruneOptions
from onnxprune.recipe_yaml import read_recipe
from onnxprune.records import finite, tools
from onnxprune.report import SCHEMA_VERSION, Report, VerifyReport
from onnxprune.resolve import options_from
from onnxprune.serialize import json_text, schema_of, write_json

_PUBLISHED = Path(__file__).parents[2] / "docs" / "report.schema.json"


def _report(**fields: Any) -> Report:
    return Report(status="done", tools=tools(), recipe=options_from("m.onnx", {}).recipe, **fields)


def _as_json(value: msgspec.Struct) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def test_the_published_schema_is_the_one_of_the_code() -> None:
    expected = json_text(schema_of(Report))
    assert _PUBLISHED.read_text() == expected, "run: onnxprune schema > docs/report.schema.json"


@pytest.mark.parametrize("kind", [Report, VerifyReport, Analysis])
def test_every_schema_is_valid_says_its_draft_and_its_version(kind: type[msgspec.Struct]) -> None:
    schema = schema_of(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["$defs"][kind.__name__]["properties"]["schema_version"]["enum"] == [SCHEMA_VERSION]


def test_a_real_report_fits_the_schema_and_comes_back_equal(dead_net: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    report = prune_file(PruneOptions(model=str(dead_net), sparsity=0.6, json=str(file)))
    jsonschema.validate(msgspec.json.decode(file.read_bytes()), schema_of(Report))
    assert msgspec.json.decode(file.read_bytes(), type=Report) == report
    assert report.layers
    assert report.comparisons
    assert report.decoded
    assert report.totals is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema_version", 2),
        ("status", "fine"),
        ("verified", "yes"),
        ("layers", [{"name": "fc1"}]),
        ("recipe", {"sparsity": 1.0}),
        ("recipe", {"sparsities": 0.5}),
    ],
)
def test_the_schema_refuses_what_no_report_says(field: str, value: Any) -> None:
    report = _as_json(_report())
    jsonschema.validate(report, schema_of(Report))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(report | {field: value}, schema_of(Report))


def test_the_recipe_in_the_report_replays(net: Path, tmp_path: Path) -> None:
    file, recipe = tmp_path / "report.json", tmp_path / "recipe.yaml"
    options = options_from(str(net), {"quality": 1.2, "skip": ["fc3*"], "encode": "bitmask", "json": str(file)})
    first = prune_file(options)
    output = Path(str(options.output))
    content = output.read_bytes()
    recipe.write_bytes(msgspec.json.encode(msgspec.json.decode(file.read_bytes())["recipe"]))
    again = options_from(str(net), {}, read_recipe(recipe))
    assert again == options
    assert msgspec.structs.replace(prune_file(again), seconds={}) == msgspec.structs.replace(first, seconds={})
    assert output.read_bytes() == content


def test_numbers_that_json_cannot_say_are_null() -> None:
    assert [finite(value) for value in (0.5, math.inf, -math.inf, math.nan)] == [0.5, None, None, None]


def test_tools_names_the_versions_that_are_installed() -> None:
    import onnx

    import onnxprune

    assert (tools().onnx, tools().onnxprune) == (onnx.__version__, onnxprune.__version__)


def test_json_is_indented_and_ends_with_a_newline() -> None:
    text = json_text(_report())
    assert text.startswith('{\n  "schema_version": 1,')
    assert text.endswith("}\n")


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "report.json"
    write_json(_report(), file)
    before = file.read_bytes()

    def full(*_args: Any, **_options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ModelError, match="No space left on device"):
        write_json(_report(verified=True), file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_report_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(ModelError, match=r"report\.json cannot be written"):
        write_json(_report(), tmp_path / "report.json")
    tmp_path.chmod(0o755)
