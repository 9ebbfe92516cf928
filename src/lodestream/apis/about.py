"""What is known about tables, over HTTP: where they come from and who reads them, search, the audit log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from lodestream.apis.problems import ProblemError
from lodestream.apis.routing import Endpoint, Parameter, Part, Reply
from lodestream.catalog.audit_table import Wanted, facts
from lodestream.catalog.catalog import Catalog
from lodestream.catalog.chain import Record
from lodestream.catalog.lineage import Lineage, Reader, Sees, Walk
from lodestream.catalog.things import Known
from lodestream.errors import AccessError
from lodestream.model.access import Principal
from lodestream.model.table import TableName
from lodestream.ports.authority import Event

LIMIT_MAX = 500
_DEPTH_MAX = 50
_TIME_MAX = 1 << 60
_TEXT: dict[str, Any] = {"type": "string"}
_MAYBE: dict[str, Any] = {"type": ["string", "null"]}
_TABLE = Parameter("table", "path", "`layer.name`, such as `gold.orders`.")
_DEPTH = Parameter(
    "depth", description="So many tables far.", schema={"type": "integer", "minimum": 1, "maximum": _DEPTH_MAX}
)
_SINCE = Parameter(
    "since_us", description="Microseconds since 1970 UTC.",
    schema={"type": "integer", "minimum": 1, "maximum": _TIME_MAX},
)  # fmt: skip
_LIMIT = Parameter("limit", schema={"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": 50})
_EDGE = {
    "type": "object", "required": ["from", "to"],
    "properties": {"from": _TEXT, "to": _TEXT, "from_column": _MAYBE, "to_column": _MAYBE, "how": _TEXT},
}  # fmt: skip
_LINEAGE = {
    "type": "object", "required": ["table", "tables", "columns", "readers"],
    "properties": {
        "table": _TEXT, "tables": {"type": "array", "items": _EDGE}, "columns": {"type": "array", "items": _EDGE},
        "readers": {"type": "array", "items": {
            "type": "object", "required": ["kind", "name", "reads"],
            "properties": {
                "kind": _TEXT, "name": _TEXT, "reads": {"type": "object"}, "last_us": {"type": ["integer", "null"]},
            },
        }},
    },
}  # fmt: skip
_FOUND = {
    "type": "object", "required": ["found"],
    "properties": {"found": {"type": "array", "items": {
        "type": "object", "required": ["kind", "name"],
        "properties": {"kind": _TEXT, "name": _TEXT, "comment": _TEXT, "tags": {"type": "array", "items": _TEXT},
                       "owner": _MAYBE, "fields": {"type": "array", "items": _TEXT}},
    }}},
}  # fmt: skip
_RECORDS = {
    "type": "object", "required": ["records"],
    "properties": {"records": {"type": "array", "items": {
        "type": "object", "required": ["seq", "time_us", "principal", "action", "decision"],
    }}},
}  # fmt: skip


@dataclass(frozen=True)
class About:
    """What these endpoints stand on.

    Attributes:
        catalog: who may know of what; takes down who looked at the audit log.
        known: lineage and search.
        records: of the audit log.
    """

    catalog: Catalog
    known: Known
    records: Callable[[Wanted], list[Record]]


def about_part(about: About) -> Part:
    """The endpoints."""
    made = _Endpoints(about)
    return Part((
        Endpoint(
            "GET", "/api/tables/{table}/lineage", made.lineage, "query:*",
            "Where a table comes from, what comes from it, and who reads that.",
            (_TABLE, Parameter("column", description="Only what this column comes from and goes into."),
             _DEPTH),
            answers={200: Reply("Its lineage.", {"application/json": _LINEAGE})}, problems=(404, 503), tag="catalog",
            description="Nothing is told of what you may not see, nor of what lies behind it. People and services that "
            "read it are told to those who manage all that they read.",
        ),
        Endpoint(
            "GET", "/api/catalog/search", made.search, "query:*", "Tables, columns, queries and dashboards by words.",
            (Parameter("q", description="Words of a name, comment, tag or owner.", required=True), _LIMIT),
            answers={200: Reply("The best first.", {"application/json": _FOUND})}, problems=(503,), tag="catalog",
        ),
        Endpoint(
            "GET", "/api/audit", made.audit, "admin:*", "The newest records of the audit log.",
            (Parameter("principal", description="Only what they did."),
             Parameter("action", description="Only this, such as `query` or `grant`."),
             Parameter("table", description="Only what concerns this table."),
             Parameter("decision", schema={"type": "string", "enum": ["allowed", "refused"]}),
             _SINCE, _LIMIT),
            answers={200: Reply("The newest first.", {"application/json": _RECORDS})}, problems=(503,),
            tag="catalog", description="For those who manage the whole catalog. That they looked is recorded, too.",
        ),
    ))  # fmt: skip


class _Endpoints:
    def __init__(self, about: About) -> None:
        self._about = about

    async def lineage(self, request: Request, principal: Principal) -> Response:
        column = request.query_params.get("column")
        depth = _whole(request, "depth", _DEPTH_MAX)
        return await _answered(lambda: self._lineage(request.path_params["table"], column, depth, principal))

    async def search(self, request: Request, principal: Principal) -> Response:
        text, limit = request.query_params.get("q"), _whole(request, "limit", LIMIT_MAX) or 50
        if text is None:
            raise ProblemError(400, "say what to search for: q=…", parameter="q")
        return await _answered(lambda: self._search(text[:1_000], limit, principal))

    async def audit(self, request: Request, principal: Principal) -> Response:
        given = request.query_params
        decision = given.get("decision")
        if decision not in (None, "allowed", "refused"):
            raise ProblemError(400, "decision is allowed or refused", parameter="decision")
        wanted = Wanted(
            given.get("principal"), given.get("action"), given.get("table"), decision,
            _whole(request, "since_us", _TIME_MAX), _whole(request, "limit", LIMIT_MAX) or 50,
        )  # fmt: skip
        return await _answered(lambda: self._audit(wanted, principal))

    def _lineage(self, text: str, column: str | None, depth: int | None, principal: Principal) -> dict[str, Any]:
        known, sees = self._about.known.lineage(), self._about.known.sees(principal)
        table = _known(text, known, sees)
        columns = [name for name in known.schemas[table].names if name in (sees(table) or ())]
        if column is not None and column not in columns:
            raise ProblemError(404, "no such column", parameter="column")

        def manages(name: TableName) -> bool:
            return "manage" in self._about.catalog.privileges(principal, name)

        down = known.down(table, column, sees=sees, depth=depth, manages=manages)
        tables = _edges(known.up(table, sees=sees, depth=depth), known.down(table, sees=sees, depth=depth))
        walks: list[tuple[Walk, Walk]] = []
        for name in columns if column is None else [column]:
            up = known.up(table, name, sees=sees, depth=depth, values=True)
            walks.append((up, known.down(table, name, sees=sees, depth=depth, values=True)))
        found = [edge for pair in walks for edge in _edges(*pair)]
        return {"table": str(table), "tables": tables, "columns": _distinct(found),
                "readers": [_reader(one) for one in down.readers]}  # fmt: skip

    def _search(self, text: str, limit: int, principal: Principal) -> dict[str, Any]:
        hits = self._about.known.index().find(text, self._about.known.sees(principal), limit=limit)
        return {"found": [
            {"kind": hit.item.kind, "name": hit.item.name, "comment": hit.item.comment, "tags": list(hit.item.tags),
             "owner": hit.item.owner or None, "fields": list(hit.fields)} for hit in hits
        ]}  # fmt: skip

    def _audit(self, wanted: Wanted, principal: Principal) -> dict[str, Any]:
        may = self._about.catalog.holds(principal, "manage")
        asked = {"principal": wanted.principal, "action": wanted.action, "table": wanted.table, "limit": wanted.limit}
        version = self._about.catalog.version()
        decision: Literal["allowed", "refused"] = "allowed" if may else "refused"
        self._about.catalog.record(
            Event(principal.name, principal.via, "rest", "audit", decision, ("*",), (), version, asked)
        )
        if not may:
            raise AccessError("only who manages the whole catalog may see the audit log")
        return {"records": [facts(record) for record in self._about.records(wanted)]}


def _known(text: str, known: Lineage, sees: Sees) -> TableName:
    """A table that the asker may know of; whatever else is not there for them."""
    try:
        table = TableName.parse(text)
    except ValueError:
        raise ProblemError(404, "no such table") from None
    if table not in known.schemas or sees(table) is None:
        raise ProblemError(404, "no such table")
    return table


def _edges(up: Walk, down: Walk) -> list[dict[str, Any]]:
    """Links as they run: from what is read to what is made of it."""
    found = [_edge((hop.table, hop.column), hop.of, hop.how) for hop in up.hops]
    return found + [_edge(hop.of, (hop.table, hop.column), hop.how) for hop in down.hops]


def _edge(source: tuple[TableName, str | None], made: tuple[TableName, str | None], how: str) -> dict[str, Any]:
    (table, column), (into, used) = source, made
    return {"from": str(table), "from_column": column, "to": str(into), "to_column": used, "how": how}


def _distinct(edges: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({tuple(edge.values()): edge for edge in edges}.values())


def _reader(reader: Reader) -> dict[str, Any]:
    read = {str(table): None if columns is None else sorted(columns) for table, columns in reader.reads.items()}
    return {"kind": reader.kind, "name": reader.name, "reads": read, "last_us": reader.last_us}


def _whole(request: Request, name: str, most: int) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()) or len(text) > 20 or not 0 < int(text) <= most:
        raise ProblemError(400, f"{name} is a whole number from 1 to {most}", parameter=name)
    return int(text)


async def _answered(work: Callable[[], Mapping[str, Any]]) -> Response:
    return Response(json.dumps(await asyncio.to_thread(work), ensure_ascii=False), media_type="application/json")
