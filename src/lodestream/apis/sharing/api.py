"""What is answered to clients of Delta Sharing, and the data files that they then read."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any, Protocol, TypeVar

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from lodestream.apis.asked import Asked, body_of
from lodestream.apis.problems import ProblemError
from lodestream.apis.sharing import hints
from lodestream.apis.sharing.lines import CAPABILITIES, Format, Lines, format_of
from lodestream.apis.sharing.links import SIGNATURE, Link, Links
from lodestream.apis.sharing.shares import Shared, Shares
from lodestream.apis.streamed import Streamed
from lodestream.apis.threads import Threads, attended
from lodestream.lake.actions import PASSED_OVER, AddFile, Commit
from lodestream.model.access import Principal
from lodestream.model.table import TableName
from lodestream.query.pruning import Pruner

T = TypeVar("T")
ROOT = "/delta-sharing"
FILES = f"{ROOT}/files"
VERSION = "delta-table-version"
_NDJSON = "application/x-ndjson; charset=utf-8"
_PAGE_MAX = 500
_PIECE_LINES = 1_000
_THREADS = 16
_DIGITS_MAX = 18
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Question(Asked):
    """What is asked of a table; what is not known is passed over, as the protocol has it."""

    model_config = ConfigDict(extra="ignore", alias_generator=to_camel)

    predicate_hints: list[str] | None = None
    """Conditions in SQL that all hold of the rows that are wanted; files without such rows may be left out."""
    json_predicate_hints: str | None = None
    """The same in the protocol's JSON form."""
    limit_hint: int | None = Field(None, ge=0)
    """So many rows are enough."""
    version: int | None = Field(None, ge=0)
    """Of the table, instead of the newest."""
    timestamp: str | None = None
    """ISO 8601: the version that was there then."""
    starting_version: int | None = None
    """Refused: `GET …/changes` gives changes."""


class Desk(Protocol):
    """What is needed of the gate."""

    def secure(self, request: Request) -> bool:
        """Whether the client came by TLS."""

    def current(self, principal: Principal) -> Principal | None:
        """A principal as they are now; None when they may not stay."""


class SharingApi:
    """The handlers of the endpoints.

    Args:
        shares: what there is for somebody.
        gate: tells who somebody is now.
        links: makes addresses of files.
    """

    def __init__(self, shares: Shares, gate: Desk, links: Links) -> None:
        self._shares, self._gate, self._links = shares, gate, links
        self._threads, self._pruner = Threads(_THREADS), Pruner()

    def close(self) -> None:
        """Start nothing more."""
        self._threads.close()

    async def shares(self, request: Request, principal: Principal) -> Response:
        """`GET /shares`."""
        share = {"name": self._shares.share}
        return await self._listed(request, principal, lambda tables: [share] if tables else [])

    async def share(self, request: Request, _principal: Principal) -> Response:
        """`GET /shares/{share}`."""
        self._shares.check(request.path_params["share"])
        return _json({"share": {"name": self._shares.share}})

    async def schemas(self, request: Request, principal: Principal) -> Response:
        """`GET /shares/{share}/schemas`."""
        self._shares.check(request.path_params["share"])

        def layers(tables: Sequence[TableName]) -> list[dict[str, str]]:
            return [{"name": one, "share": self._shares.share} for one in {table.layer for table in tables}]

        return await self._listed(request, principal, layers)

    async def tables(self, request: Request, principal: Principal) -> Response:
        """`GET /shares/{share}/schemas/{schema}/tables`."""
        self._shares.check(request.path_params["share"])
        layer = request.path_params["schema"].lower()
        return await self._listed(request, principal, lambda tables: self._named(t for t in tables if t.layer == layer))

    async def all_tables(self, request: Request, principal: Principal) -> Response:
        """`GET /shares/{share}/all-tables`."""
        self._shares.check(request.path_params["share"])
        return await self._listed(request, principal, self._named)

    async def version(self, request: Request, principal: Principal) -> Response:
        """`GET …/version`."""
        name, since = self._shares.name(request.path_params), request.query_params.get("startingTimestamp")

        def found() -> int:
            shared = self._shares.open(name, principal)
            return shared.snapshot.version if since is None else self._since(shared, since)

        return Response(headers={VERSION: str(await self._run(request, found))})

    async def metadata(self, request: Request, principal: Principal) -> Response:
        """`GET …/metadata`."""
        name, form = self._shares.name(request.path_params), format_of(request.headers.get(CAPABILITIES))

        def found() -> tuple[Shared, Iterator[bytes]]:
            shared = self._shares.open(name, principal)
            return shared, iter(self._lines(request, name, principal, form).head(shared.snapshot))

        return self._answer(form, *await self._run(request, found))

    async def query(self, request: Request, principal: Principal) -> Response:
        """`POST …/query`."""
        name, form = self._shares.name(request.path_params), format_of(request.headers.get(CAPABILITIES))
        asked = await body_of(request, Question)
        if asked.starting_version is not None:
            raise ProblemError(400, "ask for changes with GET …/changes?startingVersion=…")
        if asked.version is not None and asked.timestamp is not None:
            raise ProblemError(400, "give version or timestamp, not both")

        def found() -> tuple[Shared, Iterator[bytes]]:
            version = asked.version
            if asked.timestamp is not None:
                self._shares.open(name, principal)  # who may not have it learns nothing about its versions
                version = self._shares.version_at(name, _time_us(asked.timestamp, "timestamp"))
            shared = self._shares.open(name, principal, version)
            adds = self._wanted(shared, asked)
            self._shares.record(shared, principal, "read", len(adds))
            lines = self._lines(request, name, principal, form)
            return shared, chain(lines.head(shared.snapshot), lines.files(adds))

        return self._answer(form, *await self._run(request, found))

    async def changes(self, request: Request, principal: Principal) -> Response:
        """`GET …/changes`."""
        name, form = self._shares.name(request.path_params), format_of(request.headers.get(CAPABILITIES))
        given = request.query_params
        first, last = (_number(given.get(one), one) for one in ("startingVersion", "endingVersion"))
        since, until = given.get("startingTimestamp"), given.get("endingTimestamp")
        if (first is None) == (since is None) or None not in (last, until):
            raise ProblemError(400, "give a first version or time, and at most one for the last")

        def found() -> tuple[Shared, Iterator[bytes]]:
            newest = self._shares.open(name, principal)
            begin = self._since(newest, since) if since is not None else first or 0
            end = last if until is None else self._shares.version_at(name, _time_us(until, "endingTimestamp"))
            end = newest.snapshot.version if end is None else min(end, newest.snapshot.version)
            if begin > end:
                raise ProblemError(400, f"there are no versions from {begin} to {end}")
            shared = self._shares.open(name, principal, begin)
            commits = list(self._commits(shared, begin, end))
            self._shares.record(shared, principal, "changes", sum(len(one.adds) + len(one.removes) for one in commits))
            lines = self._lines(request, name, principal, form)
            return shared, chain(lines.head(shared.snapshot, feed=True), lines.changes(commits))

        return self._answer(form, *await self._run(request, found))

    async def file(self, request: Request, _nobody: Principal) -> Response:
        """`GET /files/{ticket}`: looked up again are who has the address, and whether they may still have the file."""
        link = self._links.read(request.path_params["ticket"], request.query_params.get(SIGNATURE, ""))
        principal = self._gate.current(link.principal)
        if principal is None:
            raise ProblemError(403, "whoever was given this address may not come in any more")

        def found() -> tuple[str, os.stat_result]:
            self._shares.open(link.table, principal)
            try:
                copy = self._shares.copy(link.table, link.path)
                return copy, os.stat(copy)
            except FileNotFoundError:
                raise ProblemError(404, "the file is not there any more; query the table again") from None

        copy, told = await self._run(request, found)
        return FileResponse(copy, media_type="application/vnd.apache.parquet", stat_result=told)

    async def _run(self, request: Request, function: Callable[[], T]) -> T:
        found: T = await attended(request, self._threads.run(function), lambda: None)
        return found

    async def _listed(
        self, request: Request, principal: Principal, make: Callable[[Sequence[TableName]], list[dict[str, str]]]
    ) -> Response:
        """A page of a list: in the order of the alphabet, so that the last item says where the next one begins."""
        most = _number(request.query_params.get("maxResults"), "maxResults")
        after = _after(request.query_params.get("pageToken"))
        items = await self._run(request, lambda: make(self._shares.tables(principal)))
        items = sorted((one for one in items if _key(one) > after), key=_key)
        shown = items[: _PAGE_MAX if most is None else min(most, _PAGE_MAX)]
        told: dict[str, Any] = {"items": shown}
        if len(shown) < len(items):
            last = _key(shown[-1]) if shown else after
            told["nextPageToken"] = base64.urlsafe_b64encode(json.dumps(last).encode()).decode()
        return _json(told)

    def _named(self, tables: Iterable[TableName]) -> list[dict[str, str]]:
        return [{"name": one.name, "schema": one.layer, "share": self._shares.share} for one in tables]

    def _since(self, shared: Shared, text: str) -> int:
        """The first version that is not older than a time. Raises ProblemError 400 when there is none."""
        found = self._shares.first_since(shared.name, _time_us(text, "startingTimestamp"))
        if found > shared.snapshot.version:
            raise ProblemError(400, "there has been no version since startingTimestamp")
        return found

    def _wanted(self, shared: Shared, asked: Question) -> Sequence[AddFile]:
        """The files that are given, by path; with hints a limit does not count, as clients filter rows after it."""
        told = [hints.of_json(asked.json_predicate_hints)] if asked.json_predicate_hints else []
        if asked.predicate_hints:
            told.append(hints.of_sql(asked.predicate_hints, shared.snapshot.metadata.schema))
        files: Mapping[str, AddFile] = shared.snapshot.files
        for one in told:
            kept = self._pruner.kept(shared.snapshot, one)
            files = files if kept is None else {add.path: files[add.path] for add in kept if add.path in files}
        adds = sorted(files.values(), key=lambda add: add.path)
        return adds if asked.limit_hint is None or told else hints.first_rows(adds, asked.limit_hint)

    def _commits(self, shared: Shared, first: int, last: int) -> Iterator[Commit]:
        """Versions, whose columns are all those of the first; rows that retention or erasure took out stay untold."""
        told = shared.snapshot.metadata
        for commit in self._shares.commits(shared.name, first, last):
            meta = commit.metadata or told
            if (meta.schema, meta.partition_columns) != (told.schema, told.partition_columns):
                at = commit.version
                raise ProblemError(
                    400, f"version {at} changed the table's columns; read the table there, and its changes from "
                    f"{at + 1} on, or those before it with endingVersion={at - 1}",
                )  # fmt: skip
            passed_over = commit.info.get("operation") in PASSED_OVER
            yield replace(commit, removes=()) if passed_over else commit

    def _lines(self, request: Request, name: TableName, principal: Principal, form: Format) -> Lines:
        scheme = "https" if self._gate.secure(request) else "http"
        root = f"{scheme}://{request.headers.get('host') or request.url.netloc}{FILES}/"
        until_us = self._links.until_us(principal)
        return Lines(form, lambda path: root + self._links.write(Link(name, path, principal, until_us)), until_us)

    def _answer(self, form: Format, shared: Shared, lines: Iterator[bytes]) -> Response:
        headers = {VERSION: str(shared.snapshot.version), CAPABILITIES: f"responseformat={form}"}
        return Streamed(self._pieces(lines), _NDJSON, headers)

    async def _pieces(self, lines: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
        while piece := await self._threads.run(lambda: b"".join(islice(lines, _PIECE_LINES))):
            yield piece


def _key(item: dict[str, str]) -> list[str]:
    return [item.get("schema", ""), item["name"]]


def _after(token: str | None) -> list[str]:
    """The item that a page token says the page before ended with. Raises ProblemError 400 for no such token."""
    if not token:
        return []
    try:
        told = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, binascii.Error):
        told = None
    if not isinstance(told, list) or not all(isinstance(one, str) for one in told):
        raise ProblemError(400, "no page has this pageToken; begin without one")
    return told


def _number(text: str | None, name: str) -> int | None:
    """A whole number from 0. Raises ProblemError 400."""
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS_MAX:
        raise ProblemError(400, f"{name} is a whole number from 0")
    return int(text)


def _time_us(text: str, name: str) -> int:
    """Microseconds since 1970 of an ISO 8601 time, in UTC when it names no zone. Raises ProblemError 400."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ProblemError(400, f"{name} is a time such as 2026-01-31T09:00:00Z") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return (moment - _EPOCH) // dt.timedelta(microseconds=1)


def _json(told: Any) -> Response:
    return Response(json.dumps(told, ensure_ascii=False), media_type="application/json")
