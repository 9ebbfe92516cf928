"""Listens for clients, in one process or several on one port, until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lodestream.apis.postgres import login
from lodestream.apis.postgres import messages as m
from lodestream.apis.postgres.channel import Channel, ClosedError
from lodestream.apis.postgres.connection import Connection
from lodestream.apis.postgres.desk import Desk
from lodestream.apis.postgres.failures import PgError
from lodestream.apis.postgres.session import Session
from lodestream.apis.postgres.variables import TOLD, Variables
from lodestream.model.access import Principal

_LOOK_S = 1.0
_STOP_S = 3.0
_BACKLOG = 256
_SLOTS = 1 << 20


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much clients may take.

    Attributes:
        connections_max: clients at once.
        message_bytes_max: a larger message ends the connection.
        login_s: seconds to sign in.
        message_s: seconds for a message that has begun.
        idle_s: seconds that a client may say nothing.
    """

    connections_max: int = 100
    message_bytes_max: int = 16 << 20
    login_s: float = 10.0
    message_s: float = 60.0
    idle_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Place:
    """Which of several processes this is.

    Attributes:
        index: its number, from 0.
        sockets: folder of the sockets by which they pass cancel requests on; None for one process.
    """

    index: int = 0
    sockets: str | None = None

    def path(self, index: int) -> str:
        """The socket of a process."""
        return os.path.join(self.sockets or "", f"{index}.sock")


class PostgresServer:
    """Serves clients on a socket.

    Args:
        listener: bound, not listening yet.
        door: lets clients in.
        desk: answers them.
        bounds: how much they may take.
        place: which of several processes this is.
    """

    def __init__(
        self, listener: socket.socket, door: login.Door, desk: Desk, bounds: Bounds, place: Place | None = None
    ) -> None:
        self._listener, self._door, self._desk, self._bounds = listener, door, desk, bounds
        self._place = place or Place()
        self._executor = ThreadPoolExecutor(max(8, min(128, bounds.connections_max + 8)), "postgres")
        self._tasks: set[asyncio.Task[None]] = set()
        self._channels: set[Channel] = set()
        self._connections: dict[int, tuple[int, Connection, Channel]] = {}
        self._next = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._stopped = False

    def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`; `started` is called once the port answers."""
        asyncio.run(self._run(started))

    def stop(self) -> None:
        """Take no more clients, end those that are there, and end `run`; safe from any thread, and again."""
        self._stopped = True
        if self._loop is not None and self._stopping is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)

    async def _run(self, started: Callable[[], None]) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        if self._stopped:
            return
        server = await self._loop.create_server(lambda: Channel(self._accept), sock=self._listener, backlog=_BACKLOG)
        passing = None
        if self._place.sockets is not None:
            passing = await asyncio.start_unix_server(self._passed_on, self._place.path(self._place.index))
        looking = asyncio.create_task(self._look())
        try:
            started()
            await self._stopping.wait()
        finally:
            looking.cancel()
            server.close()
            if passing is not None:
                passing.close()
            await self._end()
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def _end(self) -> None:
        """Tell everybody that the server stops."""
        for _, connection, _ in list(self._connections.values()):
            connection.farewell(PgError("57P01", "the server is stopping"))
        for channel in list(self._channels):
            channel.close()
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=_STOP_S)
            for task in left:
                task.cancel()

    def _accept(self, channel: Channel) -> None:
        assert self._loop is not None
        task = self._loop.create_task(self._client(channel))
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            sys.stderr.write(f"error: a connection ended unexpectedly, please report it. cause={error!r}\n")

    async def _client(self, channel: Channel) -> None:
        """One client, from its first byte to its last."""
        self._channels.add(channel)
        try:
            if len(self._channels) > self._bounds.connections_max:
                raise PgError("53300", "sorry, too many clients already", fatal=True)
            try:
                async with asyncio.timeout(self._bounds.login_s):
                    welcome = await login.enter(channel, self._door)
            except TimeoutError:
                raise PgError("57014", "sign-in took too long", fatal=True) from None
            if isinstance(welcome, login.CancelRequest):
                await self.cancel(welcome)
            else:
                await self._serve(channel, welcome)
        except PgError as error:
            channel.write(m.error(error, "FATAL"))
        except ClosedError:
            pass
        finally:
            self._channels.discard(channel)
            channel.close()

    async def _serve(self, channel: Channel, welcome: login.Welcome) -> None:
        variables = Variables(welcome.principal.name, lambda _name, _value: None)
        for name, value in welcome.options.items():
            variables.start(name, value)
        process, secret = self._key(), secrets.randbits(32)
        session = Session(welcome.principal, self._desk.database, variables, process)
        connection = Connection(channel, session, self._desk, self._executor, self._bounds.message_bytes_max)
        for name in TOLD:
            connection.tell(name, variables.get(name))
        variables.listen(connection.tell)
        connection.greet(process, secret)
        self._connections[process] = (secret, connection, channel)
        try:
            await connection.serve()
        finally:
            del self._connections[process]
            connection.cancel()
            session.end()

    def _key(self) -> int:
        """A number for a connection that also says which process has it."""
        while True:
            self._next = (self._next + 1) % _SLOTS
            found = self._place.index * _SLOTS + self._next
            if found and found not in self._connections:
                return found

    async def cancel(self, request: login.CancelRequest, *, passed_on: bool = False) -> None:
        """End a question, here or in the process that has it; a wrong secret ends nothing."""
        index = request.process // _SLOTS
        if index == self._place.index:
            found = self._connections.get(request.process)
            if found is not None and secrets.compare_digest(
                struct.pack(">I", found[0]), struct.pack(">I", request.secret)
            ):
                found[1].cancel()
        elif self._place.sockets is not None and not passed_on:
            try:
                _, writer = await asyncio.open_unix_connection(self._place.path(index))
            except OSError:
                return
            writer.write(struct.pack(">II", request.process, request.secret))
            writer.close()

    async def _passed_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_LOOK_S):
                body = await reader.readexactly(8)
        except (TimeoutError, asyncio.IncompleteReadError, OSError):
            return
        finally:
            writer.close()
        await self.cancel(login.CancelRequest(*struct.unpack(">II", body)), passed_on=True)

    def _current(self, people: dict[int, Principal]) -> dict[int, Principal | None]:
        return {key: self._door.identity.current(principal) for key, principal in people.items()}

    async def _look(self) -> None:
        """End connections whose credential has ended, and those that say nothing for too long."""
        assert self._loop is not None
        while True:
            await asyncio.sleep(_LOOK_S)
            people = {id(one): one.session.principal for _, one, _ in self._connections.values()}
            current = await self._loop.run_in_executor(self._executor, self._current, people)
            for _, connection, channel in list(self._connections.values()):
                if id(connection) not in current:
                    continue
                principal = current[id(connection)]
                if principal is None or not principal.may(login.SCOPE):
                    connection.farewell(PgError("28000", "the key has ended"))
                    continue
                connection.session.principal = principal
                quiet = self._loop.time() - channel.heard
                if connection.waiting and channel.waiting_bytes and quiet > self._bounds.message_s:
                    connection.farewell(PgError("08P01", "a message has no end"))
                elif connection.waiting and quiet > self._bounds.idle_s:
                    connection.farewell(PgError("57P05", "terminating connection due to idle-session timeout"))


def bind(host: str, port: int, *, shared: bool) -> socket.socket:
    """A socket on an address; `shared` ones may be several on one port. Raises OSError when it is taken."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, kind)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made
