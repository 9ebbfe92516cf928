"""Checks decoded JSON records against a JSON Schema, and reads columns from one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lodestream.errors import MissingDriverError
from lodestream.formats._json_sure import sure_rows
from lodestream.formats._lines import Lines
from lodestream.formats._parse import Parser
from lodestream.formats._records import Reject, rejects_table
from lodestream.model.types import BIGINT, BOOLEAN, DATE, DOUBLE, STRING, TIMESTAMP, Column, DataType, Schema
from lodestream.model.widening import unify_schemas
from lodestream.ports.source import Decoded, Reading

if TYPE_CHECKING:
    import jsonschema_rs

REASONS_MAX = 10
_BACKTRACKS_MAX = 100_000
_DEPTH_MAX = 16


class BadJsonSchemaError(ValueError):
    """The text is no JSON Schema, or builds on one that is not at hand; the message says why."""


class SchemaCheck:
    """One schema, and what it says of rows.

    Raises:
        BadJsonSchemaError: it is none.
        MissingDriverError: the validator is not installed.
    """

    def __init__(
        self, text: str, references: Iterable[tuple[str, str]], reading: Reading, timestamps: str, depth_max: int
    ) -> None:
        try:
            import jsonschema_rs
        except ModuleNotFoundError as error:
            raise MissingDriverError(
                "checking JSON Schema needs a package: pip install 'lodestream[json-schema]'", missing=error.name
            ) from error
        schema = _load(text)
        known = [(name, _load(inner)) for name, inner in references]
        self._validator = _validator(jsonschema_rs, schema, known)
        self._parse = Parser(depth_max, exact=False)
        is_closed = reading.drift in ("quarantine", "stop")
        self._sure = sure_rows(schema, reading.schema, iso=timestamps == "iso", is_closed=is_closed)
        self.columns = schema_columns(schema)

    def check(self, decoded: Decoded, lines: Lines, unit: str) -> Decoded:
        """What was decoded from these lines, with those rows as rejects that the schema refuses."""
        rows = decoded.rows
        unsure = np.arange(len(rows)) if self._sure is None else np.flatnonzero(~self._sure(rows))
        if not len(unsure):
            return decoded
        positions = rows["_position"].to_numpy()[unsure]
        at = np.searchsorted(lines.positions, positions)
        bad: list[int] = []
        rejects: list[Reject] = []
        for row, position, line in zip(unsure.tolist(), positions.tolist(), at.tolist(), strict=True):
            raw = lines.block[lines.starts[line] : lines.ends[line]].tobytes()
            reasons = self._reasons(raw)
            if reasons:
                bad.append(row)
                rejects.append((position, reasons, raw))
        if not bad:
            return decoded
        keep = np.ones(len(rows), np.bool_)
        keep[bad] = False
        both = pa.concat_tables([decoded.rejects, rejects_table(unit, rejects)])
        order = np.argsort(both["_position"].to_numpy(), kind="stable")
        return Decoded(rows.filter(pa.array(keep)), both.take(pa.array(order)), decoded.found)

    def _reasons(self, raw: bytes) -> list[str]:
        """Why the schema refuses a record, at most ten reasons."""
        found: dict[str, None] = {}
        for error in self._validator.iter_errors(self._parse(raw)):
            found[_reason(error)] = None
            if len(found) == REASONS_MAX:
                break
        return list(found)


def _load(text: str) -> Any:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadJsonSchemaError("not JSON") from error
    if not isinstance(schema, dict | bool):
        raise BadJsonSchemaError("a schema is an object or a boolean")
    return schema


def _validator(library: Any, schema: Any, references: Sequence[tuple[str, Any]]) -> jsonschema_rs.Validator:
    """A validator that fetches nothing, and whose patterns give up rather than run on."""
    try:
        made: jsonschema_rs.Validator = library.validator_for(
            schema,
            registry=library.Registry(list(references)) if references else None,
            validate_formats=False,
            offline=True,
            pattern_options=library.FancyRegexOptions(backtrack_limit=_BACKTRACKS_MAX),
        )
    except (ValueError, library.ReferencingError, RecursionError) as error:
        raise BadJsonSchemaError(str(error).partition("\n")[0]) from error
    return made


def _reason(error: jsonschema_rs.ValidationError) -> str:
    """Where in the record, and by which keyword, such as `schema:items[].price:minimum`."""
    path = ""
    for part in error.instance_path:
        path += "[]" if isinstance(part, int) else f".{part}"
    keyword = error.kind.name
    if keyword == "required":
        path += f".{error.kind.as_dict()['property']}"
    elif keyword == "additionalProperties":
        path += f".{error.kind.as_dict()['unexpected'][0]}"
    return f"schema:{path.removeprefix('.') or '$'}:{keyword}"


def schema_columns(schema: Any) -> Schema:
    """The columns that hold what a JSON Schema describes; properties whose type is open are left out."""
    return _columns(schema, schema, 0)


def _columns(schema: Any, top: Any, depth: int) -> Schema:
    properties = schema.get("properties", {}) if isinstance(schema, Mapping) else {}
    if not isinstance(properties, Mapping):
        return Schema()
    kinds = [(name, _type(inner, top, depth + 1)) for name, inner in properties.items()]
    return unify_schemas([Schema((Column(name, kind),)) for name, kind in kinds if kind and name])


def _type(schema: Any, top: Any, depth: int) -> DataType | None:
    if not isinstance(schema, Mapping) or depth > _DEPTH_MAX:
        return None
    if isinstance(reference := schema.get("$ref"), str):
        return _type(_referred(reference, top), top, depth + 1)
    for choice in ("oneOf", "anyOf"):
        options = schema.get(choice)
        if isinstance(options, list) and "type" not in schema:
            others = [option for option in options if option != {"type": "null"}]
            return _type(others[0], top, depth + 1) if len(others) == 1 else None
    names = schema.get("type")
    names = [name for name in (names if isinstance(names, list) else [names]) if name != "null"]
    if set(names) == {"integer", "number"}:
        return DOUBLE
    if len(names) != 1:
        return None
    if names[0] == "string":
        return {"date-time": TIMESTAMP, "date": DATE}.get(str(schema.get("format")), STRING)
    if names[0] == "array":
        element = _type(schema.get("items"), top, depth + 1)
        return DataType("array", element=element) if element else None
    if names[0] == "object":
        fields = _columns(schema, top, depth).columns
        if fields:
            return DataType("struct", fields=fields)
        element = _type(schema.get("additionalProperties"), top, depth + 1)
        return DataType("map", key=STRING, element=element) if element else None
    return {"boolean": BOOLEAN, "integer": BIGINT, "number": DOUBLE}.get(str(names[0]))


def _referred(reference: str, top: Any) -> Any:
    """What a reference inside the same schema points to, or None."""
    if not reference.startswith("#/"):
        return None
    at = top
    for part in reference[2:].split("/"):
        at = at.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(at, Mapping) else None
    return at
