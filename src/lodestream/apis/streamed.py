"""Answers that are sent piece by piece, and are given up when nobody takes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.responses import StreamingResponse

STALL_S = 30.0
"""A client that takes nothing for so long is given up."""


class Streamed(StreamingResponse):
    """A response of pieces; their generator is closed when the response ends, however it ends.

    Args:
        pieces: closed in the end.
        media_type: of the response.
        headers: of the response.
        stall_s: seconds in which a piece must be taken.
    """

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], media_type: str, headers: Mapping[str, str] | None = None,
        stall_s: float = STALL_S,
    ) -> None:  # fmt: skip
        self._pieces, self._stall_s = pieces, stall_s
        super().__init__(pieces, headers=headers, media_type=media_type)

    async def stream_response(self, send: Any) -> None:
        """Send all of it. An error cuts the connection, so that no client takes a part for the whole."""

        async def soon(message: Any) -> None:
            async with asyncio.timeout(self._stall_s):
                await send(message)

        try:
            await super().stream_response(soon)
        finally:
            await self._pieces.aclose()
