"""Tables over HTTP: what there is, rows page by page, columns, versions and figures."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from lodestream.apis.asked import format_of
from lodestream.apis.problems import ProblemError
from lodestream.apis.rest.cursors import Cursors
from lodestream.apis.rest.filters import OPERATORS, read
from lodestream.apis.rest.pages import Pages
from lodestream.apis.rest.shapes import AS_OF, HISTORY, LISTED, PAGE, SCHEMA, STATS, TABLE, TEXT, contents, in_json
from lodestream.apis.rest.sql import DOOR, SqlApi, table_name, writer
from lodestream.apis.routing import Endpoint, Parameter, Reply
from lodestream.apis.rows import plain
from lodestream.apis.threads import Threads, attended
from lodestream.errors import ConfigError
from lodestream.lake.log import Snapshot, list_log, read_commit
from lodestream.model.access import Principal, TableAccess
from lodestream.model.table import TableName
from lodestream.ports.authority import Event
from lodestream.ports.waiting import tried
from lodestream.project.serving import ApiSettings
from lodestream.query.quoting import quoted
from lodestream.query.service import QueryService

T = TypeVar("T")
_LIMIT = 1000
_HISTORY_MAX = 1000
_COUNTED_COLUMNS_MAX = 200
_ORDERED = frozenset(
    {"tinyint", "smallint", "int", "bigint", "decimal", "float", "double", "string", "date", "timestamp"}
)


class TablesApi:
    """Tables for whoever may read them.

    Args:
        service: the read path.
        threads: for what blocks.
        settings: bounds.
        cursors: of this server.
        sql: knows versions and budgets.
    """

    def __init__(
        self, service: QueryService, threads: Threads, settings: ApiSettings, cursors: Cursors, sql: SqlApi
    ) -> None:
        self._service, self._threads, self._sql = service, threads, sql
        self._limit_max = settings.page_rows_max
        self._pages = Pages(service, cursors, DOOR)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """What can be asked."""
        filters = Parameter(
            "filters", description=f"A column and `operator.value`: {', '.join(OPERATORS)}; `not.` before it negates.",
            schema={"type": "object", "additionalProperties": TEXT}, spread=True,
        )  # fmt: skip
        paged = (
            TABLE, Parameter("select", description="Columns, with commas between them."),
            Parameter("order", description="Columns, each with `.desc` when it descends."),
            Parameter("limit", schema={"type": "integer", "minimum": 1, "maximum": self._limit_max, "default": _LIMIT}),
            Parameter("cursor", description="`next` of the page before; all else as it was."), AS_OF,
            Parameter("format", schema={"type": "string", "enum": ["json", "ndjson", "csv", "arrow", "parquet"]}),
            Parameter("If-None-Match", "header", "The `ETag` of an answer that the caller has."), filters,
        )  # fmt: skip
        headers = {"ETag": "Names this answer.", "Link": "The next page.", "Lodestream-Versions": "What was read."}
        return (
            Endpoint(
                "GET", "/api/tables", self.listed, "query:*", "Tables that you may know of.", tag="tables",
                answers={200: Reply("They.", in_json(LISTED))},
            ),
            Endpoint(
                "GET", "/api/tables/{table}", self.rows, "query:*", "Rows of a table, page by page.", paged,
                answers={200: Reply("A page.", contents(PAGE), headers), 304: Reply("You have it.")}, tag="tables",
                problems=(404, 406, 410, 413, 503),
            ),
            Endpoint(
                "GET", "/api/tables/{table}/schema", self.schema, "query:*", "Columns of a table.", (TABLE, AS_OF),
                answers={200: Reply("They.", in_json(SCHEMA))}, problems=(404, 410, 503), tag="tables",
            ),
            Endpoint(
                "GET", "/api/tables/{table}/history", self.history, "query:*", "Versions of a table, newest first.",
                (TABLE, Parameter("limit", schema={"type": "integer", "minimum": 1, "maximum": _HISTORY_MAX}),
                 Parameter("before", description="Only versions before this one.", schema={"type": "integer"})),
                answers={200: Reply("They.", in_json(HISTORY))}, problems=(404, 503), tag="tables",
                description="Numbers of rows and bytes are left out when a policy hides rows from you.",
            ),
            Endpoint(
                "GET", "/api/tables/{table}/stats", self.stats, "query:*", "Figures of a table and its columns.",
                (TABLE, AS_OF),
                answers={200: Reply("They.", in_json(STATS))}, problems=(404, 410, 503), tag="tables",
                description="Of the rows and columns as you see them; `distinct` is approximate.",
            ),
        )  # fmt: skip

    async def listed(self, request: Request, principal: Principal) -> Response:
        """`GET /api/tables`."""

        def found() -> Any:
            authority = self._service.authority
            return {"tables": [
                {"table": str(name), "layer": name.layer, "name": name.name,
                 "privileges": sorted(authority.privileges(principal, name))}
                for name in self._service.tables(principal)
            ]}  # fmt: skip

        return _json(await self._run(request, found))

    async def rows(self, request: Request, principal: Principal) -> Response:
        """`GET /api/tables/{table}`."""
        name = table_name(request.path_params["table"])
        given = [*request.query_params.multi_items()]
        said = dict(given)
        form = format_of(request, said.get("format"))
        known = request.headers.get("if-none-match")

        def found() -> tuple[Response | None, bytes, str, dict[str, str]]:
            snapshot, access = self._access(name, principal, self._as_of(said.get("as_of"), name, principal))
            wanted = read(given, access.schema(snapshot.metadata.schema), _LIMIT, self._limit_max)
            place = None
            if (cursor := said.get("cursor")) is not None:
                place = self._pages.place(cursor, name, wanted, principal)
                snapshot, access = self._access(name, principal, place.version)
            schema, version = access.schema(snapshot.metadata.schema), snapshot.version
            etag = _etag(snapshot, access, given, form, request.scope["path"])
            headers = {"ETag": etag, "Vary": "Accept, Authorization", "Lodestream-Versions": f"{name}={version}"}
            if known is not None and etag in (one.strip() for one in known.split(",")):
                return Response(status_code=304, headers=headers), b"", "", {}
            page = self._pages.read(name, wanted, schema, version, place, principal)
            if page.next is not None:
                target = request.url.remove_query_params("cursor").include_query_params(cursor=page.next)
                headers["Link"] = f'<{target.path}?{target.query}>; rel="next"'
            made = writer(form, guard=said.get("csv_guard") == "true")(page.rows.schema)
            pieces = [made.head(), *(made.batch(batch) for batch in page.rows.to_batches())]
            told = {"version": version, "next": page.next}
            return None, b"".join([*pieces, made.tail(told)]), made.media_type, headers

        by_key = any(value.startswith("eq.") for _, value in given)
        made = tried(found) if by_key else None
        done, body, media_type, headers = made if made is not None else await self._run(request, found)
        return done or Response(body, headers=headers, media_type=media_type)

    async def schema(self, request: Request, principal: Principal) -> Response:
        """`GET /api/tables/{table}/schema`."""
        name = table_name(request.path_params["table"])

        def found() -> Any:
            when = self._as_of(request.query_params.get("as_of"), name, principal)
            snapshot, access = self._access(name, principal, when)
            masked = dict(access.columns)
            columns = access.schema(snapshot.metadata.schema)
            return {
                "table": str(name), "version": snapshot.version,
                "columns": [
                    {"name": one.name, "type": str(one.type), "nullable": one.nullable, "comment": one.comment,
                     "masked": masked[one.name] is not None} for one in columns
                ],
                "partition_by": [one for one in snapshot.metadata.partition_columns if one in columns.names],
            }  # fmt: skip

        return _json(await self._run(request, found))

    async def history(self, request: Request, principal: Principal) -> Response:
        """`GET /api/tables/{table}/history`."""
        name = table_name(request.path_params["table"])
        limit = _number(request, "limit", 50, 1, _HISTORY_MAX)
        before = _number(request, "before", (1 << 62) - 1, 0, (1 << 62) - 1)

        def found() -> Any:
            _, access = self._access(name, principal, None)
            self._record(principal, name, "history", access)
            return {"table": str(name), "versions": self._versions(name, before, limit, whole=access.whole)}

        return _json(await self._run(request, found))

    async def stats(self, request: Request, principal: Principal) -> Response:
        """`GET /api/tables/{table}/stats`."""
        name = table_name(request.path_params["table"])
        budget = self._sql.budget(None, 1)

        def found() -> Any:
            when = self._as_of(request.query_params.get("as_of"), name, principal)
            snapshot, access = self._access(name, principal, when)
            columns = access.schema(snapshot.metadata.schema).columns[:_COUNTED_COLUMNS_MAX]
            parts = ["count(*)", *(part for one in columns for part in _figures(one))]
            text = "SELECT " + ", ".join(f"{part} AS f{place}" for place, part in enumerate(parts))
            text += f" FROM {quoted(name.layer)}.{quoted(name.name)}"
            pins = {name: snapshot.version}
            with self._service.ask(text, principal=principal, door=DOOR, as_of=pins, budget=budget) as answer:
                rows, *figures = (column[0] for column in answer.table().to_pydict().values())
            told: dict[str, Any] = {"table": str(name), "version": snapshot.version, "rows": rows}
            if access.whole:
                files = snapshot.files.values()
                told |= {"files": len(files), "size_bytes": sum(file.size for file in files)}
            return told | {"columns": [_told(one, figures, rows) for one in columns]}

        return _json(await self._run(request, found))

    async def _run(self, request: Request, function: Callable[[], T]) -> T:
        found: T = await attended(request, self._threads.run(function), lambda: None)
        return found

    def _as_of(self, text: str | None, name: TableName, principal: Principal) -> int | None:
        return None if text is None else self._sql.version(name, text, principal)

    def _access(self, name: TableName, principal: Principal, version: int | None) -> tuple[Snapshot, TableAccess]:
        """A table as the caller sees it. Raises ProblemError 404 when there is none for them."""
        try:
            found = self._service.access(name, principal)
        except ConfigError as error:
            raise ProblemError(404, error.message, table=str(name), nearest=error.facts.get("nearest")) from None
        return found if version is None else self._service.access(name, principal, version)

    def _versions(self, name: TableName, before: int, limit: int, *, whole: bool) -> list[dict[str, Any]]:
        """The newest versions before one, as far back as the log goes."""
        snapshots = self._service.snapshots
        table, _ = snapshots.pin(name)
        found: list[dict[str, Any]] = []
        for version in sorted((v for v in list_log(snapshots.disk, table.path).commits if v < before), reverse=True):
            if len(found) >= limit:
                break
            try:
                commit = read_commit(snapshots.disk, table.path, version)
            except FileNotFoundError:  # cleaned up meanwhile, and so is all that is older
                break
            moment = dt.datetime.fromtimestamp(commit.timestamp_ms / 1000, dt.UTC).replace(tzinfo=None)
            told: dict[str, Any] = {
                "version": version, "time": f"{moment.isoformat(timespec='milliseconds')}Z",
                "operation": str(commit.info.get("operation", "")),
            }  # fmt: skip
            adds = [add for add in commit.adds if add.data_change]
            gone = [one for one in commit.removes if one.data_change]
            if whole:
                told |= {
                    "rows_added": sum(add.num_records or 0 for add in adds), "files_added": len(adds),
                    "files_removed": len(gone), "bytes_added": sum(add.size for add in adds),
                }  # fmt: skip
            found.append(told)
        return found

    def _record(self, principal: Principal, name: TableName, action: str, access: TableAccess) -> None:
        event = Event(
            principal.name, principal.via, DOOR, action, "allowed", (str(name),), access.policies, access.version
        )
        self._service.authority.record(event)


def _etag(snapshot: Snapshot, access: TableAccess, given: list[tuple[str, str]], form: str, path: str) -> str:
    """Names an answer: the same only for the same rows, seen the same way."""
    told = [snapshot.metadata.id, snapshot.version, access.columns, access.filters, sorted(given), form, path]
    return f'"{hashlib.sha256(repr(told).encode()).hexdigest()[:32]}"'


def _figures(column: Any) -> list[str]:
    name = quoted(column.name)
    found = [f"count(*) - count({name})"]
    if column.type.name in _ORDERED:
        found += [f"approx_count_distinct({name})", f"min({name})", f"max({name})"]
    return found


def _told(column: Any, figures: list[Any], rows: int) -> dict[str, Any]:
    """Takes the figures of one column from the front."""
    told = {"name": column.name, "type": str(column.type), "nulls": figures.pop(0)}
    if column.type.name in _ORDERED:
        distinct, least, most = (figures.pop(0) for _ in range(3))
        told |= {"distinct": min(distinct, rows), "min": plain(least), "max": plain(most)}
    return told


def _number(request: Request, name: str, default: int, least: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 19 or not least <= int(text) <= most:
        raise ProblemError(400, f"{name} is a whole number from {least} to {most}")
    return int(text)


def _json(value: Any) -> Response:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Response(text, media_type="application/json")
