"""Rows of one answer on their way to a client: taken in other threads, so that the loop never waits for a query."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Protocol, TypeVar

import pyarrow as pa

from lodestream.apis.postgres.cancel import Cancel
from lodestream.apis.postgres.failures import PgError
from lodestream.errors import LodestreamError
from lodestream.ports.waiting import tried

_FIRST_BYTES = 256 << 10
_FIRST_ROWS = 20_000

T = TypeVar("T")


class Source(Protocol):
    """An answer of the query service, or something like it."""

    schema: pa.Schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows."""

    def cancel(self) -> None:
        """End it, from any thread."""

    def close(self) -> None:
        """Let go of it."""


class Static:
    """Rows that are there already."""

    def __init__(self, table: pa.Table) -> None:
        self.schema = table.schema
        self._table = table

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows."""
        yield from self._table.to_batches()

    def cancel(self) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing is open."""


class RowStream:
    """Hands rows of a source out in the portions that a client asks for.

    Args:
        executor: runs what waits.
        cancel: ends the source on demand.
    """

    def __init__(self, executor: Executor, cancel: Cancel) -> None:
        self._executor, self.cancel = executor, cancel
        self._source: Source | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._ready: deque[pa.RecordBatch] = deque()
        self._ended = False
        self.schema = pa.schema([])

    async def open(self, ask: Callable[[], Source]) -> None:
        """Ask, and take the first rows in at once: most answers are then complete. Raises what asking raises."""
        if not tried(lambda: self._open(ask)):
            await self._run(lambda: self._open(ask))

    async def take(self, rows_max: int | None) -> pa.RecordBatch | None:
        """The next rows, at most so many; None at the end. Raises what the source raises."""
        while not self._ready and not self._ended:
            await self._run(lambda: self._fill(1, 1))
        if not self._ready:
            return None
        batch = self._ready.popleft()
        if rows_max is not None and batch.num_rows > rows_max:
            self._ready.appendleft(batch.slice(rows_max))
            batch = batch.slice(0, rows_max)
        return batch

    async def ahead(self) -> None:
        """Take the next rows in while others are on their way."""
        if not self._ready and not self._ended:
            await self._run(lambda: self._fill(1, 1))

    @property
    def at_end(self) -> bool:
        """Whether it is known that no row is left."""
        return self._ended and not self._ready

    @property
    def held_bytes(self) -> int:
        """Size of the rows that are taken in and not handed out."""
        return sum(batch.nbytes for batch in self._ready)

    async def spool(self, bytes_max: int) -> None:
        """Take in what is left, up to a bound, so that no worker waits for a client that has paused."""
        if not self._ended:
            await self._run(lambda: self._fill(bytes_max, None))

    def close(self) -> None:
        """Let go of the source."""
        self._ready.clear()
        self._ended = True
        if self._source is not None:
            self._executor.submit(self._source.close)

    def _open(self, ask: Callable[[], Source]) -> bool:
        try:
            source = ask()
        except LodestreamError:
            self._check()
            raise
        self._source, self.schema = source, source.schema
        self.cancel.watch(source.cancel)
        self._batches = source.batches()
        self._fill(_FIRST_BYTES, _FIRST_ROWS)
        return True

    def _fill(self, bytes_max: int, rows_max: int | None) -> None:
        size = rows = 0
        while not self._ended and size < bytes_max and (rows_max is None or rows < rows_max):
            try:
                batch = next(self._batches, None)
            except BaseException as error:  # whatever it was, its worker is free again
                self._ended = True
                self._release()
                if isinstance(error, LodestreamError):
                    self._check()
                raise
            if batch is None:
                self._ended = True
                self._release()
            elif batch.num_rows:
                self._ready.append(batch)
                size, rows = size + batch.nbytes, rows + batch.num_rows

    def _check(self) -> None:
        """Whatever went wrong after a cancel request, the request is what the client hears of."""
        if self.cancel.asked:
            raise PgError("57014", "canceling statement due to user request") from None

    def _release(self) -> None:
        if self._source is not None:
            self._source.close()

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
