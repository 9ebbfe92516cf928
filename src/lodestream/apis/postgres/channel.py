"""One client's bytes, in and out: messages with bounds on size and time, TLS, and a slow reader slows the writer."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Callable

from lodestream.apis.postgres.failures import PgError

_BUFFER_BYTES = 256 << 10
_WRITTEN_BYTES = 1 << 20


class ClosedError(Exception):
    """The client has gone."""


class Channel(asyncio.Protocol):
    """A connection, read message by message.

    Args:
        accepted: called with the channel once it is connected.
    """

    def __init__(self, accepted: Callable[[Channel], None]) -> None:
        self._accepted = accepted
        self._buffer = bytearray()
        self._waiting: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._ended = False
        self._paused = False
        self._wanted = 0
        self.heard = 0.0
        self.lost = asyncio.Event()
        self.on_lost: Callable[[], None] = lambda: None
        self.transport: asyncio.Transport | None = None

    # what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client is there, for the first time or now within TLS."""
        assert isinstance(transport, asyncio.Transport)
        first, self.transport = self.transport is None, transport
        self.heard = asyncio.get_running_loop().time()
        transport.set_write_buffer_limits(high=_WRITTEN_BYTES)
        if first:
            self._accepted(self)

    def data_received(self, data: bytes) -> None:
        """Keep what came; stop reading while there is enough."""
        self._buffer += data
        self.heard = asyncio.get_running_loop().time()
        if len(self._buffer) > max(_BUFFER_BYTES, self._wanted) and not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """The client says no more."""
        self._end()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The client has gone."""
        self._end()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def pause_writing(self) -> None:
        """The client does not keep up."""
        if self._drained is None or self._drained.done():
            self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _end(self) -> None:
        first, self._ended = not self._ended, True
        self.lost.set()
        self._wake()
        if first:
            self.on_lost()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # reading

    @property
    def waiting_bytes(self) -> int:
        """How much has come that was not read."""
        return len(self._buffer)

    async def take(self, count: int) -> bytes:
        """So many bytes. Raises ClosedError when the client goes before."""
        self._wanted = count
        while len(self._buffer) < count:
            if self._ended:
                raise ClosedError
            if self._paused and self.transport is not None:
                self._paused = False
                self.transport.resume_reading()
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        found = bytes(self._buffer[:count])
        del self._buffer[:count]
        return found

    async def startup(self, bytes_max: int) -> bytes:
        """The body of a message without a tag, as the first ones are."""
        (length,) = struct.unpack(">I", await self.take(4))
        if not 8 <= length <= bytes_max:
            raise PgError("08P01", "invalid length of startup packet", fatal=True)
        return await self.take(length - 4)

    async def message(self, bytes_max: int) -> tuple[bytes, bytes]:
        """Tag and body of the next message."""
        head = await self.take(5)
        (length,) = struct.unpack(">I", head[1:])
        if length < 4:
            raise PgError("08P01", "invalid message length", fatal=True)
        if length > bytes_max:
            raise PgError(
                "54000", "a message is too large", detail=f"{length} bytes, {bytes_max} at most", fatal=True
            )  # fmt: skip
        return head[:1], await self.take(length - 4)

    # writing

    def write(self, data: bytes) -> None:
        """Send soon."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the client has taken most of what was written. Raises ClosedError when it goes."""
        if self._drained is not None and not self._drained.done():
            await asyncio.shield(self._drained)
        if self._ended and (self.transport is None or self.transport.is_closing()):
            raise ClosedError

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Go on within TLS. Raises ClosedError when the handshake fails."""
        assert self.transport is not None
        if self._buffer:  # what came before the handshake was sent in the clear, by whomever
            raise PgError("08P01", "received unencrypted data after SSL request", fatal=True)
        loop = asyncio.get_running_loop()
        try:
            made = await loop.start_tls(self.transport, self, context, server_side=True, ssl_handshake_timeout=10)
        except (TimeoutError, OSError, ssl.SSLError):
            raise ClosedError from None
        if made is None:
            raise ClosedError
        self.transport = made
        made.set_write_buffer_limits(high=_WRITTEN_BYTES)

    def close(self) -> None:
        """Send what is written, then end."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """End at once."""
        if self.transport is not None:
            self.transport.abort()
