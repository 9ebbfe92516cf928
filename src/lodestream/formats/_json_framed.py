"""JSON messages with a schema id: each is checked against the schema that it names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from lodestream.errors import ConfigError
from lodestream.formats._json_schema import BadJsonSchemaError, SchemaCheck
from lodestream.formats._lines import Ints, Lines, slices
from lodestream.formats._records import Reject, rejected
from lodestream.formats._registered import (
    HEADER_BYTES,
    UnusableSchemaError,
    frequent,
    latest_of,
    read_headers,
    references_of,
    schema_with_references,
)
from lodestream.formats._wire_rows import in_order
from lodestream.ports.format import RAW_BYTES_MAX
from lodestream.ports.registry import RegisteredSchema, SchemaRegistry
from lodestream.ports.source import Decoded, Reading

if TYPE_CHECKING:
    from lodestream.formats.json import JsonSettings

_KNOWN_MAX = 1000


class RegisteredChecks:
    """The schemas of a registry as checks; `given` is used in place of all of them."""

    def __init__(self, settings: JsonSettings, reading: Reading, given: SchemaCheck | None) -> None:
        self._settings = settings
        self._reading = reading
        self._given = given
        self._known: dict[int, SchemaCheck] = {}
        self._registry: SchemaRegistry | None = None

    def decode(self, lines: Lines, unit: str, decode: Callable[[Lines, str], Decoded]) -> Decoded:
        """Messages to rows and rejects; `decode` does it for their JSON.

        Raises:
            TransientError: the registry does not answer.
        """
        ids, _ = read_headers(lines)
        names, which = frequent(ids, self._settings.schemas_max)
        checks = [self._check(int(name)) for name in names]
        reasons = np.array([check if isinstance(check, str) else "" for check in checks] + ["parse:schema_id:many"])
        refused = np.flatnonzero(reasons[which] != "")
        good = lines if not len(refused) else lines.some(np.flatnonzero(reasons[which] == ""))
        inner = _without_headers(good)
        pieces = []
        decoded = decode(inner, unit)
        for name, check in enumerate(checks):
            if isinstance(check, SchemaCheck):
                mine = None if len(checks) == 1 else lines.positions[which == name]
                pieces.append(check.check(_only(decoded, mine), inner, unit))
        if not pieces:
            pieces.append(decoded)
        pieces = [_with_headers(piece, good, self._settings.row_bytes_max) for piece in pieces]
        if len(refused):
            rejects: list[Reject] = [
                (int(lines.positions[i]), [str(reasons[which[i]])], _bytes(lines, i, self._settings.row_bytes_max))
                for i in refused.tolist()
            ]
            pieces.append(rejected(self._reading, unit, rejects))
        made = in_order(pieces)
        return Decoded(made.rows, made.rejects, decoded.found)

    def latest(self, subject: str) -> SchemaCheck | None:
        """The newest schema of a subject. Raises ConfigError when it cannot be used."""
        registry = self._open()
        found = latest_of(registry, subject, "JSON")
        if found is None:
            return None
        try:
            return self._made(registry, found)
        except (BadJsonSchemaError, LookupError) as error:
            raise ConfigError("the subject's newest schema cannot be used", subject=subject, why=str(error)) from error

    def _check(self, name: int) -> SchemaCheck | str:
        """The check of a schema id, or the reason why its messages are refused."""
        if name < 0:
            return "parse:magic"
        if self._given:
            return self._given
        if name in self._known:
            return self._known[name]
        registry = self._open()
        try:
            made = self._made(registry, schema_with_references(registry, name, "JSON")[0])
        except UnusableSchemaError as error:
            return str(error)
        except BadJsonSchemaError:
            return "parse:schema_id:invalid"
        if len(self._known) >= _KNOWN_MAX:
            self._known.pop(next(iter(self._known)))
        self._known[name] = made
        return made

    def _made(self, registry: SchemaRegistry, schema: RegisteredSchema) -> SchemaCheck:
        references = [(name, inner.text) for name, inner in references_of(registry, schema)]
        return SchemaCheck(schema.text, references, self._reading, self._settings.timestamps, self._settings.depth_max)

    def _open(self) -> SchemaRegistry:
        if self._registry is None:
            self._registry = self._reading.registry(self._settings.registry)
        return self._registry


def _without_headers(lines: Lines) -> Lines:
    """The same messages without their headers, which become spaces, for nothing in them means anything in JSON."""
    block = lines.block.copy()
    for i in range(HEADER_BYTES):
        block[lines.starts + i] = 32
    return Lines(block, lines.starts + HEADER_BYTES, lines.ends, lines.positions)


def _only(decoded: Decoded, positions: Ints | None) -> Decoded:
    """What was decoded at these positions (None: all of it)."""
    if positions is None:
        return decoded
    wanted = [np.isin(table["_position"].to_numpy(), positions) for table in (decoded.rows, decoded.rejects)]
    return Decoded(decoded.rows.filter(pa.array(wanted[0])), decoded.rejects.filter(pa.array(wanted[1])))


def _with_headers(decoded: Decoded, lines: Lines, row_bytes_max: int) -> Decoded:
    """The same with all bytes of each message in `_raw`."""
    rows, rejects = decoded.rows, decoded.rejects
    if "_raw" in rows.column_names:
        some = lines.some(np.searchsorted(lines.positions, rows["_position"].to_numpy()))
        raw = slices(some.block, some.starts, some.ends, pa.binary())
        rows = rows.set_column(rows.column_names.index("_raw"), "_raw", raw)
    if len(rejects):
        places = np.searchsorted(lines.positions, rejects["_position"].to_numpy()).tolist()
        raw = pa.array([_bytes(lines, i, row_bytes_max) for i in places], pa.binary())
        rejects = rejects.set_column(rejects.column_names.index("_raw"), "_raw", raw)
    return Decoded(rows, rejects)


def _bytes(lines: Lines, i: int, row_bytes_max: int) -> bytes:
    most = min(row_bytes_max + HEADER_BYTES, RAW_BYTES_MAX)
    return lines.block[lines.starts[i] : min(lines.ends[i], lines.starts[i] + most)].tobytes()
