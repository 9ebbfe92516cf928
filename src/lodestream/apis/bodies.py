"""Takes a request's body in: bounded in size, time, and what it becomes when it is decompressed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pyarrow as pa
from starlette.requests import Request

from lodestream.apis.problems import ProblemError

_CODECS = {"gzip": "gzip", "x-gzip": "gzip", "zstd": "zstd"}
_PIECE = 1 << 18


@dataclass
class Room:
    """Memory for bodies that are being received.

    Attributes:
        size: bytes that there are.
        used: bytes that are taken.
    """

    size: int
    used: int = 0


async def receive(request: Request, bytes_max: int, timeout_s: float, room: Room) -> bytes:
    """The body as it came. The caller gives `len(body)` bytes back to `room` when it has let go of it.

    Raises:
        ProblemError: 400 half sent, 408 too slow, 413 too large, 429 too many at once.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > bytes_max:
        raise ProblemError(413, f"a body has at most {bytes_max} bytes; send several", headers={"Connection": "close"})
    pieces: list[bytes] = []
    taken = 0
    try:
        async with asyncio.timeout(timeout_s):
            more = True
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ProblemError(400, "the body ended too soon")
                piece = message.get("body", b"")
                more = message.get("more_body", False)
                if not piece:
                    continue
                if taken + len(piece) > bytes_max:
                    raise ProblemError(
                        413, f"a body has at most {bytes_max} bytes; send several", headers={"Connection": "close"}
                    )
                if room.used + len(piece) > room.size:
                    raise ProblemError(
                        429, "the server is receiving too much at once", retry_after_s=1,
                        headers={"Connection": "close"},
                    )  # fmt: skip
                room.used += len(piece)
                taken += len(piece)
                pieces.append(piece)
        if declared.isdigit() and taken != int(declared):
            raise ProblemError(400, "the body ended too soon")
    except TimeoutError:
        room.used -= taken
        raise ProblemError(
            408, f"the body did not come within {timeout_s:g} seconds", headers={"Connection": "close"}
        ) from None
    except BaseException:
        room.used -= taken
        raise
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def decompressed(body: bytes, encoding: str, bytes_max: int, room: Room) -> bytes:
    """The body without its content encoding. The caller gives `len` of it back to `room` instead of the body's.

    Raises:
        ProblemError: 400 broken, 413 it becomes too large, 415 another encoding, 429 too many at once.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    codec = _CODECS.get(encoding)
    if codec is None:
        raise ProblemError(
            415, "content encodings are gzip and zstd, one of them", headers={"Accept-Encoding": "gzip, zstd"}
        )
    pieces: list[bytes] = []
    size = 0
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), codec) as stream:
            while piece := stream.read(_PIECE):
                size += len(piece)
                if size > bytes_max:
                    raise ProblemError(413, f"a body has at most {bytes_max} bytes once it is decompressed")
                pieces.append(piece)
    except (OSError, pa.ArrowInvalid) as error:
        raise ProblemError(400, f"the body is not valid {encoding}") from error
    more = size - len(body)
    if room.used + more > room.size:
        raise ProblemError(429, "the server is receiving too much at once", retry_after_s=1)
    room.used += more
    return b"".join(pieces)
