"""SQL over HTTP: `POST /api/sql` and `POST /api/sql/describe`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from lodestream.apis.asked import Asked, body, body_of, format_of
from lodestream.apis.problems import ProblemError
from lodestream.apis.rest.asking import Began, respond
from lodestream.apis.rest.shapes import COLUMNS, ROWS, VERSIONS_HEADER, contents
from lodestream.apis.rest.values import KINDS, time_us, value_of
from lodestream.apis.routing import Endpoint, Reply
from lodestream.apis.rows import WRITERS, CsvWriter, Writer, type_name
from lodestream.apis.threads import Threads, attended
from lodestream.model.access import Principal
from lodestream.model.table import TableName
from lodestream.model.types import Schema
from lodestream.project.serving import ApiSettings
from lodestream.project.values import parse_duration
from lodestream.query.answer import Answer
from lodestream.query.guard import TEXT_BYTES_MAX, parse
from lodestream.query.parameters import parameter_types
from lodestream.query.service import Budget, QueryService

DOOR = "rest"
_PARAMETERS_MAX = 1000


class TypedValue(Asked):
    """A parameter whose type is said."""

    type: str = Field(pattern=rf"^({'|'.join(KINDS)})(\(\d+(,\d+)?\))?$")
    """Name of a type, such as `date` or `decimal(12,2)`."""
    value: str | None
    """The value as text; null for NULL."""


Given = Annotated[str | bool | int | float | TypedValue | None, Field(union_mode="left_to_right")]


class Question(Asked):
    """A query."""

    sql: str = Field(min_length=1, max_length=TEXT_BYTES_MAX)
    """DuckDB's SQL over `layer.name`."""
    parameters: tuple[Given, ...] = Field(default=(), max_length=_PARAMETERS_MAX, strict=False)
    """Values of `$1`, `$2`, … or of each `?`."""
    as_of: int | str | dict[str, int | str] | None = None
    """A version by table, or a time by table, or one time for all: what the tables held then."""
    format: Literal["json", "ndjson", "csv", "arrow", "parquet"] | None = None
    """Instead of the `Accept` header."""
    time_s: float | None = Field(default=None, gt=0)
    """Seconds that it may take until its last row."""
    rows_max: int | None = Field(default=None, ge=1, le=1 << 53)
    """Rows after which the answer is cut; `truncated` says whether it was."""
    csv_guard: bool = False
    """In CSV, put `'` before texts that a spreadsheet would take for a formula."""


class Described(Asked):
    """A query that is only to be described."""

    sql: str = Field(min_length=1, max_length=TEXT_BYTES_MAX)
    """DuckDB's SQL over `layer.name`."""


class SqlApi:
    """SQL for whoever may read.

    Args:
        service: the read path.
        threads: for what blocks.
        settings: bounds.
        catalog: name that may stand before the layer.
    """

    def __init__(self, service: QueryService, threads: Threads, settings: ApiSettings, catalog: str) -> None:
        self._service, self._threads = service, threads
        self._catalog = catalog.lower()
        self._time_max_s = parse_duration(settings.time_max) / 1e6

    def endpoints(self) -> tuple[Endpoint, ...]:
        """What can be asked."""
        described = {
            "type": "object", "required": ["columns", "parameters"],
            "properties": {
                "columns": COLUMNS,
                "parameters": {"type": "array", "items": {"type": ["string", "null"]}},
            },
        }  # fmt: skip
        return (
            Endpoint(
                "POST", "/api/sql", self.ask, "query:*", "Ask in SQL.", body=body(Question, "Question"), tag="sql",
                answers={200: Reply("The rows.", contents(ROWS), VERSIONS_HEADER)}, problems=(404, 406, 410, 503),
                description="The answer is sent as it is made. A client that leaves ends the query.",
            ),
            Endpoint(
                "POST", "/api/sql/describe", self.describe, "query:*", "Columns and parameters of a query.",
                body=body(Described, "DescribedQuestion"), tag="sql", problems=(503,),
                answers={200: Reply("What it would give.", {"application/json": described})},
            ),
        )  # fmt: skip

    async def ask(self, request: Request, principal: Principal) -> Response:
        """`POST /api/sql`."""
        question = await body_of(request, Question)
        form = format_of(request, question.format)
        budget = self.budget(question.time_s, question.rows_max)

        def start(began: Began) -> Answer:
            as_of = self.as_of(question.sql, question.as_of, principal)
            given = self.given(question.sql, question.parameters, principal)
            return self._service.ask(
                question.sql, principal=principal, door=DOOR, parameters=given, as_of=as_of, budget=budget,
                began=began,
            )  # fmt: skip

        return await respond(self._threads, request, start, writer(form, guard=question.csv_guard))

    async def describe(self, request: Request, principal: Principal) -> Response:
        """`POST /api/sql/describe`."""
        question = await body_of(request, Described)

        def start() -> Any:
            return self._service.describe(question.sql, principal=principal, door=DOOR)

        found = await attended(request, self._threads.run(start), lambda: None)
        columns = [{"name": field.name, "type": type_name(field.type)} for field in found.schema]
        told = {"columns": columns, "parameters": list(found.parameters)}
        return Response(json.dumps(told), media_type="application/json")

    def budget(self, time_s: float | None, rows_max: int | None) -> Budget:
        """What a query may take. Raises ProblemError 400 when more time is asked for than may be."""
        if time_s is not None and time_s > self._time_max_s:
            raise ProblemError(400, f"time_s is at most {self._time_max_s:g}; see server.api.time_max")
        return replace(self._service.budget, time_s=time_s or self._service.budget.time_s, rows_max=rows_max)

    def as_of(
        self, sql: str, asked: int | str | Mapping[str, int | str] | None, principal: Principal
    ) -> dict[TableName, int] | None:
        """The versions to read; blocks.

        Raises:
            ProblemError: 400 it cannot be read.
            ConfigError: there is no such table for the caller, or it was not there then.
        """
        if asked is None:
            return None
        if isinstance(asked, int):
            raise ProblemError(400, 'as_of takes a time, or versions by table: {"gold.name": 12}')
        if isinstance(asked, Mapping):
            return {table_name(name): self.version(table_name(name), when, principal) for name, when in asked.items()}
        names = {TableName(one.layer, one.name) for one in parse(sql, self._catalog).tables if one.version is None}
        return {name: self.version(name, asked, principal) for name in names}

    def version(self, name: TableName, when: int | str, principal: Principal) -> int:
        """The version of a table that `as_of` means; blocks. Raises as `as_of` does."""
        if isinstance(when, int) or when.isdecimal():
            version = int(when)
            if not 0 <= version < 1 << 62:
                raise ProblemError(400, "a version is a whole number from 0")
            return version
        moment = time_us(when, "as_of")
        self._service.access(name, principal)  # who may not know of it learns nothing about its versions
        return self._service.snapshots.version_at(name, moment)

    def given(self, sql: str, parameters: Sequence[Given], principal: Principal) -> list[object]:
        """Parameters as values; texts become what they are compared with. Blocks."""
        if not any(isinstance(one, str | TypedValue) for one in parameters):
            return list(parameters)
        kinds: Sequence[str | None] = ()
        if any(isinstance(one, str) for one in parameters):
            statement = parse(sql, self._catalog)
            schemas: dict[str, Schema] = {}
            for read in statement.tables:
                schemas[str(read)] = self._service.schema(TableName(read.layer, read.name), principal, read.version)
            kinds = parameter_types(statement, schemas)
        return [
            _value(one, kinds[place] if place < len(kinds) else None, place) for place, one in enumerate(parameters)
        ]


def _value(given: Given, kind: str | None, place: int) -> object:
    """A parameter; `kind` is the type that its place in the query has, as far as it is known."""
    if isinstance(given, TypedValue):
        return None if given.value is None else value_of(given.value, given.type, f"${place + 1}")
    if isinstance(given, str) and kind is not None and kind.partition("(")[0] in KINDS:
        return value_of(given, kind, f"${place + 1}")
    return given


def writer(form: str, *, guard: bool = False) -> Any:
    """Makes the writer of a format for a schema."""

    def make(schema: Any) -> Writer:
        return CsvWriter(schema, guard=guard) if form == "csv" else WRITERS[form](schema)

    return make


def table_name(text: str) -> TableName:
    """A table by its name in a request. Raises ProblemError 404: what has no such name is not there."""
    try:
        return TableName.parse(text.lower())
    except ValueError:
        raise ProblemError(404, "no such table in the lake", table=text[:100]) from None
