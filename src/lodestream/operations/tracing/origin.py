"""The record in the source that a row came from: its bytes, what they decode to, and whether they are what was read."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from lodestream.engines.embedded.drift import stored_columns
from lodestream.errors import AccessError, ConfigError, DataLossRefused, TransientError
from lodestream.model.batch import SourceRange
from lodestream.model.steps import FlowPlan, ReadSource
from lodestream.model.types import Schema
from lodestream.operations.tracing.findings import Record
from lodestream.operations.tracing.plain import bytes_text, plain
from lodestream.operations.tracing.view import View
from lodestream.ports.format import Format
from lodestream.ports.plugins import load, make_source
from lodestream.ports.source import Decoded, Reading, Source
from lodestream.sources._cut import LineFile
from lodestream.sources._digest import digest_file
from lodestream.sources._listing import Listing

_TEXT_KEPT = 64 << 10
_SCAN_BYTES = 1 << 16
_META = ("_source", "_position", "_raw")


class Origin:
    """The source of one ingest flow.

    Args:
        view: the lake.
        plan: a flow that begins with a `ReadSource`.
    """

    def __init__(self, view: View, plan: FlowPlan) -> None:
        first = plan.steps[0]
        assert isinstance(first, ReadSource)
        self.name, self.settings = first.source.name, dict(first.source.settings)
        self.root = view.app.project.root
        table = view.table(plan.table.name)
        stored = table.snapshot.metadata.schema if table else plan.schema
        self.schema: Schema = stored_columns(first.schema, stored, plan.schema)
        drift = "quarantine" if first.drift == "stop" else first.drift
        reading = Reading(self.schema, keep_raw=False, drift=drift, root=self.root, lake=view.app.home)
        self._first, self._resolve = first, view.app.resolve
        self.source_class = load("sources", self.name)
        self._reading = replace(reading, registry=view.app.registry)

    @cached_property
    def form(self) -> Format:
        """The table's format."""
        form = load("formats", self._first.format.name)
        made: Format = form(form.settings(**self._resolve(self._first.format.settings)), self._reading)
        return made

    @property
    def redecodes(self) -> bool:
        """Whether a replay can take a record again that did not decode."""
        return hasattr(self.source_class, "decode_raw")

    def path(self, unit: str) -> str | None:
        """Where the unit's file is, or would be; None when units are no files."""
        if self.name == "files":
            return self._listing().path_of(unit) if _is_inside(unit) else None
        if self.name == "replay" and unit in self.units():
            return os.path.join(self.root, str(self.settings["path"]))
        return None

    def units(self) -> list[str]:
        """Units that the source would take now."""
        try:
            if self.name == "files":
                return [file.unit for file in self._listing().files()]
        except (ConfigError, AccessError):
            return []
        return [os.path.basename(str(self.settings["path"]))] if self.name == "replay" else []

    def nearest(self, unit: str, known: Mapping[str, object]) -> str | None:
        """The unit that was probably meant."""
        names = list(dict.fromkeys([*known, *self.units()]))
        near = difflib.get_close_matches(unit, names, 1, 0.6)
        return near[0] if near else next((n for n in names if n.rsplit("/", 1)[-1] == unit.rsplit("/", 1)[-1]), None)

    def record(self, unit: str, position: int, planned: SourceRange | None, row: Mapping[str, Any] | None) -> Record:
        """Look the record up.

        Args:
            unit: the unit.
            position: as the row has it.
            planned: the range of the plan that read it, if it was read and the plan is still kept.
            row: what the table holds of it, to be compared.
        """
        columns = tuple((c.name, str(c.type)) for c in self.schema)
        if self.name == "generator":
            return self._generated(unit, position, planned, row, columns)
        if self.name in ("kafka", "http"):
            return self._message(unit, position, planned, row, columns)
        if self.name not in ("files", "replay"):
            return Record(self.name, unit, position, "not kept", notes=("records of this source are not kept in it",))
        path, known = self.path(unit), planned is not None or row is not None
        if path is None or not os.path.isfile(path) or not (known or unit in self.units()):
            note = "the file is there, but the source's path does not take it" if path and os.path.isfile(path) else ""
            return Record(
                self.name, unit, position, "gone" if known else "unknown", self._shown(path) if path else None,
                schema=columns, notes=(note,) if note else (),
            )  # fmt: skip
        unchanged = self._unchanged(path, planned)
        if self.form.framing == "file":
            total = sum(part.rows for part in self.form.parts(path))
            if position >= total:
                notes = (f"the file has {total} records",)
                return Record(self.name, unit, position, "beyond", self._shown(path), schema=columns, notes=notes)
            found = list(self.form.read(path, unit, position, position + 1))
            values, rejects = _only(found)
            return Record(
                self.name, unit, position, "there", self._shown(path), row=values, rejects=rejects, schema=columns,
                agrees=_agrees(values, row), unchanged=unchanged,
            )  # fmt: skip
        return self._line(path, unit, position, row, columns, unchanged)

    def _line(
        self,
        path: str,
        unit: str,
        position: int,
        row: Mapping[str, Any] | None,
        columns: tuple[tuple[str, str], ...],
        unchanged: bool | None,
    ) -> Record:
        size = os.path.getsize(path)
        with LineFile(path, self.form) as lines:
            head, first = lines.head, lines.first_record
        if position >= size:
            notes = (f"the file has {size} bytes",)
            return Record(self.name, unit, position, "beyond", self._shown(path), schema=columns, notes=notes)
        start, after, data = _line_at(path, position, first, self.form.row_bytes_max + 1)
        text = bytes_text(data[:_TEXT_KEPT].rstrip(b"\r\n"))
        length = after - start
        near: dict[str, Any] = {"start": start, "next": after if after < size else None}
        if position < first:
            return Record(
                self.name, unit, position, "head", self._shown(path), len(head), bytes_text(head.rstrip(b"\r\n")),
                schema=columns, next=first if first < size else None,
            )  # fmt: skip
        if start != position:
            return Record(
                self.name, unit, position, "inside", self._shown(path), length, text, schema=columns, **near
            )  # fmt: skip
        values, rejects = _only([self.form.decode(data, unit, start, head)])
        state = "blank" if values is None and not rejects else "there"
        return Record(
            self.name, unit, position, state, self._shown(path), length, text, values, rejects, columns,
            _agrees(values, row), unchanged, **near,
        )  # fmt: skip

    def _generated(
        self,
        unit: str,
        position: int,
        planned: SourceRange | None,
        row: Mapping[str, Any] | None,
        columns: tuple[tuple[str, str], ...],
    ) -> Record:
        source: Source = self.source_class(self.source_class.settings(**self.settings), self.form, self._reading)
        partitions = int(str(self.settings.get("partitions", 1)))
        if unit not in {f"generator/{p}" for p in range(partitions)}:
            return Record(self.name, unit, position, "unknown", schema=columns)
        if planned is None:
            rows = self.settings.get("rows")
            bound = None if rows is None else -(-(int(str(rows)) - int(unit.rpartition("/")[2])) // partitions)
            state = "not made" if bound is None or position < bound else "beyond"
            notes = () if state == "not made" else (f"{bound} events in all",)
            return Record(self.name, unit, position, state, schema=columns, notes=notes)
        values, rejects = _only(list(source.read(SourceRange(unit, position, position + 1, planned.facts))))
        notes = ("an event made from its index and the seed; made again here",)
        return Record(
            self.name, unit, position, "there", row=values, rejects=rejects, schema=columns,
            agrees=_agrees(values, row), notes=notes,
        )  # fmt: skip

    def _message(
        self,
        unit: str,
        position: int,
        planned: SourceRange | None,
        row: Mapping[str, Any] | None,
        columns: tuple[tuple[str, str], ...],
    ) -> Record:
        """A message, read from the broker or the log again."""
        facts = dict(planned.facts) if planned is not None else {}
        if facts.pop("gap", None):
            return Record(self.name, unit, position, "gone", schema=columns, notes=("gone before it was read",))
        reading = replace(self._reading, keep_raw=True)
        source = make_source(self._first.source, self._first.format, reading, self._resolve)
        try:
            found = list(source.read(SourceRange(unit, position, position + 1, facts)))
        except (DataLossRefused, TransientError, ValueError) as error:
            state = "gone" if planned is not None or row is not None else "unknown"
            return Record(self.name, unit, position, state, schema=columns, notes=(str(error),))
        finally:
            source.close()
        values, rejects = _only(found)
        raws = [one["_raw"] for piece in found for table in (piece.rows, piece.rejects) for one in table.to_pylist()]
        if not raws:
            return Record(self.name, unit, position, "blank", schema=columns, notes=("no message has this position",))
        return Record(
            self.name, unit, position, "there", size=len(raws[0]), text=bytes_text(raws[0][:_TEXT_KEPT]), row=values,
            rejects=rejects, schema=columns, agrees=_agrees(values, row),
        )  # fmt: skip

    def _unchanged(self, path: str, planned: SourceRange | None) -> bool | None:
        if planned is None or "digest" not in planned.facts:
            return None
        if self.form.framing == "file":
            return digest_file(path, os.path.getsize(path)) == int(planned.facts["digest"], 16)
        if "from" not in planned.facts:
            return None
        value = digest_file(path, planned.end, planned.start, int(planned.facts["from"], 16))
        return value == int(planned.facts["digest"], 16)

    def _listing(self) -> Listing:
        return Listing(str(self.settings["path"]), self.root, recursive=bool(self.settings.get("recursive", False)))

    def _shown(self, path: str) -> str:
        inside = os.path.relpath(path, self.root)
        return path if inside.startswith(os.pardir) else inside


def _is_inside(unit: str) -> bool:
    """Whether a unit's name stays in the source's folder; a name from the command line may say anything."""
    return not os.path.isabs(unit) and os.pardir not in unit.split("/")


def _line_at(path: str, position: int, first: int, bytes_max: int) -> tuple[int, int, bytes]:
    """Start of the line that holds the byte `position`, start of the next one, and the line's first bytes."""
    with open(path, "rb") as file:
        start, at = first, position
        while at > first:
            low = max(first, at - _SCAN_BYTES)
            file.seek(low)
            found = file.read(at - low).rfind(b"\n")
            if found >= 0:
                start = low + found + 1
                break
            at = low
        file.seek(max(start, 0))
        data = file.readline(bytes_max)
        after = start + len(data)
        while data and not data.endswith(b"\n"):
            more = file.readline(_SCAN_BYTES)
            after += len(more)
            if not more or more.endswith(b"\n"):
                break
    return start, after, data


def _only(pieces: list[Decoded]) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """The one row without its provenance, or the reasons why it does not decode; neither for a blank line."""
    rows = [row for piece in pieces for row in piece.rows.to_pylist()]
    reasons = [tuple(reject["_reasons"]) for piece in pieces for reject in piece.rejects.to_pylist()]
    values = {name: value for name, value in rows[0].items() if name not in _META} if rows else None
    return values, reasons[0] if reasons else ()


def _agrees(values: Mapping[str, Any] | None, row: Mapping[str, Any] | None) -> bool | None:
    if values is None or row is None:
        return None
    return all(name not in row or plain(value) == plain(row[name]) for name, value in values.items())
