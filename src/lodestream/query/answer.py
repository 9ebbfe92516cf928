"""The rows of one answer on their way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType

import pyarrow as pa

from lodestream.errors import ConfigError
from lodestream.query.pool import Running


@dataclass(frozen=True, slots=True)
class Described:
    """What a query gives, found out without running it.

    Attributes:
        schema: its columns; timestamps are microseconds in UTC.
        types: DuckDB's name of each column's type.
        parameters: type of each parameter by Spark name, None where nothing tells it.
    """

    schema: pa.Schema
    types: tuple[str, ...]
    parameters: tuple[str | None, ...]


class Answer:
    """A running query, or rows that are there already. Use as a context manager or call `close`.

    Attributes:
        schema: columns of the result; timestamps are microseconds in UTC.
        pins: the version of each table that is read; `layer.name@n` for those that the query pinned itself.
        policies: names of the row filters and masks that were applied.
        files: for each table of which the caller sees every row, how many files were read and how many left out, as
            no row of them could meet the conditions; a table whose rows were found by key is not there.
        cut: whether rows were left out because of the budget; known once all rows are taken.
    """

    def __init__(
        self, source: Running | pa.Table, pins: Mapping[str, int], policies: tuple[str, ...] = (),
        ended: Callable[[int, int], None] | None = None, *, cut: bool = False,
        files: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:  # fmt: skip
        self._source, self._ended = source, ended
        self.schema = in_utc(source.schema)
        self.pins = MappingProxyType(dict(pins))
        self.policies = policies
        self.files = MappingProxyType(dict(files or {}))
        self.cut = cut
        self.rows = 0
        self._bytes = 0

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, piece by piece; can be taken once.

        Raises:
            ConfigError: the query errs on these rows, or needs more memory than it may use.
            TransientError: it took too long, was cancelled, or files were cleaned up meanwhile; ask again.
        """
        source = self._source
        for batch in source.batches() if isinstance(source, Running) else source.to_batches():
            self.rows += batch.num_rows
            self._bytes += pa.ipc.get_record_batch_size(batch)
            yield batch if batch.schema.equals(self.schema) else self._cast(batch)
        if isinstance(source, Running):
            self.cut = source.cut
        self._tell()

    def _cast(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Times in microseconds; what is finer than that is cut off."""
        try:
            return batch.cast(self.schema, safe=False)
        except (pa.ArrowException, ValueError) as error:
            self.close()
            raise ConfigError("a column of the answer has a type that cannot be given", reason=str(error)) from error

    def table(self) -> pa.Table:
        """All rows that are left."""
        if isinstance(self._source, pa.Table) and self._ended is None and self._source.schema.equals(self.schema):
            self.rows = self._source.num_rows
            self._tell()
            return self._source
        return pa.Table.from_batches(list(self.batches()), self.schema)

    def cancel(self) -> None:
        """End the query now, from any thread; whoever reads gets a TransientError."""
        if isinstance(self._source, Running):
            self._source.cancel()

    def close(self) -> None:
        """Let go of the query; twice is harmless."""
        if isinstance(self._source, Running):
            self._source.close()
        self._tell()

    def _tell(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self.rows, self._bytes)

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def in_utc(schema: pa.Schema) -> pa.Schema:
    """A schema whose timestamps are microseconds in UTC."""
    kinds = [_utc(kind) for kind in schema.types]
    if kinds == schema.types:
        return schema
    return pa.schema([field.with_type(kind) for field, kind in zip(schema, kinds, strict=True)])


def _utc(kind: pa.DataType) -> pa.DataType:
    """Timestamps get the zone they are in; nested types keep theirs."""
    return pa.timestamp("us", tz="UTC") if pa.types.is_timestamp(kind) else kind
