"""What comes from a client, for several who wait for it one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

Message: TypeAlias = MutableMapping[str, Any]


class Received:
    """ASGI `receive` whose waiting can be given up: what then comes is for whoever waits next.

    A server may take a receive that is cancelled for the end of the request: granian tells the next one that the
    client has left, and an answer that had just begun is cut.

    Args:
        receive: of the server.
    """

    def __init__(self, receive: Callable[[], Awaitable[Message]]) -> None:
        self._receive = receive
        self._coming: asyncio.Future[Message] | None = None

    async def __call__(self) -> Message:
        """The next message; cancelled with its caller unless somebody gave up waiting before."""
        return await (self._receive() if self._coming is None else self.patiently())

    async def patiently(self) -> Message:
        """The next message, for a caller that may be cancelled."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._receive())
        message = await asyncio.shield(self._coming)
        self._coming = None
        return message

    def close(self) -> None:
        """Wait no more; the request has been answered."""
        if self._coming is not None:
            self._coming.cancel()
