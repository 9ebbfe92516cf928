"""Asks the query service for sessions; the one place that knows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from lodestream.apis.postgres import types
from lodestream.apis.postgres.questions import Planned, Surroundings, plan
from lodestream.apis.postgres.session import Session, Shape
from lodestream.apis.postgres.streams import Cancel, Source
from lodestream.model.types import parse_type
from lodestream.query.service import Answer, Budget, QueryService

DOOR = "postgres"
_BACKEND = 1
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


class Desk:
    """Plans and asks questions. Every method but the constructor may wait; call them from another thread.

    Args:
        service: answers.
        database: name of the project, which is that of the one database.
        time_s: seconds that a question may take.
    """

    def __init__(self, service: QueryService, database: str, time_s: float) -> None:
        self._service, self.database, self._time_s = service, database, time_s

    def plan(self, text: str, session: Session) -> Planned:
        """Make a question ready. Raises PgError or LodestreamError."""
        return plan(text, self._surroundings(session))

    def ask(self, planned: Planned, session: Session, values: Sequence[object], cancel: Cancel) -> Source:
        """Run a question. Raises what the service raises."""
        chosen = [values[number - 1] for number in planned.parameters]
        answer = self._service.ask(
            planned.text, principal=session.principal, door=DOOR, parameters=chosen, budget=self._budget(session),
            integer_division=True,
        )  # fmt: skip
        return self._named(answer, planned)

    def shape(self, planned: Planned, session: Session, declared: Sequence[int]) -> Shape:
        """Columns and parameters of a question. Raises what the service raises."""
        found = self._service.describe(planned.text, principal=session.principal, door=DOOR, integer_division=True)
        told = dict(zip(planned.parameters, found.parameters, strict=False))
        oids = []
        for number in range(1, max(planned.declared, len(declared)) + 1):
            given = declared[number - 1] if number <= len(declared) else 0
            oids.append(given or _oid(told.get(number)))
        schema = found.schema
        if planned.names is not None and len(planned.names) == len(schema):
            schema = pa.schema([field.with_name(name) for field, name in zip(schema, planned.names, strict=True)])
        return Shape(schema, tuple(oids))

    def _named(self, answer: Answer, planned: Planned) -> Source:
        if (
            planned.names is None
            or len(planned.names) != len(answer.schema)
            or list(planned.names) == answer.schema.names
        ):
            return answer
        return _Renamed(answer, planned.names)

    def _budget(self, session: Session) -> Budget:
        asked = session.variables.statement_timeout_s
        return Budget(time_s=min(asked or self._time_s, self._time_s))

    def _surroundings(self, session: Session) -> Surroundings:
        variables = session.variables
        path = variables.search_path
        user = session.principal.name
        values: dict[str, str | int | bool | None] = {
            "version": f"PostgreSQL {variables.get('server_version')}", "current_database": self.database,
            "current_catalog": self.database, "current_schema": path[0] if path else None, "current_user": user,
            "session_user": user, "user": user, "current_role": user, "pg_backend_pid": _BACKEND,
            "pg_is_in_recovery": False, "inet_server_addr": None, "inet_server_port": None, "inet_client_addr": None,
            "inet_client_port": None, "txid_current": 1, "pg_current_xact_id": 1, "current_query": None,
        }  # fmt: skip
        return Surroundings(
            tuple(str(name) for name in self._service.tables(session.principal)), path, {}, frozenset(), {}, values,
            {name.lower(): value for name, value in variables.all()},
        )  # fmt: skip


def _oid(kind: str | None) -> int:
    """Number of a Spark type; text where nothing tells the type, as PostgreSQL decides too."""
    if kind is None:
        return types.TEXT.oid
    found = parse_type(kind)
    if found.name == "array" and found.element is not None and found.element.name in _KINDS:
        return _KINDS[found.element.name].array
    return _KINDS.get(found.name, types.TEXT).oid
