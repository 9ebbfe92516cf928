"""The catalog of one lake: decides who sees what, keeps what it decides by, and writes down both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from lodestream.catalog import decide, store
from lodestream.catalog.entries import POLICY_KINDS
from lodestream.catalog.journal import Journal
from lodestream.catalog.state import STATE_KINDS, State, arrange
from lodestream.catalog.store import Database, Entry, Rows
from lodestream.errors import AccessError
from lodestream.model.access import Principal, Privilege, TableAccess
from lodestream.model.table import TableName
from lodestream.model.types import Schema
from lodestream.ports.authority import Event
from lodestream.ports.waiting import before_waiting

_REFRESH_S = 0.2
_STALE_S = 0.8
_KEPT_MAX = 20_000
_Kept = dict[tuple[object, ...], TableAccess | frozenset[Privilege] | Principal]
_Decision = TypeVar("_Decision", TableAccess, frozenset[Privilege], Principal)


class Catalog:
    """Grants, policies and their record; an `Authority`. Every method may be called from any thread.

    Args:
        database: of `store.open_store`; others may change it meanwhile, which is seen within a second.
        clock: microseconds since 1970 UTC.
        journal: where events are written down.
        refresh_s: seconds after which it looks whether another process changed something.
    """

    def __init__(
        self, database: Database, clock: Callable[[], int], journal: Journal, *, refresh_s: float = _REFRESH_S
    ) -> None:
        self.database = database
        self._clock = clock
        self._journal = journal
        self._refresh_s = refresh_s
        self._lock = threading.Lock()
        self._looked = 0.0
        self._held: tuple[State, _Kept] = (State(version=-1), {})
        self._look(time.monotonic())

    # Decisions ------------------------------------------------------------------------------------------------------

    def version(self) -> int:
        """Number of the last change; see `Authority`."""
        return self.state.version

    def privileges(self, principal: Principal, table: TableName) -> frozenset[Privilege]:
        """What a principal may do with a table, or with its quarantine."""
        state, kept = self._current()
        return _privileges(state, kept, principal, identity(principal), table)

    def holds(self, principal: Principal, privilege: Privilege, on: str = decide.EVERYTHING) -> bool:
        """Whether a principal has a privilege on a table, a layer or the whole catalog."""
        return decide.holds(self.state, principal, privilege, on)

    def filtered(self, principal: Principal, table: TableName) -> bool:
        """Whether a row filter binds a principal on a table or above it; see `Authority`."""
        return decide.filtered(self.state, principal, table)

    def visible(self, principal: Principal, tables: Iterable[TableName]) -> list[TableName]:
        """Those of the tables that a principal may know of."""
        state, kept = self._current()
        who = identity(principal)
        return [table for table in tables if decide.known(table, _privileges(state, kept, principal, who, table))]

    def access(self, principal: Principal, table: TableName, schema: Schema) -> TableAccess:
        """How a principal sees a table whose version has these columns; see `Authority`."""
        state, kept = self._current()
        key = (*identity(principal), table, schema)
        found = kept.get(key)
        if not isinstance(found, TableAccess):
            found = _keep(kept, key, decide.access(state, principal, table, schema))
        return found

    def principal(self, name: str) -> Principal | None:
        """The local user or service account of that name, without a credential; None when there is none.

        Raises:
            AccessError: they are disabled, whatever credential they bring.
        """
        state, kept = self._current()
        if name in state.disabled:
            raise AccessError("this user is disabled", user=name)
        found = kept.get((name,))
        if not isinstance(found, Principal) and (user := state.users.get(name)) is not None:
            found = _keep(kept, (name,), Principal(user.name, user.kind, user.groups, user.attributes))
        return found if isinstance(found, Principal) else None

    @property
    def state(self) -> State:
        """All grants and policies as they stand."""
        return self._current()[0]

    # What is kept ---------------------------------------------------------------------------------------------------

    def entries(self, *kinds: str) -> list[Entry]:
        """Entries of some kinds as they stand in the store."""
        with self.database.read() as rows:
            return store.entries(rows, *kinds)

    def record(self, event: Event) -> None:
        """Write an event down; see `Authority`."""
        self._journal.record(event)

    @contextmanager
    def changing(self, event: Event) -> Iterator[tuple[Rows, int]]:
        """A transaction that changes entries and writes the event down, both or neither.

        Gives the transaction and the time, in microseconds. The number of the change is put into the event.
        """
        with self.database.write() as rows:
            at = self._clock()
            yield rows, at
            version = store.bump(rows)
            self._journal.append(rows, (_numbered(event, version),), at)
        self._journal.settle()
        self._look(time.monotonic())

    def declare(self, origin: str, kept: Sequence[Entry], event: Event, kinds: Sequence[str] = POLICY_KINDS) -> bool:
        """Put entries in the place of all that the same origin said before; whether anything differed.

        Args:
            origin: the file that declares them.
            kept: everything that it declares now; entries that stay as they were keep their time.
            event: what is written down when something differs.
            kinds: what this origin speaks of; its entries of other kinds are left alone.
        """
        new = {(e.kind, e.name): e for e in kept}
        if not _differs(_of(origin, self.entries(*kinds)), new):
            return False
        with self.database.write() as rows:
            old = _of(origin, store.entries(rows, *kinds))
            if not (changed := _differs(old, new)):  # another process was first
                return False
            at = self._clock()
            for kind, name in sorted(changed):
                one = new.get((kind, name))
                if one is None:
                    store.drop(rows, kind, name, origin)
                else:
                    store.put(rows, Entry(kind, name, one.body, origin, one.who or origin, at))
            self._journal.append(rows, (_numbered(event, store.bump(rows)),), at)
        self._journal.settle()
        self._look(time.monotonic())
        return True

    def close(self) -> None:
        """Write down what is left and let go of the database; twice is harmless."""
        self._journal.close()
        self.database.close()

    # Keeping up -----------------------------------------------------------------------------------------------------

    def _current(self) -> tuple[State, _Kept]:
        now = time.monotonic()
        age = now - self._looked
        if age > self._refresh_s:
            before_waiting()
            self._look(now, wait=age > _STALE_S)
        return self._held

    def _look(self, now: float, *, wait: bool = True) -> None:
        """Take over what others changed; without `wait`, leave it to whoever is at it already."""
        if not self._lock.acquire(blocking=wait):
            return
        try:
            if wait and self._looked > now:
                return
            started = time.monotonic()
            with self.database.read() as rows:
                number = store.number(rows)
                if number != self._held[0].version:
                    self._held = (arrange(number, store.entries(rows, *STATE_KINDS)), {})
            self._looked = started
        finally:
            self._lock.release()


def identity(principal: Principal) -> tuple[object, ...]:
    """All of a principal that decisions depend on, to be a key."""
    attributes = tuple(sorted(principal.attributes.items()))
    return principal.name, principal.kind, principal.groups, attributes, principal.scopes


def _privileges(
    state: State, kept: _Kept, principal: Principal, who: tuple[object, ...], table: TableName
) -> frozenset[Privilege]:
    found = kept.get((*who, table))
    if not isinstance(found, frozenset):
        found = _keep(kept, (*who, table), decide.privileges(state, principal, table))
    return found


def _keep(kept: _Kept, key: tuple[object, ...], decision: _Decision) -> _Decision:
    if len(kept) >= _KEPT_MAX:
        kept.clear()
    kept[key] = decision
    return decision


def _of(origin: str, kept: Iterable[Entry]) -> dict[tuple[str, str], Entry]:
    return {(e.kind, e.name): e for e in kept if e.origin == origin}


def _differs(old: Mapping[tuple[str, str], Entry], new: Mapping[tuple[str, str], Entry]) -> set[tuple[str, str]]:
    """Kinds and names of entries that are new, gone, or say something else."""
    return {
        k for k in old.keys() | new.keys() if k not in old or k not in new or dict(old[k].body) != dict(new[k].body)
    }


def _numbered(event: Event, version: int) -> Event:
    return replace(event, catalog_version=version)
