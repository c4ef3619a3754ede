"""Reports as JSON text and files, and the JSON Schema of each kind."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import msgspec
from onnxprune_passes.errors import ModelError


def schema_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a report type, as JSON values."""
    schema: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(kind)))
    for definition in schema["$defs"].values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def json_text(value: msgspec.Struct | dict[str, Any]) -> str:
    """`value` as indented JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def write_json(value: msgspec.Struct, path: str | Path) -> None:
    """Write `value` to `path`, whole or not at all. Raises ModelError when it cannot be written."""
    write_text(json_text(value), path)


def write_text(text: str, path: str | Path) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all. Raises ModelError when it cannot be written."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ModelError(f"the report {path} cannot be written: {error.strerror}; choose another file") from error
