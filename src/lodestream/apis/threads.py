"""What blocks: in threads, so many at once, for as long as the client waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import Request

from lodestream.apis.problems import ProblemError
from lodestream.apis.received import Received

T = TypeVar("T")
_SOON_S = 0.02


class Threads:
    """A bounded number of threads for what blocks, and of requests that wait for one.

    Args:
        count: threads.
        waiting_max: requests that may wait; more are refused.
    """

    def __init__(self, count: int = 48, waiting_max: int = 256) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="rest")
        self._room = count + waiting_max
        self._taken = 0

    async def run(self, function: Callable[[], T]) -> T:
        """What `function` returns, from a thread. Raises ProblemError 503 when too many wait, and what it raises.

        When the caller is cancelled the thread goes on until the function ends.
        """
        if self._taken >= self._room:
            raise ProblemError(503, "the server has more to do than it can", retry_after_s=1)
        self._taken += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, function)
        future.add_done_callback(self._left)
        return await future

    def close(self) -> None:
        """Start nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _left(self, _future: object) -> None:
        self._taken -= 1


async def attended(request: Request, work: Any, cancel: Callable[[], None]) -> Any:
    """What `work` gives, unless the client leaves before: then it is cancelled. Raises ProblemError 400 then."""
    working = asyncio.ensure_future(work)
    leaving: asyncio.Future[None] | None = None
    try:
        await asyncio.wait({working}, timeout=_SOON_S)
        if not working.done():  # most are, and to listen for a client that leaves takes its time too
            leaving = asyncio.ensure_future(_gone(request))
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            cancel()
            raise ProblemError(400, "the client left before the answer")
        return await working
    finally:
        if leaving is not None:
            leaving.cancel()
        if not working.done():  # nobody will ask for its result
            cancel()
            working.add_done_callback(lambda done: done.cancelled() or done.exception())


async def _gone(request: Request) -> None:
    """Return when the client has left."""
    receive = request.receive
    wait = receive.patiently if isinstance(receive, Received) else receive
    while (await wait())["type"] != "http.disconnect":
        pass
