"""Answers of dashboards: one query a panel, version and way of seeing, however many people look."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from lodestream.errors import ConfigError, LodestreamError
from lodestream.model.access import Principal, TableAccess
from lodestream.model.live import LiveLake
from lodestream.model.table import TableName
from lodestream.ports.authority import Event
from lodestream.project.dashboards import Dashboard, Panel
from lodestream.query.guard import parse
from lodestream.query.job import Budget
from lodestream.query.service import QueryService

ROWS_MAX = 2_000
"""Rows of one panel; a dashboard that needs more shows too much."""
_TIME_S = 20.0
_KEPT = 128
_PERSONAL = ("current_user", "session_user", "is_member", "attribute")
"""Functions whose answer depends on who asks, beyond what policies do."""
_PASSING = ("now", "current_", "today", "random", "uuid")
"""What makes an answer another one although nothing was written."""
_EXACT = (1 << 53) - 1


@dataclass(frozen=True, slots=True)
class Shown:
    """The answer of one panel.

    Attributes:
        columns: name and type of each.
        rows: values as JSON has them.
        versions: of the tables that were read.
        truncated: whether there are more rows than a panel shows.
        error: why there is no answer.
    """

    columns: tuple[tuple[str, str], ...] = ()
    rows: Sequence[Sequence[Any]] = ()
    versions: Mapping[str, int] | None = None
    truncated: bool = False
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The answer as JSON values."""
        return {
            "columns": [{"name": name, "type": kind} for name, kind in self.columns], "rows": self.rows,
            "versions": dict(self.versions or {}), "truncated": self.truncated, "error": self.error,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Way:
    """How a query is seen: equal for two who get the same rows of the same versions."""

    sql: str
    access: tuple[tuple[TableName, TableAccess], ...]
    person: str | None


@dataclass(frozen=True, slots=True)
class _Mark:
    """What an answer holds for: versions of the tables, of the catalog, and a moment where the query asks for it."""

    versions: tuple[int, ...]
    catalog: int
    moment: int


class Boards:
    """Asks what dashboards show, once for all who would get the same.

    Args:
        service: answers the queries.
        live: newest versions of tables.
        read: the dashboards that are declared now.
        clock: microseconds since 1970 UTC.
    """

    def __init__(
        self, service: QueryService, live: LiveLake, read: Callable[[], Mapping[str, Dashboard]],
        clock: Callable[[], int],
    ) -> None:  # fmt: skip
        self._service, self._live, self._read, self._clock = service, live, read, clock
        self._answers: OrderedDict[_Way, tuple[_Mark, asyncio.Future[Shown]]] = OrderedDict()
        self.queries = 0

    def seen(self, principal: Principal) -> dict[str, Dashboard]:
        """The dashboards with the panels that somebody may read; the others, and their queries, they do not know of."""
        found = {}
        for name, board in self._read().items():
            panels = tuple(panel for panel in board.panels if self._may_read(panel, principal))
            if any(panel.sql for panel in panels) or len(panels) == len(board.panels):
                found[name] = replace(board, panels=panels)
        return found

    async def data(self, board: Dashboard, principal: Principal) -> list[Shown]:
        """The answers of all panels of one that was `seen`, in their order."""
        return list(await asyncio.gather(*(self._panel(board, panel, principal) for panel in board.panels)))

    async def _panel(self, board: Dashboard, panel: Panel, principal: Principal) -> Shown:
        if not panel.sql:
            return Shown()
        try:
            found = await asyncio.to_thread(self._way, panel.sql, principal, board.refresh_us)
            if found is None:
                return await asyncio.to_thread(self._ask, panel.sql, principal)
            way, mark = found
            kept = self._answers.get(way)
            if kept is None or kept[0] != mark:
                asking = asyncio.ensure_future(asyncio.to_thread(self._ask, panel.sql, principal))
                self._keep(way, mark, asking)
                return await asyncio.shield(asking)
            shown = await asyncio.shield(kept[1])
            if mark.catalog != await asyncio.to_thread(self._service.authority.version):
                return await asyncio.to_thread(self._ask, panel.sql, principal)  # policies changed while it was asked
            await asyncio.to_thread(self._note, board, panel, principal)
            return shown
        except LodestreamError as error:
            return Shown(error=error.message.strip())

    def _keep(self, way: _Way, mark: _Mark, asking: asyncio.Future[Shown]) -> None:
        self._answers[way] = mark, asking
        self._answers.move_to_end(way)
        while len(self._answers) > _KEPT:
            self._answers.popitem(last=False)

        def done(future: asyncio.Future[Shown]) -> None:
            failed = future.cancelled() or future.exception() is not None
            if failed and self._answers.get(way) == (mark, future):
                del self._answers[way]  # the next one asks again

        asking.add_done_callback(done)

    def _way(self, sql: str, principal: Principal, refresh_us: int) -> tuple[_Way, _Mark] | None:
        """What an answer for somebody can be shared by; None when it cannot be.

        Raises:
            LodestreamError: the query cannot be read, or they may not read a table of it.
        """
        authority = self._service.authority
        catalog = authority.version()
        tables = self._live.tables()
        access, versions = [], []
        for name in self._read_by(sql):
            known = tables.get(name)
            if known is None or known.version < 0:
                return None
            seen = authority.access(principal, name, known.schema)
            access.append((name, replace(seen, policies=(), version=0)))
            versions.append(known.version)
        lower = sql.lower()
        person = principal.name if any(word in lower for word in _PERSONAL) else None
        moment = self._clock() // refresh_us if any(word in lower for word in _PASSING) else 0
        return _Way(sql, tuple(access), person), _Mark(tuple(versions), catalog, moment)

    def _may_read(self, panel: Panel, principal: Principal) -> bool:
        try:
            read = self._read_by(panel.sql) if panel.sql else ()
        except LodestreamError:
            return principal.is_owner  # a query that cannot be read is for those who can mend it
        return len(self._service.authority.visible(principal, read)) == len(read)

    def _read_by(self, sql: str) -> tuple[TableName, ...]:
        references = parse(sql, self._service.catalog).tables  # remembered there
        if any(one.version is not None for one in references):
            raise ConfigError("a dashboard shows the newest versions")
        return tuple(dict.fromkeys(TableName(one.layer, one.name) for one in references))

    def _ask(self, sql: str, principal: Principal) -> Shown:
        self.queries += 1
        rows: list[list[Any]] = []
        budget = Budget(time_s=_TIME_S)
        with self._service.ask(sql, principal=principal, door="console", budget=budget) as answer:
            columns = tuple((field.name, str(field.type)) for field in answer.schema)
            for batch in answer.batches():
                values = [column.to_pylist() for column in batch.columns]
                rows += [[plain(value) for value in row] for row in zip(*values, strict=True)]
                if len(rows) > ROWS_MAX:
                    break
            return Shown(columns, rows[:ROWS_MAX], answer.pins, len(rows) > ROWS_MAX)

    def _note(self, board: Dashboard, panel: Panel, principal: Principal) -> None:
        """Whoever is shown an answer that another asked for is in the audit log too."""
        detail: dict[str, str | int | float | None] = {"dashboard": board.name, "panel": panel.title, "shared": 1}
        objects = tuple(map(str, self._read_by(panel.sql)))
        authority = self._service.authority
        authority.record(Event(
            principal.name, principal.via, "console", "query", "allowed", objects, catalog_version=authority.version(),
            detail=detail,
        ))  # fmt: skip


def plain(value: Any) -> Any:
    """A value as JSON has it: whole numbers beyond 2^53 and decimals as text, times as ISO 8601."""
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int):
        return value if -_EXACT <= value <= _EXACT else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, dt.datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return str(value)
