"""The one read path: authorise, rewrite, pin, admit, run, record.

Every door asks here and touches no data itself. The caller's query runs in a worker process that can do nothing else
(`worker.py`). Where a policy binds the caller on a table, another database in that process reads the files and hands
over the rows and columns that they may see; their query never has the files.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType

import pyarrow as pa

from lodestream.errors import AccessError, ConfigError, CorruptionError, TransientError
from lodestream.lake.disk import Disk
from lodestream.lake.log import Snapshot
from lodestream.model.access import PRIVILEGES, Principal, Privilege, TableAccess
from lodestream.model.table import LAYERS, TableName
from lodestream.model.types import Schema
from lodestream.ports.authority import Authority, Event
from lodestream.ports.waiting import before_waiting
from lodestream.query.answer import Answer, Described, in_utc
from lodestream.query.conditions import conditions
from lodestream.query.guard import Reference, Relations, Statement, parse
from lodestream.query.job import Budget, Job, parameters_of, stream_of
from lodestream.query.occurrences import occurrences
from lodestream.query.parameters import parameter_types
from lodestream.query.points import Keyed, point
from lodestream.query.pool import PoolSettings, Running, WorkerPool
from lodestream.query.pruning import Pruner, alternatives
from lodestream.query.quoting import quoted
from lodestream.query.reading import Read
from lodestream.query.sight import filtered
from lodestream.query.snapshots import Snapshots, no_such_table

__all__ = ["OWNER", "Answer", "Budget", "Described", "PoolSettings", "QueryService"]

OWNER = Principal("owner", kind="owner", via="cli")
"""Whoever can read the storage anyway; what a script or the command line asks as."""

_TRIES = 3
_OPERATORS = frozenset({"=", "<>", "<", "<=", ">", ">=", "in", "is null", "is not null", "like"})
_LITERALS = re.compile(r"\$(\w*)\$.*?\$\1\$|'(?:[^']|'')*'|(?<![\w.\"$])\d[\d_.]*(?:[eE][+-]?\d+)?", re.DOTALL)


class OwnersOnly:
    """An authority that knows nobody but owners and keeps no record; for a lake without a catalog."""

    def version(self) -> int:
        """Nothing ever changes."""
        return 0

    def privileges(self, principal: Principal, table: TableName) -> frozenset[Privilege]:
        """All for owners."""
        return frozenset(PRIVILEGES) if principal.is_owner else frozenset()

    def access(self, principal: Principal, table: TableName, schema: Schema) -> TableAccess:
        """All for owners."""
        if not principal.is_owner:
            raise AccessError("not allowed to read this table", table=str(table))
        return TableAccess(tuple((name, None) for name in schema.names))

    def filtered(self, principal: Principal, table: TableName) -> bool:
        """Nobody is."""
        return False

    def visible(self, principal: Principal, tables: Iterable[TableName]) -> list[TableName]:
        """All for owners."""
        return list(tables) if principal.is_owner else []

    def record(self, event: Event) -> None:
        """Nowhere to write it."""


class QueryService:
    """Answers queries over one lake. Safe from any thread.

    Args:
        disk: the lake's disk.
        lake: root folder of the lake.
        authority: grants, policies and the audit log; without, only owners may ask.
        catalog: name that may stand before the layer in a table's name.
        budget: of a query that names none.
        threads: of DuckDB in each worker; one per core for None.
        pool: how many queries run at once.
        keyed: answers questions for rows by key without a worker.
    """

    def __init__(
        self, disk: Disk, lake: str, *, authority: Authority | None = None, catalog: str | None = None,
        budget: Budget | None = None, threads: int | None = None, pool: PoolSettings | None = None,
        keyed: Keyed | None = None,
    ) -> None:  # fmt: skip
        self.disk, self.lake = disk, lake
        self.authority: Authority = authority or OwnersOnly()
        self.budget = budget or Budget()
        self.snapshots = Snapshots(disk, lake)
        self._pruner = Pruner()
        self.catalog = catalog.lower() if catalog else None
        self._threads = threads or os.cpu_count() or 1
        self._keyed = keyed
        self.pool = WorkerPool(pool or PoolSettings(), self._readable)

    def close(self) -> None:
        """End the workers; what runs is cancelled."""
        self.pool.close()
        if self._keyed is not None:
            self._keyed.close()

    def tables(self, principal: Principal = OWNER) -> list[TableName]:
        """The tables that somebody may know of, quarantines included, by layer and name."""
        return self.authority.visible(principal, self.snapshots.tables())

    def schema(self, name: TableName, principal: Principal, as_of: int | None = None) -> Schema:
        """The columns of a table as somebody sees them. Raises ConfigError when there is none for them."""
        return self._read(Reference(name.layer, name.name, as_of), principal, {}).schema

    def access(self, name: TableName, principal: Principal, as_of: int | None = None) -> tuple[Snapshot, TableAccess]:
        """A version of a table, and how somebody sees it. Raises ConfigError when there is none for them."""
        read = self._read(Reference(name.layer, name.name, as_of), principal, {})
        return read.snapshot, read.access

    def ask(
        self, text: str, *, principal: Principal, door: str = "cli", parameters: Sequence[object] = (),
        as_of: Mapping[TableName, int] | None = None, budget: Budget | None = None, integer_division: bool = False,
        began: Callable[[Running], None] | None = None,
    ) -> Answer:  # fmt: skip
        """Run one query; a snapshot of each table is read, whatever is written meanwhile.

        Args:
            text: DuckDB SQL; tables are `layer.name`, `layer.name__quarantine`, or either `AT (VERSION => n)`
                or `AT (TIMESTAMP => '…')`.
            principal: who asks.
            door: where they came in, for the audit log.
            parameters: values of `$1`, `$2`, … or of each `?`.
            as_of: versions to read instead of the newest, by table.
            budget: what it may take.
            integer_division: whether `7 / 2` is 3, as in PostgreSQL.
            began: is told of the query once a worker has it, so that it can be cancelled before its first row.

        Raises:
            ConfigError: the query cannot be read, names no table that the caller may know of, or errs on this data.
            AccessError: it does more than ask, or calls a function that is not allowed.
            TransientError: no room for it now, or files were cleaned up while it started; ask again.
        """
        started = time.monotonic()
        with self._recorded(principal, door, text):
            statement = parse(text, self.catalog)
            if len(parameters) != statement.parameters:
                raise ConfigError(
                    "not the parameters that it needs", needed=statement.parameters, given=len(parameters)
                )
            given = _parameters(parameters)
            for left in reversed(range(_TRIES)):
                reads = self._reads(statement, principal, as_of or {})
                event = self._event(principal, door, text, reads)
                if answer := self._by_key(statement, parameters, reads, budget, event, started):
                    return answer
                before_waiting()
                self.authority.record(event)
                job = self._job(statement, reads, parameters, given, budget, integer_division=integer_division)
                try:
                    running = self.pool.run(job, principal.name, began=began)
                except TransientError as error:
                    if not left or "cleaned up" not in error.message:
                        raise
                    continue
                return self._answer(running, reads, event, started)
        raise AssertionError("unreachable")

    def table(
        self, text: str, *, principal: Principal = OWNER, as_of: Mapping[TableName, int] | None = None
    ) -> pa.Table:
        """The whole answer to a query; see `ask`."""
        with self.ask(text, principal=principal, as_of=as_of) as answer:
            return answer.table()

    def read(
        self, name: TableName, *, principal: Principal, door: str, columns: Sequence[str] | None = None,
        where: Sequence[tuple[str, str, object]] = (), order: Sequence[tuple[str, bool]] = (), limit: int | None = None,
        offset: int = 0, as_of: int | None = None, budget: Budget | None = None,
    ) -> Answer:  # fmt: skip
        """Rows of one table.

        Args:
            name: the table.
            principal: who asks.
            door: where they came in.
            columns: names, in the order wanted; all for None.
            where: (column, operator, value) that must all hold; operators are = <> < <= > >= in like `is null`
                `is not null`.
            order: (column, whether descending); nulls come last.
            limit: at most so many rows.
            offset: leave out so many first.
            as_of: version; the newest for None.
            budget: what it may take.

        Raises:
            ConfigError: there is no such table or column for them.
            What `ask` raises else.
        """
        known = self.schema(name, principal, as_of).names
        asked = [*(columns or ()), *(column for column, _, _ in where), *(column for column, _ in order)]
        if missing := next((column for column in asked if column not in known), None):
            raise ConfigError("no such column", table=str(name), column=missing, columns=", ".join(known))
        listed = ", ".join(quoted(column) for column in columns) if columns else "*"
        text = f"SELECT {listed} FROM {quoted(name.layer)}.{quoted(name.name)}"
        values: list[object] = []
        if where:
            text += " WHERE " + " AND ".join(_condition(*each, values) for each in where)
        if order:
            text += " ORDER BY " + ", ".join(
                f"{quoted(column)} {'DESC' if descending else 'ASC'} NULLS LAST" for column, descending in order
            )
        text += "" if limit is None else f" LIMIT {limit:d}"
        text += f" OFFSET {offset:d}" if offset else ""
        pins = None if as_of is None else {name: as_of}
        return self.ask(text, principal=principal, door=door, parameters=values, as_of=pins, budget=budget)

    def describe(
        self, text: str, *, principal: Principal, door: str = "cli", integer_division: bool = False
    ) -> Described:  # fmt: skip
        """Columns and parameters of a query, without running it. Raises what `ask` raises."""
        with self._recorded(principal, door, text):
            statement = parse(text, self.catalog)
            reads = self._reads(statement, principal, {})
            kinds = parameter_types(statement, {str(read.reference): read.schema for read in reads})
            values = [None] * len(kinds)
            job = self._job(
                statement, reads, values, parameters_of(values), None, integer_division=integer_division, describe=True
            )
            running = self.pool.run(job, principal.name, describe=True)
            list(running.batches())
            return Described(in_utc(running.schema), tuple(kind for _, kind in running.types), kinds)

    def over(
        self, text: str, given: Given, *, principal: Principal, parameters: Sequence[object] = (),
        budget: Budget | None = None, integer_division: bool = False, describe: bool = False,
        began: Callable[[Running], None] | None = None,
    ) -> Answer:  # fmt: skip
        """Run a query of the caller's over tables that are handed in, none of the lake, in the sandbox.

        Raises:
            ConfigError: it cannot be read, or names a table that was not handed in.
            AccessError: it does more than ask.
        """
        statement = parse(text, self.catalog, given.relations)
        if statement.tables:
            raise ConfigError("one query reads either the lake or the catalog", table=str(statement.tables[0]))
        job = Job(
            statement.text, (), budget or self.budget, 1, integer_division, given.tables, given.setup,
            parameters=_parameters(parameters),
        )  # fmt: skip
        running = self.pool.run(job, principal.name, describe=describe, began=began)
        return Answer(running, {})

    def _reads(self, statement: Statement, principal: Principal, as_of: Mapping[TableName, int]) -> list[Read]:
        """Every table of a statement, authorised and pinned."""
        for name in as_of:
            if not any((r.layer, r.name) == (name.layer, name.name) for r in statement.tables):
                raise ConfigError("the query does not read this table", as_of=str(name))
        return [self._read(reference, principal, as_of) for reference in statement.tables]

    def _read(self, reference: Reference, principal: Principal, as_of: Mapping[TableName, int]) -> Read:
        """Pin one table. What is not there and what is not for the caller look the same to them."""
        name = TableName(reference.layer, reference.name)
        if not principal.is_owner and not self.authority.visible(principal, [name]):
            raise no_such_table(name, self.tables(principal))
        version = as_of.get(name) if reference.version is None else reference.version
        try:
            if reference.time_us is not None:
                version = self.snapshots.version_at(name, reference.time_us)
            table, snapshot = self.snapshots.pin(name, version, lambda: self.tables(principal))
        except CorruptionError:
            if principal.is_owner:
                raise
            raise TransientError("table cannot be read now; its owner has to repair it", table=str(name)) from None
        access = self.authority.access(principal, name, snapshot.metadata.schema)
        return Read(reference, table, snapshot, access)

    def _job(
        self, statement: Statement, reads: Sequence[Read], parameters: Sequence[object], given: bytes,
        budget: Budget | None, *, integer_division: bool, describe: bool = False,
    ) -> Job:  # fmt: skip
        """What a worker is asked; to describe an answer it needs no file of an object store."""
        found, places = conditions(statement, parameters), occurrences(statement, parameters)
        schemas = {read.label: read.schema for read in reads}
        pairs = []
        for read in reads:
            if describe or not read.may_narrow:
                read.adds = [] if describe and self.disk.atomic else None
            else:
                read.adds = self._pruner.kept(read.snapshot, alternatives(places, read.label, schemas, read.access))
            pairs.append(read.scan(statement.names, found))
        return Job(
            statement.text, tuple(one for one, _ in pairs), budget or self.budget, self._threads, integer_division,
            rows=tuple(rows for _, rows in pairs), parameters=given,
        )  # fmt: skip

    def _by_key(
        self, statement: Statement, parameters: Sequence[object], reads: Sequence[Read], budget: Budget | None,
        event: Event, started: float,
    ) -> Answer | None:  # fmt: skip
        """Rows by key, found and shown without a worker; None when it takes one.

        The condition is the caller's, so it is only asked of columns that they see as stored; filters and masks are
        then applied to the few rows that were found.
        """
        if self._keyed is None or (asked := point(statement, parameters)) is None:
            return None
        (read,) = reads
        stored = read.snapshot.metadata.schema
        plain = {name.lower(): name for name, masked in read.access.columns if masked is None}
        if any(one.column not in plain or one.sql(stored) is None for one in asked.equals):
            return None
        shown = {name.lower(): name for name, _ in read.access.columns}
        columns = asked.columns if asked.columns is not None else tuple((name, None) for name in shown)
        if any(name not in shown for name, _ in columns):
            return None
        equals = {plain[one.column]: one.value for one in asked.equals}
        wanted = [shown[name] for name, _ in columns] if read.access.whole else None
        found = self._keyed.find(read.table, read.snapshot, equals, wanted)
        if found is None:
            return None
        if not read.access.whole:
            found = filtered(found, stored, read.access)
        listed, named = [shown[name] for name, _ in columns], [alias or shown[name] for name, alias in columns]
        if found.column_names != listed:
            found = found.select(listed)
        if named != listed:
            found = found.rename_columns(named)
        rows_max = budget.rows_max if budget else None
        found = found if asked.limit is None or found.num_rows <= asked.limit else found.slice(0, asked.limit)
        cut = rows_max is not None and found.num_rows > rows_max
        found = found.slice(0, rows_max) if cut else found
        took = _took(found.num_rows, sum(map(pa.ipc.get_record_batch_size, found.to_batches())), started)
        self.authority.record(replace(event, detail={**event.detail, **took}))
        return Answer(found, _pins(reads), event.policies, cut=cut)

    def _answer(self, running: Running, reads: Sequence[Read], event: Event, started: float) -> Answer:
        files = {_label(read.reference): told for read in reads if (told := read.files) is not None}

        def ended(rows: int, size: int) -> None:
            detail = {"query": event.detail["query"], **_took(rows, size, started)}
            if files:
                detail |= {
                    "files": sum(read for read, _ in files.values()),
                    "left_out": sum(n for _, n in files.values()),
                }
            self.authority.record(replace(event, action="answer", detail=detail))

        return Answer(running, _pins(reads), event.policies, ended, files=files)

    def _event(self, principal: Principal, door: str, text: str, reads: Sequence[Read]) -> Event:
        policies = tuple(dict.fromkeys(name for read in reads for name in read.access.policies))
        version = max((read.access.version for read in reads), default=self.authority.version())
        objects = tuple(_label(read.reference) for read in reads)
        return Event(principal.name, principal.via, door, "query", "allowed", objects, policies, version, _said(text))

    @contextmanager
    def _recorded(self, principal: Principal, door: str, text: str) -> Iterator[None]:
        """Put what is refused into the audit log."""
        try:
            yield
        except (AccessError, ConfigError) as error:
            told = {**_said(text), "reason": error.message.splitlines()[0]}
            refused = isinstance(error, AccessError) or "no such table" in error.message
            event = Event(
                principal.name, principal.via, door, "query", "refused" if refused else "allowed",
                catalog_version=self.authority.version(), detail=told,
            )  # fmt: skip
            self.authority.record(event)
            raise

    def _readable(self) -> list[str]:
        """The folders of the layers that are there; what the lake keeps of its own is not among them."""
        there = (folder for layer in LAYERS if self.disk.exists(folder := os.path.join(self.lake, layer)))
        folders = [self.disk.beside(folder) for folder in there]
        for folder in folders:
            os.makedirs(folder, exist_ok=True)
        return folders


@dataclass(frozen=True, slots=True)
class Given:
    """Tables that are handed to queries, such as those of `pg_catalog`.

    Attributes:
        relations: names that a query may use.
        tables: Arrow IPC streams by name, in the schema `main`.
        setup: trusted statements that make schemas, views and macros over them.
    """

    relations: Relations
    tables: tuple[tuple[str, bytes], ...]
    setup: tuple[str, ...]

    @classmethod
    def of(cls, relations: Relations, tables: Mapping[str, pa.Table], setup: Sequence[str]) -> Given:
        """From Arrow tables."""
        return cls(relations, tuple((name, stream_of(table)) for name, table in tables.items()), tuple(setup))


def redacted(text: str) -> str:
    """A query's text with `?` in the place of numbers and strings, at most 2,000 characters."""
    return _LITERALS.sub("?", text)[:2000]


@functools.lru_cache(256)
def _said(text: str) -> Mapping[str, str]:
    """What the record has of a query: its text without values, and a digest of that."""
    said = redacted(text)
    return MappingProxyType({"query": hashlib.sha256(said.encode()).hexdigest()[:16], "sql": said})


def _parameters(values: Sequence[object]) -> bytes:
    try:
        return parameters_of(values)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _condition(column: str, operator: str, value: object, values: list[object]) -> str:
    if operator not in _OPERATORS:
        raise ConfigError("no such operator", operator=operator, operators=", ".join(sorted(_OPERATORS)))
    if operator.startswith("is "):
        return f"{quoted(column)} {operator.upper()}"
    if operator == "in":
        assert isinstance(value, list | tuple)
        values += value
        start = len(values) - len(value)
        return f"{quoted(column)} IN (" + ", ".join(f"${start + index + 1}" for index in range(len(value))) + ")"
    values.append(value)
    return f"{quoted(column)} {operator.upper()} ${len(values)}"


def _took(rows: int, size: int, started: float) -> dict[str, int | float]:
    return {"rows": rows, "bytes": size, "ms": round((time.monotonic() - started) * 1e3, 1)}


def _pins(reads: Iterable[Read]) -> dict[str, int]:
    return {_label(read.reference): read.snapshot.version for read in reads}


def _label(reference: Reference) -> str:
    return f"{reference.layer}.{reference.label}"
