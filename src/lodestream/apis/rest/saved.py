"""Saved queries as endpoints: declared in `queries/*.sql`, or saved while the server runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from lodestream.apis.asked import Asked, body, body_of, format_of
from lodestream.apis.problems import ProblemError
from lodestream.apis.rest.asking import Began, respond
from lodestream.apis.rest.shapes import ROWS, TEXT, VERSIONS_HEADER, contents, in_json
from lodestream.apis.rest.sql import DOOR, SqlApi, writer
from lodestream.apis.rest.values import value_of
from lodestream.apis.routing import Endpoint, Parameter, Reply
from lodestream.apis.threads import Threads
from lodestream.catalog import queries, store
from lodestream.catalog.catalog import Catalog
from lodestream.errors import AccessError, ConfigError
from lodestream.model.access import Principal
from lodestream.model.query import KINDS, NAME, RESERVED, QueryParameter, SavedQuery, problems
from lodestream.model.table import TableName
from lodestream.ports.authority import Event
from lodestream.query.answer import Answer
from lodestream.query.guard import TEXT_BYTES_MAX, parse
from lodestream.query.service import QueryService

_MISSING = "no such query"
_NAME = Parameter("name", "path", "Name of the query.", {"type": "string", "pattern": f"^{NAME.pattern}$"})
_FORMATS = {"type": "string", "enum": ["json", "ndjson", "csv", "arrow", "parquet"]}
_HOW = (
    Parameter("format", description="Instead of the `Accept` header.", schema=_FORMATS),
    Parameter("rows_max", description="Rows after which it is cut.", schema={"type": "integer", "minimum": 1}),
    Parameter("csv_guard", schema={"type": "boolean"}, description="Keep spreadsheets from running texts as formulas."),
)
_SHAPE: dict[str, Any] = {
    "type": "object", "required": ["name", "title", "description", "sql", "parameters"],
    "properties": {
        "name": TEXT, "title": TEXT, "description": TEXT, "sql": TEXT, "file": {"type": ["string", "null"]},
        "who": {"type": ["string", "null"]},
        "parameters": {"type": "array", "items": {
            "type": "object", "required": ["name", "type", "default", "description"],
            "properties": {"name": TEXT, "type": TEXT, "default": {"type": ["string", "null"]}, "description": TEXT},
        }},
    },
}  # fmt: skip
_LISTED = {
    "type": "object", "required": ["queries"], "properties": {"queries": {"type": "array", "items": _SHAPE}},
}  # fmt: skip
_JSON_KINDS = {
    **dict.fromkeys(("tinyint", "smallint", "int", "bigint"), "integer"), "float": "number", "double": "number",
    "boolean": "boolean",
}  # fmt: skip


class ParameterAsked(Asked):
    """What a query takes."""

    type: str = Field(default="string", pattern=rf"^({'|'.join(KINDS)})(\(\d+(,\d+)?\))?$")
    """Name of a type."""
    default: str | None = Field(default=None, max_length=1000)
    """Text of the value when none is given; null when one has to be."""
    description: str = Field(default="", max_length=1000)
    """What it means."""


class QueryAsked(Asked):
    """A query to save."""

    sql: str = Field(min_length=1, max_length=TEXT_BYTES_MAX)
    """With `$name` for parameters."""
    title: str = Field(default="", max_length=200)
    """What it gives, in a few words."""
    description: str = Field(default="", max_length=4000)
    """More of that."""
    parameters: dict[str, ParameterAsked] = Field(default={}, max_length=50)
    """All that it takes."""


class SavedApi:
    """Saved queries. Who asks one asks as themselves; who may not know of a table knows of no query over it.

    Args:
        service: the read path.
        threads: for what blocks.
        sql: knows budgets.
        catalog: keeps those that are saved at run time.
        declared: those of the project as they are now.
    """

    def __init__(
        self, service: QueryService, threads: Threads, sql: SqlApi, catalog: Catalog,
        declared: Callable[[], Mapping[str, SavedQuery]],
    ) -> None:  # fmt: skip
        self._service, self._threads, self._sql = service, threads, sql
        self._catalog, self._declared = catalog, declared

    def endpoints(self) -> tuple[Endpoint, ...]:
        """What can be asked."""
        return (
            Endpoint(
                "GET", "/api/queries", self.listed, "query:*", "Saved queries that you may ask.", tag="queries",
                answers={200: Reply("They.", in_json(_LISTED))}, problems=(503,),
            ),
            self._endpoint("/api/queries/{name}", "Ask a saved query.", (_NAME, *_HOW), stands_for=self._documented),
            Endpoint(
                "PUT", "/api/queries/{name}", self.save, "admin:*", "Save a query.", (_NAME,),
                body(QueryAsked, "QueryToSave"), {200: Reply("It is saved.", in_json(_SHAPE))}, (404, 409, 503),
                "queries",
            ),
            Endpoint(
                "DELETE", "/api/queries/{name}", self.drop, "admin:*", "Forget a query that was saved.", (_NAME,),
                answers={204: Reply("It is forgotten.")}, problems=(404, 409, 503), tag="queries",
            ),
        )  # fmt: skip

    async def listed(self, _request: Request, principal: Principal) -> Response:
        """`GET /api/queries`."""
        found = await self._threads.run(lambda: self._visible(principal))
        return _json({"queries": [_told(one) for one in found]})

    async def ask(self, request: Request, principal: Principal) -> Response:
        """`GET /api/queries/{name}`."""
        given = dict(request.query_params)
        form = format_of(request, given.pop("format", None))
        rows_max = _rows_max(given.pop("rows_max", None))
        guard = given.pop("csv_guard", "false") == "true"
        name = _name_of(request)
        budget = self._sql.budget(None, rows_max)

        def start(began: Began) -> Answer:
            query = next((one for one in self._visible(principal, name)), None)
            if query is None:
                raise ProblemError(404, _MISSING, query=name)
            values = [_value(parameter, given) for parameter in query.parameters]
            if unknown := given.keys() - {parameter.name for parameter in query.parameters}:
                raise ProblemError(400, "the query has no such parameter", parameter=min(unknown)[:100])
            return self._service.ask(
                query.positional(), principal=principal, door=DOOR, parameters=values, budget=budget, began=began
            )

        return await respond(self._threads, request, start, writer(form, guard=guard))

    async def save(self, request: Request, principal: Principal) -> Response:
        """`PUT /api/queries/{name}`."""
        asked, name = await body_of(request, QueryAsked), _name_of(request)
        parameters = tuple(
            QueryParameter(key, one.type, one.default, one.description) for key, one in asked.parameters.items()
        )
        query = SavedQuery(name, asked.sql, parameters, asked.title, asked.description, who=principal.name)

        def keep() -> None:
            self._check_change(principal, name)
            for wrong, what, _ in problems(query.sql, asked.parameters):
                raise ProblemError(400, wrong, parameter=what)
            for parameter in parameters:
                if not NAME.fullmatch(parameter.name) or parameter.name in RESERVED:
                    raise ProblemError(400, "not a parameter name", parameter=parameter.name[:100])
                if parameter.default is not None:
                    value_of(parameter.default, parameter.type, parameter.name)
            self._service.describe(query.positional(), principal=principal, door=DOOR)
            with self._catalog.changing(self._event(principal, "save query", name)) as (rows, at):
                store.put(rows, queries.entry(query, at))

        await self._threads.run(keep)
        return _json(_told(query))

    async def drop(self, request: Request, principal: Principal) -> Response:
        """`DELETE /api/queries/{name}`."""
        name = _name_of(request)

        def forget() -> None:
            self._check_change(principal, name)
            with self._catalog.changing(self._event(principal, "drop query", name)) as (rows, _):
                if not store.drop(rows, "query", name):
                    raise ProblemError(404, _MISSING, query=name)

        await self._threads.run(forget)
        return Response(status_code=204)

    def _check_change(self, principal: Principal, name: str) -> None:
        """Raises AccessError, or ProblemError 409 for one that a file declares."""
        if not self._catalog.holds(principal, "manage"):
            raise AccessError("saving queries needs manage on the whole catalog")
        if name in self._declared():
            raise ProblemError(409, "a file of the project declares this query; change it there", query=name)

    def _event(self, principal: Principal, action: str, name: str) -> Event:
        return Event(principal.name, principal.via, DOOR, action, "allowed", (f"query {name}",))

    def _visible(self, principal: Principal, name: str | None = None) -> list[SavedQuery]:
        """Queries all of whose tables somebody may know of; of one name. Blocks."""
        kept = queries.saved_queries(self._catalog, self._declared())
        if name is not None:
            kept = {name: kept[name]} if name in kept else {}
        return [one for _, one in sorted(kept.items()) if self._may_know(principal, one)]

    def _may_know(self, principal: Principal, query: SavedQuery) -> bool:
        try:
            reads = parse(query.positional(), self._service.catalog).tables
        except (ConfigError, AccessError):
            return principal.is_owner  # who can mend it may see it
        names = {TableName(one.layer, one.name) for one in reads}
        return len(self._service.authority.visible(principal, names)) == len(names)

    def _documented(self, principal: Principal) -> Iterable[Endpoint]:
        """The endpoint itself, and one for each query, with its parameters."""
        yield self._endpoint("/api/queries/{name}", "Ask a saved query.", (_NAME, *_HOW))
        for query in self._visible(principal):
            given = tuple(
                Parameter(
                    one.name, description=one.description or f"{one.type}.", required=one.default is None,
                    schema={"type": _JSON_KINDS.get(one.type, "string")},
                )
                for one in query.parameters
            )  # fmt: skip
            title = query.title or f"Ask {query.name}."
            yield self._endpoint(f"/api/queries/{query.name}", title, (*given, *_HOW), description=query.description)

    def _endpoint(self, path: str, summary: str, parameters: tuple[Parameter, ...], **more: Any) -> Endpoint:
        return Endpoint(
            "GET", path, self.ask, "query:*", summary, parameters, tag="queries", problems=(404, 406, 410, 503),
            answers={200: Reply("The rows.", contents(ROWS), VERSIONS_HEADER)}, **more,
        )  # fmt: skip


def _name_of(request: Request) -> str:
    name: str = request.path_params["name"]
    if not NAME.fullmatch(name):
        raise ProblemError(404, _MISSING, query=name[:100])
    return name


def _rows_max(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 15 or not int(text):
        raise ProblemError(400, "rows_max is a whole number from 1")
    return int(text)


def _value(parameter: QueryParameter, given: Mapping[str, str]) -> object:
    text = given.get(parameter.name, parameter.default)
    if text is None:
        raise ProblemError(400, "the query needs this parameter", parameter=parameter.name)
    return value_of(text, parameter.type, parameter.name)


def _told(query: SavedQuery) -> dict[str, Any]:
    return {
        "name": query.name, "title": query.title, "description": query.description, "sql": query.sql,
        "file": query.origin or None, "who": query.who or None,
        "parameters": [
            {"name": one.name, "type": one.type, "default": one.default, "description": one.description}
            for one in query.parameters
        ],
    }  # fmt: skip


def _json(value: Any) -> Response:
    return Response(json.dumps(value, ensure_ascii=False), media_type="application/json")
