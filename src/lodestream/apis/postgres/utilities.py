"""Statements that concern the session alone: settings, transactions, prepared statements, cursors."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from lodestream.apis.postgres import statements as st
from lodestream.apis.postgres import types
from lodestream.apis.postgres.failures import PgError
from lodestream.apis.postgres.parameters import decode
from lodestream.apis.postgres.session import FAILED, IDLE, OPEN, Session
from lodestream.apis.postgres.variables import Variables


def ends_transaction(statement: st.Statement) -> bool:
    """Whether a statement may follow an error in a transaction."""
    return isinstance(statement, st.Transaction) and statement.action in ("commit", "rollback", "rollback to")


def run(statement: st.Statement, session: Session, notice: Callable[[PgError], None]) -> str:
    """Do what a statement says to the session; what the client hears in the end.

    Raises:
        PgError: it cannot be done.
    """
    if isinstance(statement, st.Transaction):
        return _transaction(statement, session, notice)
    if isinstance(statement, st.SetVariable):
        warning = session.variables.set(statement.name, statement.value, local=statement.local)
        if warning is not None:
            notice(warning)
        return "SET"
    if isinstance(statement, st.Reset):
        session.variables.reset(statement.name)
        return "RESET"
    if isinstance(statement, st.Close):
        if statement.name == "all":
            for name in [name for name in session.portals if name]:
                session.close(name)
            return "CLOSE CURSOR ALL"
        session.portal(statement.name)
        session.close(statement.name)
        return "CLOSE CURSOR"
    if isinstance(statement, st.Deallocate):
        if statement.name == "all":
            session.statements.clear()
            return "DEALLOCATE ALL"
        session.prepared(statement.name)
        del session.statements[statement.name]
        return "DEALLOCATE"
    if isinstance(statement, st.Discard):
        return _discard(statement, session)
    if isinstance(statement, st.Ignored):
        return statement.tag
    raise PgError("0A000", "this statement cannot be run here")


def _discard(statement: st.Discard, session: Session) -> str:
    if statement.what == "all":
        if session.status != IDLE:
            raise PgError("25001", "DISCARD ALL cannot run inside a transaction block")
        session.end()
        session.variables.reset("all")
    elif statement.what == "plans":
        for prepared in session.statements.values():
            prepared.shape = None
    return f"DISCARD {statement.what.upper()}"


def _transaction(statement: st.Transaction, session: Session, notice: Callable[[PgError], None]) -> str:
    inside = session.status != IDLE
    if statement.action == "begin":
        if inside:
            notice(PgError("25001", "there is already a transaction in progress"))
        else:
            session.status = OPEN
        return "BEGIN"
    if statement.action in ("commit", "rollback"):
        if not inside:
            notice(PgError("25P01", "there is no transaction in progress"))
        failed = session.status == FAILED
        session.end_transaction()
        return "COMMIT" if statement.action == "commit" and not failed else "ROLLBACK"
    if not inside:
        raise PgError("25P01", f"{statement.action.upper()} can only be used in transaction blocks")
    if statement.action == "savepoint":
        session.savepoints.append(statement.name)
        return "SAVEPOINT"
    if statement.name not in session.savepoints:
        raise PgError("3B001", f'savepoint "{statement.name}" does not exist')
    place = len(session.savepoints) - 1 - session.savepoints[::-1].index(statement.name)
    if statement.action == "release":
        del session.savepoints[place:]
        return "RELEASE"
    del session.savepoints[place + 1 :]
    session.status = OPEN
    return "ROLLBACK"


def shown(statement: st.Show, variables: Variables) -> pa.Table:
    """The rows of SHOW."""
    if statement.name == "all":
        rows = list(variables.all())
        names, values = [name for name, _ in rows], [value for _, value in rows]
        return pa.table({"name": names, "setting": values, "description": [""] * len(rows)}, schema=_ALL)
    value = variables.get(statement.name)
    return pa.table({_proper(statement.name): pa.array([value], pa.string())})


_ALL = pa.schema([("name", pa.string()), ("setting", pa.string()), ("description", pa.string())])
_PROPER = {"timezone": "TimeZone", "datestyle": "DateStyle", "intervalstyle": "IntervalStyle"}


def show_schema(statement: st.Show) -> pa.Schema:
    """The columns of SHOW."""
    return _ALL if statement.name == "all" else pa.schema([(_proper(statement.name), pa.string())])


def _proper(name: str) -> str:
    return _PROPER.get(name.lower(), name)


def execute_values(statement: st.Execute, oids: tuple[int, ...]) -> list[object]:
    """The values of EXECUTE in the types of the prepared statement. Raises PgError when they do not fit."""
    values: list[object] = []
    for number, token in enumerate(statement.values):
        if token.kind == "word" and token.text == "null":
            values.append(None)
        else:
            oid = oids[number] if number < len(oids) else types.TEXT.oid
            values.append(decode(token.text.encode(), oid, 0))
    return values
