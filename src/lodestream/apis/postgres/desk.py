"""Asks the query service for sessions; the one place that knows it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence

import pyarrow as pa

from lodestream.apis.postgres import types
from lodestream.apis.postgres.cancel import Cancel
from lodestream.apis.postgres.catalog.listing import FUNCTIONS, STANDS, Listing, commented, listing
from lodestream.apis.postgres.questions import Planned, Surroundings, plan
from lodestream.apis.postgres.session import Session, Shape
from lodestream.apis.postgres.streams import Source
from lodestream.errors import LodestreamError
from lodestream.model.access import Principal
from lodestream.model.arrow import from_arrow, to_arrow
from lodestream.model.types import parse_type
from lodestream.query.guard import parse
from lodestream.query.parameters import parameter_types
from lodestream.query.pool import Running
from lodestream.query.service import Answer, Budget, Given, QueryService

DOOR = "postgres"
_PLANS = 512
_KINDS = {
    "boolean": types.BOOL, "tinyint": types.INT2, "smallint": types.INT2, "int": types.INT4, "bigint": types.INT8,
    "float": types.FLOAT4, "double": types.FLOAT8, "string": types.TEXT, "binary": types.BYTEA, "date": types.DATE,
    "timestamp": types.TIMESTAMPTZ, "decimal": types.NUMERIC,
}  # fmt: skip


class _Renamed:
    """An answer whose columns are called as PostgreSQL would call them."""

    def __init__(self, answer: Answer, names: Sequence[str]) -> None:
        self._answer = answer
        fields = [field.with_name(name) for field, name in zip(answer.schema, names, strict=True)]
        self.schema = pa.schema(fields)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows."""
        for batch in self._answer.batches():
            yield pa.RecordBatch.from_arrays(batch.columns, schema=self.schema)

    def cancel(self) -> None:
        """End it."""
        self._answer.cancel()

    def close(self) -> None:
        """Let go of it."""
        self._answer.close()


_KEPT_S = 1.0
_KEPT = 32


class Desk:
    """Plans and asks questions. Every method but the constructor may wait; call them from another thread.

    Args:
        service: answers.
        database: name of the project, which is that of the one database.
        time_s: seconds that a question may take.
        clock: seconds, monotonic.
        comments: gives what tables and columns are for, by `layer.table` and `layer.table.column`.
    """

    def __init__(
        self,
        service: QueryService,
        database: str,
        time_s: float,
        clock: Callable[[], float] = time.monotonic,
        comments: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._comments = comments
        self._service, self.database, self._time_s, self._clock = service, database, time_s, clock
        self._lock = threading.Lock()
        self._listings: OrderedDict[tuple[object, ...], tuple[float, Listing]] = OrderedDict()
        self._plans: OrderedDict[tuple[object, ...], Planned] = OrderedDict()
        self._shapes: OrderedDict[tuple[object, ...], tuple[Listing, Shape]] = OrderedDict()

    def plan(self, text: str, session: Session) -> Planned:
        """Make a question ready. Raises PgError or LodestreamError."""
        around = self._surroundings(session, self.listing(session.principal))
        key = (text, around.tables, around.search_path, tuple(around.values.values()), tuple(around.variables.values()))
        with self._lock:
            found = self._plans.get(key)
        if found is None:
            found = plan(text, around)
            with self._lock:
                self._plans[key] = found
                while len(self._plans) > _PLANS:
                    self._plans.popitem(last=False)
        return found

    def ask(self, planned: Planned, session: Session, values: Sequence[object], cancel: Cancel) -> Source:
        """Run a question. Raises what the service raises."""
        chosen = [values[number - 1] for number in planned.parameters]

        def began(running: Running) -> None:
            cancel.watch(running.cancel)

        if planned.catalog:
            answer = self._service.over(
                planned.text, self._given(planned, session.principal), principal=session.principal, parameters=chosen,
                budget=self._budget(session), integer_division=True, began=began,
            )  # fmt: skip
        else:
            answer = self._service.ask(
                planned.text, principal=session.principal, door=DOOR, parameters=chosen, budget=self._budget(session),
                integer_division=True, began=began,
            )  # fmt: skip
        return self._named(answer, planned)

    def shape(self, text: str, session: Session, declared: Sequence[int]) -> Shape:
        """Columns and parameters of a question. Raises PgError, and what the service raises."""
        planned, seen = self.plan(text, session), self.listing(session.principal)
        key = (planned.text, tuple(declared), id(seen))
        with self._lock:
            known = self._shapes.get(key)
        if known is not None and known[0] is seen:
            return known[1]
        found = self._shape(planned, session, declared)
        with self._lock:
            self._shapes[key] = (seen, found)
            while len(self._shapes) > _PLANS:
                self._shapes.popitem(last=False)
        return found

    def _shape(self, planned: Planned, session: Session, declared: Sequence[int]) -> Shape:
        if planned.catalog:
            schema, kinds = self._catalog_shape(planned, session)
        else:
            found = self._service.describe(planned.text, principal=session.principal, door=DOOR, integer_division=True)
            schema, kinds = found.schema, found.parameters
        told = {number: _oid(kind) for number, kind in zip(planned.parameters, kinds, strict=False)}
        told |= self._lists(planned, session) | dict(planned.casts)
        oids = []
        for number in range(1, max(planned.declared, len(declared)) + 1):
            given = declared[number - 1] if number <= len(declared) else 0
            oids.append(given or told.get(number, types.TEXT.oid))
        if planned.names is not None and len(planned.names) == len(schema):
            schema = pa.schema([field.with_name(name) for field, name in zip(schema, planned.names, strict=True)])
        return Shape(schema, tuple(oids))

    def _lists(self, planned: Planned, session: Session) -> dict[int, int]:
        """Types of parameters that are lists, where one type alone fits the column they are compared with."""
        found = {}
        if planned.lists:
            seen = self.listing(session.principal)
            schemas = seen.schemas.values() if planned.catalog else [to_arrow(schema) for _, schema, _ in seen.made_of]
            for number, column in planned.lists:
                kinds = {types.pg_type(one.field(column).type).array for one in schemas if column in one.names}
                if len(kinds) == 1:
                    found[number] = kinds.pop()
        return found

    def listing(self, principal: Principal) -> Listing:
        """The system catalogs as somebody sees them; a second old at most."""
        who = (principal.name, principal.kind, principal.groups, tuple(sorted(principal.attributes.items())))
        key = (who, self._service.authority.version())
        now = self._clock()
        with self._lock:
            found = self._listings.get(key)
        if found is not None and now - found[0] < _KEPT_S:
            return found[1]
        tables = []
        for name in self._service.tables(principal):
            try:
                tables.append((name, self._service.schema(name, principal), ""))
            except LodestreamError:  # a policy does not fit it, or it has gone: it is not to be read now
                continue
        tables = commented(tables, self._comments())
        if found is not None and found[1].made_of == tuple(tables):
            made = found[1]
        else:
            made = listing(tables, principal.name, self.database, owner=principal.is_owner)
        with self._lock:
            self._listings[key] = (now, made)
            self._listings.move_to_end(key)
            while len(self._listings) > _KEPT:
                self._listings.popitem(last=False)
        return made

    def _given(self, planned: Planned, principal: Principal) -> Given:
        found = self.listing(principal)
        return found.numbered if planned.numbered else found.given

    def _catalog_shape(self, planned: Planned, session: Session) -> tuple[pa.Schema, tuple[str | None, ...]]:
        given = self._given(planned, session.principal)
        statement = parse(planned.text, None, given.relations)
        schemas = self.listing(session.principal).schemas
        kinds = parameter_types(statement, {name: from_arrow(schemas[name]) for name in statement.given})
        with self._service.over(
            planned.text, given, principal=session.principal, parameters=[None] * len(planned.parameters),
            integer_division=True, describe=True,
        ) as answer:  # fmt: skip
            answer.table()
            return answer.schema, kinds

    def _named(self, answer: Answer, planned: Planned) -> Source:
        names = planned.names
        if names is None or len(names) != len(answer.schema) or list(names) == answer.schema.names:
            return answer
        return _Renamed(answer, names)

    def _budget(self, session: Session) -> Budget:
        asked = session.variables.statement_timeout_s
        return Budget(time_s=min(asked or self._time_s, self._time_s))

    def _surroundings(self, session: Session, found: Listing) -> Surroundings:
        variables = session.variables
        path = variables.search_path
        user = session.principal.name
        values: dict[str, str | int | bool | None] = {
            "version": f"PostgreSQL {variables.get('server_version')}", "current_database": self.database,
            "current_catalog": self.database, "current_schema": path[0] if path else None, "current_user": user,
            "session_user": user, "user": user, "current_role": user, "pg_backend_pid": session.process,
            "pg_is_in_recovery": False, "inet_server_addr": None, "inet_server_port": None, "inet_client_addr": None,
            "inet_client_port": None, "txid_current": 1, "pg_current_xact_id": 1, "current_query": None,
            "getdatabaseencoding": "UTF8", "pg_advisory_unlock_all": None,
        }  # fmt: skip
        settings = {name.lower(): value for name, value in variables.all()}
        return Surroundings(found.tables, path, STANDS, FUNCTIONS, found.oids, values, settings)


def _oid(kind: str | None) -> int:
    """Number of a Spark type; text where nothing tells the type, as PostgreSQL decides too."""
    if kind is None:
        return types.TEXT.oid
    found = parse_type(kind)
    if found.name == "array" and found.element is not None and found.element.name in _KINDS:
        return _KINDS[found.element.name].array
    return _KINDS.get(found.name, types.TEXT).oid
