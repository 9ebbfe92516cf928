"""The Delta Sharing protocol as a part of the HTTP server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from lodestream.apis.asked import body
from lodestream.apis.routing import PUBLIC, Body, Component, Endpoint, Handler, Parameter, Part, Reply, Shape
from lodestream.apis.secrets import secret_of
from lodestream.apis.sharing.api import FILES, ROOT, VERSION, Desk, Question, SharingApi
from lodestream.apis.sharing.lines import CAPABILITIES
from lodestream.apis.sharing.links import SIGNATURE, Links
from lodestream.apis.sharing.refusals import REFUSALS
from lodestream.apis.sharing.shares import Shares
from lodestream.lake.layout import sharing_path
from lodestream.query.service import QueryService

_SHARE, _TABLE = "/shares/{share}", "/shares/{share}/schemas/{schema}/tables/{table}"
_WHOLE: dict[str, Any] = {"type": "integer", "minimum": 0}
_TEXT: dict[str, Any] = {"type": "string"}
_PARQUET = "application/vnd.apache.parquet"
_PAGED = (
    Parameter("maxResults", description="At most so many.", schema=_WHOLE),
    Parameter("pageToken", description="`nextPageToken` of the page before."),
)
_CAPABLE = Parameter(CAPABILITIES, "header", "`responseformat=delta` for actions of a Delta log, else Parquet files.")
_SINCE = Parameter("startingTimestamp", description="ISO 8601: begin with the first version that is not older.")
_CHANGES = (
    Parameter("startingVersion", description="The first version.", schema=_WHOLE), _SINCE,
    Parameter("endingVersion", description="The last one; without, the newest.", schema=_WHOLE),
    Parameter("endingTimestamp", description="ISO 8601: the last version that is not newer."), _CAPABLE,
)  # fmt: skip


def sharing_part(service: QueryService, gate: Desk, project: str, clock: Callable[[], int]) -> Part:
    """Shares, tables, their versions and changes, and the data files themselves.

    Args:
        service: the read path.
        gate: tells who somebody is now.
        project: its name, which is that of the one share.
        clock: microseconds since 1970 UTC.
    """
    links = Links(secret_of(sharing_path(service.disk.beside(service.lake))), clock)
    api = SharingApi(Shares(service, project), gate, links)

    @contextlib.asynccontextmanager
    async def running() -> AsyncIterator[None]:
        try:
            yield
        finally:
            api.close()

    return Part((*_lists(api), *_tables(api), *_files(api)), running)


def _lists(api: SharingApi) -> Iterator[Endpoint]:
    share = {"type": "object", "required": ["share"], "properties": {"share": _object("name")}}
    tables = _page("SharedTables", "name", "schema", "share")
    for path, handler, shape, summary in (
        ("/shares", api.shares, _page("Shares", "name"), "The project, when you can have a table of it."),
        (f"{_SHARE}/schemas", api.schemas, _page("Schemas", "name", "share"), "Layers with tables that you can have."),
        (f"{_SHARE}/schemas/{{schema}}/tables", api.tables, tables, "Tables of a layer that you can have."),
        (f"{_SHARE}/all-tables", api.all_tables, tables, "Tables of all layers that you can have."),
    ):
        yield _endpoint("GET", path, handler, summary, Reply("They.", {"application/json": shape}), _PAGED)
    found = Reply("It.", {"application/json": Component("Share", share)})
    yield _endpoint("GET", _SHARE, api.share, "The project as a share.", found)


def _tables(api: SharingApi) -> Iterator[Endpoint]:
    version = {VERSION: "The version."}
    lines = Reply("A JSON object a line.", {"application/x-ndjson": _TEXT},
                  version | {CAPABILITIES: "The format of the answer."})  # fmt: skip
    yield _endpoint(
        "GET", f"{_TABLE}/version", api.version, "The version of a table.", Reply("It is in the header.", {}, version),
        (_SINCE,),
    )  # fmt: skip
    yield _endpoint("GET", f"{_TABLE}/metadata", api.metadata, "Protocol and metadata of a table.", lines, (_CAPABLE,))
    yield _endpoint(
        "POST", f"{_TABLE}/query", api.query, "The data files of a table, with addresses.", lines, (_CAPABLE,),
        body(Question, "SharingQuestion"),
    )  # fmt: skip
    yield _endpoint(
        "GET", f"{_TABLE}/changes", api.changes, "The data files that versions added and took away.", lines, _CHANGES
    )  # fmt: skip


def _files(api: SharingApi) -> Iterator[Endpoint]:
    answers = {
        200: Reply("The file.", {_PARQUET: None}), 206: Reply("A range of it.", {_PARQUET: None}),
        416: Reply("The file does not reach so far.", {"text/plain": _TEXT}),
    }  # fmt: skip
    signed = (Parameter(SIGNATURE, description="As it was given.", required=True),)
    for method in ("GET", "HEAD"):
        yield Endpoint(
            method, f"{FILES}/{{ticket}}", api.file, PUBLIC, "A data file, by an address that was given.", signed,
            answers=answers, problems=(404, 503), tag="sharing", refusals=REFUSALS,
            description="Addresses come from `query` and `changes`. One is good for an hour, for one file, and only as "
            "long as whoever was given it may read the whole table.",
        )  # fmt: skip


def _endpoint(
    method: str, path: str, handler: Handler, summary: str, answer: Reply, parameters: tuple[Parameter, ...] = (),
    asked: Body | None = None,
) -> Endpoint:  # fmt: skip
    problems = (404, 410, 503) if "{table}" in path else (404, 503)
    return Endpoint(
        method, f"{ROOT}{path}", handler, "query:*", summary, parameters, asked, {200: answer}, problems, "sharing",
        refusals=REFUSALS,
    )  # fmt: skip


def _page(name: str, *names: str) -> Shape:
    items = {"type": "array", "items": _object(*names)}
    told = {"type": "object", "required": ["items"], "properties": {"items": items, "nextPageToken": _TEXT}}
    return Component(name, told)


def _object(*names: str) -> dict[str, Any]:
    return {"type": "object", "required": [*names], "properties": dict.fromkeys(names, _TEXT)}
