"""One sink of one table: publishes the table's changes in the order of its versions, a range at a time, exactly once.

The messages of a piece and the position after it take effect together. Whatever goes wrong, the sink is opened again:
that shuts out the process that published before, ends what it left open, and tells the position to go on from.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from lodestream.engines.embedded.changes import Span, TableChanges
from lodestream.engines.embedded.frames import connect
from lodestream.engines.embedded.sink_memory import Remembered, SinkMemory
from lodestream.engines.embedded.surroundings import Committed, Surroundings
from lodestream.errors import DataLossRefused, TransientError
from lodestream.lake.crash import point
from lodestream.lake.layout import epoch_of, table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.steps import Publish
from lodestream.ports.sink import Changes, Sink, SinkPosition

Piece = tuple[list[Changes], SinkPosition]
"""What is published in one go, and the position after it."""
MakeSink = Callable[[Publish, str, Callable[[str], None]], Sink]
"""Makes a sink under the given identity that tells its steps to the given function."""

_MESSAGES_MAX = 100_000
"""How many messages go into one transaction, so that it ends well before the broker's time limit."""
_FORGOTTEN_AFTER_US = 24 * 3600 * 1_000_000
"""A service may forget a position after this time; before it, no position means that nothing was published."""
_NOTED_EVERY = 50
_ANEW = "begin anew with another transactional_id and start: all or new"


@dataclass
class SinkState:
    """What the runtime shows of a sink; the fields that a table's flow has too.

    Attributes:
        batch: version up to which everything is published.
        clock_us: when something was published last.
    """

    batch: int = -1
    clock_us: int = 0
    max_event_us: int | None = None
    consumed: dict[str, Any] = field(default_factory=dict)

    def held(self) -> tuple[dict[str, int], int, int]:
        """Nothing, in memory and in files: see `FlowState.held`."""
        return {}, 0, 0


class SinkFlow:
    """Publishes to one sink; `open` it first and again after every error, then `step` as often as wanted.

    Two processes of one machine: the one that holds the lock publishes, the other looks on. Of two machines the one
    that opened last publishes, and the other gets ConflictError.
    """

    source: None = None

    def __init__(self, publish: Publish, around: Surroundings, make: MakeSink) -> None:
        self.publish, self.around = publish, around
        self.name = publish.name
        self.state = SinkState()
        self._make = make
        self._memory = SinkMemory(around.disk, around.lake, publish.name)
        self._connection = connect()
        self._table: DeltaTable | None = None
        self._sink: Sink | None = None
        self._known: Remembered | None = None
        self._noted = -1
        self._news = False
        self._pieces: Iterator[Piece] | None = None

    def open(self) -> None:
        """Forget all that was known; the next step finds out where things are."""
        self._let_go()
        self._table = None

    def step(self, *, idle: bool = True) -> Committed | None:
        """Publish one piece; None when there is nothing to publish now, or when another process does it.

        Raises:
            ConflictError: another process has taken over.
            DataLossRefused: what is to be published is no longer there, or the target is not what it was.
            TransientError: try again after `open`.
        """
        del idle
        if not self._ready():
            return None
        if self._pieces is None:
            self._pieces = self._begin()
        piece = next(self._pieces, None) if self._pieces is not None else None
        if piece is None:
            self._pieces = None
            self._note(soon=False)
            return None
        changes, position = piece
        rows = sum(len(one.rows) for one in changes)
        assert self._sink is not None
        assert self._known is not None
        count = self._sink.publish(changes, position)
        point("sink.published")
        self.state.clock_us = self.around.clock()
        if position.upto == position.version:
            self._known = self._known.done(position, count)
            self._pieces, self._news = None, True
        else:
            self._known = replace(self._known, position=position, messages=self._known.messages + count)
        self.state.batch = position.version
        return Committed(position.version, "publish", position.upto, {"input": rows, "output": count})

    @property
    def caught_up(self) -> bool:
        """Whether every version of the table is published, by this process or another."""
        if self._table is None:
            return True
        known = self._known if self._sink is not None else self._memory.read()
        return known is not None and not known.under_way and known.position.version >= self._table.snapshot.version

    def close(self) -> None:
        """Note how far we are and let go."""
        self._let_go()
        self._connection.close()

    def _let_go(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            with contextlib.suppress(TransientError):  # a full disk: the note only saves others a look
                self._note(soon=True)
            sink.close()
        self._known, self._pieces = None, None
        self._memory.unlock()

    # --- where to go on ----------------------------------------------------------------------------------------------

    def _ready(self) -> bool:
        """Have the table, the lock and an open sink; False when there is no table, or another process has the lock."""
        if self._table is None:
            self._table = DeltaTable.follow(self.around.disk, table_path(self.around.lake, self.name.table))
            if self._table is None:
                return False
        self._table.refresh()
        if not self._memory.lock():
            return False
        if self._sink is None:
            self._take_over(self._table)
        return True

    def _take_over(self, table: DeltaTable) -> None:
        table_id = table.snapshot.metadata.id
        identity = f"lodestream.{self.name.table}.{self.name.sink.partition(':')[2]}.{table_id[:8]}"
        sink = self._sink = self._make(self.publish, identity, lambda step: point(f"sink.{step}"))
        found = sink.open()
        point("sink.open")
        kept = self._memory.read()
        if kept is not None and (kept.identity != sink.identity or kept.position.table_id != table_id):
            kept = None
        if kept is not None and sink.place != kept.place and None not in (sink.place, kept.place):
            self._refuse("the target was deleted and made again since we published to it")
        if found is not None and found.table_id != table_id:
            self._refuse("the position on record is of another table, under the same transactional id")
        epoch = epoch_of(table.snapshot.metadata.configuration)
        new = Remembered(sink.identity, sink.place, SinkPosition(table_id, epoch, -1, -1))
        self._known = replace(self._agreed(new, kept, found), place=sink.place)
        self._noted = kept.position.version if kept is not None else -1
        if self._known.position.version > table.snapshot.version:
            self._refuse("the table is older than what was published; it was put back from a copy")
        self.state.batch = self._known.position.version

    def _agreed(self, new: Remembered, kept: Remembered | None, found: SinkPosition | None) -> Remembered:
        """The position to go on from: the one kept with the messages, unless we know that nothing came after it.

        What was begun and is not done yet has to be done with the same versions, so that the rest of it fits.
        """
        if found is None:
            if kept is None:
                return new
            age_us = self.around.clock() - kept.since_us
            if self.publish.exactly_once and kept.under_way and age_us > _FORGOTTEN_AFTER_US:
                self._refuse("the service has forgotten whether the last messages were published")
            return kept
        if kept is None:
            kept = replace(new, position=found, upto=found.upto)
        elif found.order > kept.position.order:
            whole = found.upto == found.version
            kept = replace(
                kept, position=found, upto=found.upto,
                hot=kept.hot if not whole else kept.hot_upto if found.version == kept.upto else (),
            )  # fmt: skip
        return kept

    def _refuse(self, why: str) -> None:
        raise DataLossRefused(f"{why}; {_ANEW}", sink=str(self.name))

    # --- what to publish ---------------------------------------------------------------------------------------------

    def _begin(self) -> Iterator[Piece] | None:
        """The pieces of the next range, or of the one that is under way; None when there is none."""
        known, table = self._known, self._table
        assert known is not None
        assert table is not None
        reader = TableChanges(table, self.publish, self._connection, self.around.handover)
        after = known.position.version
        hot = tuple(add.path for add in table.hot_files())
        if after < 0:
            if not known.under_way:
                known = self._remember(known.begun(table.snapshot.version, hot, self.around.clock()))
            if self.publish.start == "new":
                return iter([([], self._at(known.upto, known.upto, 0))])
        if known.under_way:
            return self._cut(reader, Span(after, known.upto, whole=after < 0), known.position.changes)
        following = reader.next(after, self.around.limit.rows_max)
        if following is None:
            return None
        span, changed = following
        if not changed:
            position = replace(known.position, version=span.upto, upto=span.upto, changes=0)
            self._known = replace(known, position=position, upto=span.upto, hot=hot)
            self.state.batch = span.upto
            return None
        self._remember(known.begun(span.upto, hot, self.around.clock()))
        return self._cut(reader, span, 0)

    def _cut(self, reader: TableChanges, span: Span, skip: int) -> Iterator[Piece]:
        """Pieces of so many changes, without the first `skip`; the last one carries the position at the range's end."""
        done = skip
        waiting: list[Changes] = []
        for changes in _after(reader.read(span), skip):
            while len(changes.rows):
                room = _MESSAGES_MAX - sum(len(one.rows) for one in waiting)
                if not room:
                    yield waiting, self._at(span.after, span.upto, done)
                    waiting, room = [], _MESSAGES_MAX
                waiting.append(_slice(changes, 0, room))
                done += len(waiting[-1].rows)
                changes = _slice(changes, room, len(changes.rows))
        yield waiting, self._at(span.upto, span.upto, 0)

    def _at(self, version: int, upto: int, changes: int) -> SinkPosition:
        assert self._table is not None
        metadata = self._table.snapshot.metadata
        return SinkPosition(metadata.id, epoch_of(metadata.configuration), version, upto, changes)

    def _remember(self, known: Remembered) -> Remembered:
        """Write down what is about to be published, and what upkeep must leave alone for it."""
        self._memory.write(known)
        self._known, self._noted, self._news = known, known.position.version, False
        point("sink.remembered")
        return known

    def _note(self, *, soon: bool) -> None:
        """Write down that all is published; nothing hangs on it but upkeep and those who look."""
        known = self._known
        if known is None or known.position.version < 0 or known.position.version == self._noted:
            return
        if soon or self._news or known.position.version - self._noted >= _NOTED_EVERY:
            self._memory.write(known)
            self._noted, self._news = known.position.version, False


def _after(found: Iterable[Changes], skip: int) -> Iterator[Changes]:
    """The changes without the first `skip`."""
    for changes in found:
        passed = min(skip, len(changes.rows))
        skip -= passed
        yield _slice(changes, passed, len(changes.rows))


def _slice(changes: Changes, start: int, stop: int) -> Changes:
    rows = changes.rows.slice(start, stop - start)
    gone = None if changes.gone is None else changes.gone[start:stop]
    return Changes(changes.version, changes.first + start, rows, gone)
