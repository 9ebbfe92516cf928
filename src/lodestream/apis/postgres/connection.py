"""One connection: the messages of the simple and the extended protocol, and what is answered to each."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import ClassVar, TypeVar

import pyarrow as pa

from lodestream.apis.postgres import messages as m
from lodestream.apis.postgres import statements as st
from lodestream.apis.postgres import tree, types, utilities
from lodestream.apis.postgres.cancel import Cancel
from lodestream.apis.postgres.channel import Channel, ClosedError
from lodestream.apis.postgres.copying import CopyOut
from lodestream.apis.postgres.desk import Desk
from lodestream.apis.postgres.failures import PgError, pg_error
from lodestream.apis.postgres.lexer import statements
from lodestream.apis.postgres.parameters import decode
from lodestream.apis.postgres.questions import Planned
from lodestream.apis.postgres.reading import classify
from lodestream.apis.postgres.rows import data_rows, pieces_of
from lodestream.apis.postgres.session import FAILED, IDLE, OPEN, Portal, Prepared, Session, Shape
from lodestream.apis.postgres.streams import RowStream, Source, Static
from lodestream.errors import LodestreamError

_OUT_BYTES = 64 << 10
_INLINE_ROWS = 500
_INLINE_TEXT = 4_096

T = TypeVar("T")


class Connection:
    """Serves one client that has signed in.

    Args:
        channel: its bytes.
        session: its state.
        desk: answers its questions.
        executor: runs what waits.
        message_bytes_max: a larger message ends the connection.
    """

    def __init__(
        self, channel: Channel, session: Session, desk: Desk, executor: Executor, message_bytes_max: int
    ) -> None:
        self._channel, self.session, self._desk = channel, session, desk
        self._executor, self._message_bytes_max = executor, message_bytes_max
        self._out = bytearray()
        self._skipping = False
        self.cancel = Cancel()
        self.waiting = False
        channel.on_lost = lambda: self.cancel()

    async def serve(self) -> None:
        """Answer until the client says goodbye. Raises PgError for what ends the connection, ClosedError at its end."""
        self._emit(m.ready(self.session.status))
        while True:
            if not self._channel.waiting_bytes:  # the next message is not there yet: nothing is held back for it
                self._flush()
            self.waiting = True
            tag, body = await self._channel.message(self._message_bytes_max)
            self.waiting = False
            if tag == b"X":
                return
            if self._skipping and tag != b"S":
                continue
            try:
                await self._handle(tag, m.Body(body))
            except PgError as error:
                if error.fatal:
                    raise
                self._failed(error, simple=tag == b"Q")
            except LodestreamError as error:
                self._failed(pg_error(error), simple=tag == b"Q")
            await self._channel.drain()

    def tell(self, name: str, value: str) -> None:
        """Tell the client of a setting."""
        self._emit(m.parameter_status(name, value))

    def greet(self, process: int, secret: int) -> None:
        """Tell the client what its cancel requests must show."""
        self._emit(m.backend_key(process, secret))

    def notice(self, warning: PgError) -> None:
        """Tell the client something that is no error."""
        self._emit(m.notice(warning))

    async def _handle(self, tag: bytes, body: m.Body) -> None:
        handler = self._HANDLERS.get(tag)
        if handler is None:
            if tag in b"dcf":  # left over from a copy that was refused
                return
            raise PgError("08P01", f"invalid frontend message type {tag[0]}", fatal=True)
        await handler(self, body)

    def _failed(self, error: PgError, *, simple: bool) -> None:
        self._emit(m.error(error))
        if self.session.status == OPEN:
            self.session.status = FAILED
        if simple:
            self._emit(m.ready(self.session.status))
        else:
            self._skipping = True

    # the simple protocol

    async def _query(self, body: m.Body) -> None:
        text = body.text()
        body.end()
        self.session.close("")
        found = statements(text)
        if not found:
            self._emit(m.EMPTY_QUERY)
        for one in found:
            await self._simple(one)
        if self.session.status == IDLE:
            self.session.end_transaction()
        self._emit(m.ready(self.session.status))

    async def _simple(self, text: str) -> None:
        self.session.check(st.Ignored(text), lambda _: utilities.ends_transaction(classify(text)))
        statement = classify(text)
        portal = Portal(statement)
        try:
            schema = await self._open(portal)
            if schema is not None and not isinstance(statement, st.Copy):
                cursor = self.session.portal(statement.name) if isinstance(statement, st.Fetch) else portal
                self._emit(m.row_description(schema, cursor.column_formats(len(schema))))
            await self._run(portal, None)
        finally:
            portal.close()

    # the extended protocol

    async def _parse(self, body: m.Body) -> None:
        name, text = body.name(), body.text()
        types = tuple(body.oid() for _ in range(body.int16()))
        body.end()
        found = statements(text)
        if len(found) > 1:
            raise PgError("42601", "cannot insert multiple commands into a prepared statement")
        statement = classify(found[0]) if found else None
        self.session.check(statement, utilities.ends_transaction)
        wanted = 0
        if isinstance(statement, st.Question):
            count = functools.partial(tree.parameter_count, statement.text)
            wanted = count() if len(statement.text) < _INLINE_TEXT else await self._wait(count)
        self.session.prepare(name, Prepared(statement, types, max(wanted, len(types))))
        self._emit(m.PARSE_COMPLETE)

    async def _bind(self, body: m.Body) -> None:
        portal_name, name = body.name(), body.name()
        forms = [body.int16() for _ in range(body.int16())]
        values = [body.value() for _ in range(body.int16())]
        formats = [body.int16() for _ in range(body.int16())]
        body.end()
        if any(form not in (0, 1) for form in (*forms, *formats)):
            raise PgError("08P01", "unsupported format code")
        prepared = self.session.prepared(name)
        self.session.check(prepared.statement, utilities.ends_transaction)
        if forms and len(forms) not in (1, len(values)):
            raise PgError("08P01", f"bind message has {len(forms)} parameter formats but {len(values)} parameters")
        if len(values) != prepared.parameters:
            told = f"bind message supplies {len(values)} parameters, but prepared statement requires"
            raise PgError("08P01", f"{told} {prepared.parameters}")
        oids = await self._oids(prepared, values)
        each = forms if len(forms) == len(values) else (forms or [0]) * len(values)
        decoded = [decode(value, oid, form) for value, oid, form in zip(values, oids, each, strict=True)]
        self.session.open(portal_name, Portal(prepared.statement, decoded, formats))
        self._emit(m.BIND_COMPLETE)

    async def _oids(self, prepared: Prepared, values: list[bytes | None]) -> list[int]:
        """The types of the values: as the client declared them, else as the statement has them."""
        declared = [*prepared.types, *[0] * (len(values) - len(prepared.types))]
        if all(oid or value is None for oid, value in zip(declared, values, strict=True)):
            return declared
        shape = await self._shape(prepared)
        return [oid or found for oid, found in zip(declared, shape.parameters, strict=True)]

    async def _describe(self, body: m.Body) -> None:
        kind, name = body.byte(), body.name()
        body.end()
        if kind == b"S":
            prepared = self.session.prepared(name)
            self.session.check(prepared.statement, utilities.ends_transaction)
            shape = await self._shape(prepared)
            self._emit(m.parameter_description(shape.parameters))
            schema, formats = shape.schema, None
        elif kind == b"P":
            portal = self.session.portal(name)
            self.session.check(portal.statement, utilities.ends_transaction)
            if isinstance(portal.statement, st.Copy):
                schema = None
            elif isinstance(portal.statement, st.Question | st.Execute):
                schema = await self._open(portal)
            else:
                schema = self._columns(portal.statement)
            formats = portal.column_formats(len(schema)) if schema is not None else None
        else:
            raise PgError("08P01", "invalid DESCRIBE message")
        self._emit(m.NO_DATA if schema is None else m.row_description(schema, formats or [0] * len(schema)))

    async def _execute(self, body: m.Body) -> None:
        name, rows_max = body.name(), body.int32()
        body.end()
        portal = self.session.portal(name)
        self.session.check(portal.statement, utilities.ends_transaction)
        if portal.statement is None:
            self._emit(m.EMPTY_QUERY)
            return
        if portal.rows is not None:
            self.cancel = portal.rows.cancel
        elif not portal.done:
            await self._open(portal)
        await self._run(portal, rows_max if rows_max > 0 else None)

    async def _close_message(self, body: m.Body) -> None:
        kind, name = body.byte(), body.name()
        body.end()
        if kind == b"S":
            self.session.statements.pop(name, None)
        elif kind == b"P":
            self.session.close(name)
        else:
            raise PgError("08P01", "invalid CLOSE message")
        self._emit(m.CLOSE_COMPLETE)

    async def _sync(self, body: m.Body) -> None:
        body.end()
        self._skipping = False
        if self.session.status == IDLE:
            self.session.end_transaction()
        self._emit(m.ready(self.session.status))
        self._flush()

    async def _flush_message(self, body: m.Body) -> None:
        body.end()
        self._flush()

    async def _function_call(self, _body: m.Body) -> None:
        raise PgError("0A000", "function calls are not there; ask with SELECT")

    # running

    async def _open(self, portal: Portal) -> pa.Schema | None:
        """Begin to run what gives rows; its columns, or None when it gives none."""
        statement = portal.statement
        if portal.rows is not None:
            return portal.rows.schema
        if isinstance(statement, st.Question):
            return await self._ask(portal, statement.text)
        if isinstance(statement, st.Copy):
            return await self._ask(portal, statement.query)
        if isinstance(statement, st.Execute):
            prepared = self.session.prepared(statement.name)
            shape = await self._shape(prepared)
            portal.values = utilities.execute_values(statement, shape.parameters)
            if not isinstance(prepared.statement, st.Question):
                raise PgError("0A000", "only questions can be prepared and executed in SQL")
            return await self._ask(portal, prepared.statement.text)
        if isinstance(statement, st.Show):
            table = utilities.shown(statement, self.session.variables)
            portal.rows, portal.tag = RowStream(self._executor, self.cancel), "SHOW"
            await portal.rows.open(lambda: Static(table))
            return table.schema
        return self._columns(statement)

    async def _ask(self, portal: Portal, text: str) -> pa.Schema:
        if self._channel.lost.is_set():
            raise ClosedError
        session = self.session
        cancel = self.cancel = Cancel()
        rows = RowStream(self._executor, cancel)
        found: list[Planned] = []

        def ask() -> Source:
            planned = self._desk.plan(text, session)
            if len(portal.values) < planned.declared:
                raise PgError("42P02", f"there is no parameter ${len(portal.values) + 1}")
            found.append(planned)
            return self._desk.ask(planned, session, portal.values, cancel)

        await rows.open(ask)
        for name, value in found[0].settings:
            session.variables.set(name, value)
        portal.rows = rows
        return rows.schema

    def _columns(self, statement: st.Statement | None) -> pa.Schema | None:
        """The columns of a statement that concerns the session, without running it."""
        if isinstance(statement, st.Show):
            return utilities.show_schema(statement)
        if isinstance(statement, st.Fetch) and not statement.move:
            rows = self.session.portal(statement.name).rows
            return rows.schema if rows is not None else None
        return None

    async def _shape(self, prepared: Prepared) -> Shape:
        """Columns and parameters of a prepared statement."""
        if prepared.shape is None:
            statement = prepared.statement
            if isinstance(statement, st.Question):
                text = statement.text
                prepared.shape = await self._wait(lambda: self._desk.shape(text, self.session, prepared.types))
            elif isinstance(statement, st.Execute):
                prepared.shape = Shape((await self._shape(self.session.prepared(statement.name))).schema)
            else:
                prepared.shape = Shape(self._columns(statement), prepared.types)
        return prepared.shape

    async def _run(self, portal: Portal, rows_max: int | None) -> None:
        """Send rows of a portal, at most so many, and what the client hears after them."""
        statement = portal.statement
        if isinstance(statement, st.Copy):
            await self._copy(portal, statement)
        elif isinstance(statement, st.Fetch):
            await self._fetch(statement, portal)
        elif isinstance(statement, st.Declare):
            await self._declare(statement)
        elif isinstance(statement, st.Prepare):
            inner = classify(statement.query)
            oids = tuple(types.oid_of(name) for name in statement.types)
            count = await self._wait(functools.partial(tree.parameter_count, statement.query))
            self.session.prepare(statement.name, Prepared(inner, oids, max(count, len(oids))))
            self._emit(m.complete("PREPARE"))
        elif portal.rows is not None:
            sent, suspended = await self._send(portal, rows_max, portal)
            if suspended:
                self._emit(m.PORTAL_SUSPENDED)
            else:
                portal.done = True
                self._emit(m.complete(portal.tag or f"SELECT {sent}"))
        elif portal.done:
            self._emit(m.complete("SELECT 0"))
        else:
            assert statement is not None
            portal.done = True
            self._emit(m.complete(utilities.run(statement, self.session, self.notice)))

    async def _send(self, portal: Portal, rows_max: int | None, asked: Portal) -> tuple[int, bool]:
        """Send rows in the formats that `asked` says; how many, and whether there may be more."""
        rows = portal.rows
        assert rows is not None
        formats = (asked if asked.formats else portal).column_formats(len(rows.schema))
        sent = 0
        while rows_max is None or sent < rows_max:
            batch = await rows.take(None if rows_max is None else rows_max - sent)
            if batch is None:
                return sent, False
            sent += batch.num_rows
            await self._write(batch, lambda piece: data_rows(piece, formats), rows)
        if rows.at_end:
            return sent, False
        await rows.spool(self.session.room_bytes)
        return sent, not rows.at_end

    async def _write(self, batch: pa.RecordBatch, write: Callable[[pa.RecordBatch], bytes], rows: RowStream) -> None:
        """Send a batch; the next one is taken in while the client reads this one."""
        if batch.num_rows <= _INLINE_ROWS:
            self._emit(write(batch))
            return
        for piece in pieces_of(batch, batch.num_rows):
            self._flush()
            self._channel.write(await self._wait(functools.partial(write, piece)))
            following = asyncio.ensure_future(rows.ahead())
            try:
                await self._channel.drain()
            finally:
                await following

    async def _copy(self, portal: Portal, statement: st.Copy) -> None:
        assert portal.rows is not None
        out = CopyOut(statement, portal.rows.schema)
        self._emit(m.copy_out(len(portal.rows.schema), out.binary) + out.begin())
        sent = 0
        while (batch := await portal.rows.take(None)) is not None:
            sent += batch.num_rows
            await self._write(batch, out.rows, portal.rows)
        portal.done = True
        self._emit(out.end() + m.COPY_DONE + m.complete(f"COPY {sent}"))

    async def _declare(self, statement: st.Declare) -> None:
        if self.session.status == IDLE and not statement.hold:
            raise PgError("25P01", "DECLARE CURSOR can only be used in transaction blocks")
        portal = Portal(st.Question(statement.query), formats=[1] if statement.binary else [], hold=statement.hold)
        await self._ask(portal, statement.query)
        self.session.open(statement.name, portal)
        assert portal.rows is not None
        await portal.rows.spool(self.session.room_bytes)
        self._emit(m.complete("DECLARE CURSOR"))

    async def _fetch(self, statement: st.Fetch, asked: Portal) -> None:
        portal = self.session.portal(statement.name)
        if portal.rows is None:
            raise PgError("24000", f'cursor "{statement.name}" holds no rows')
        moved = 0
        if statement.count is not None and statement.count <= 0:
            pass
        elif statement.move:
            while statement.count is None or moved < statement.count:
                batch = await portal.rows.take(None if statement.count is None else statement.count - moved)
                if batch is None:
                    break
                moved += batch.num_rows
        else:
            moved, _ = await self._send(portal, statement.count, asked)
        self._emit(m.complete(f"{'MOVE' if statement.move else 'FETCH'} {moved}"))

    def _emit(self, data: bytes) -> None:
        self._out += data
        if len(self._out) > _OUT_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._out:
            self._channel.write(bytes(self._out))
            self._out.clear()

    async def _wait(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def farewell(self, error: PgError) -> None:
        """End the connection, and tell the client why."""
        self.cancel()
        self._flush()
        self._channel.write(m.error(error, "FATAL"))
        self._channel.close()

    _HANDLERS: ClassVar[dict[bytes, Callable[[Connection, m.Body], Awaitable[None]]]] = {
        b"Q": _query, b"P": _parse, b"B": _bind, b"D": _describe, b"E": _execute, b"C": _close_message, b"S": _sync,
        b"H": _flush_message, b"F": _function_call,
    }  # fmt: skip


__all__ = ["ClosedError", "Connection"]
