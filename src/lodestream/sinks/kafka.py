"""Publishes a table to a Kafka topic: its new rows, or its changes by key."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from lodestream.drivers.kafka_connection import Connection
from lodestream.drivers.kafka_topics import TopicIds
from lodestream.drivers.kafka_writer import Bookmark, Headers, KafkaWriter, Outgoing
from lodestream.errors import ConfigError, DataLossRefused, TransientError
from lodestream.formats._json_text import json_objects, texts
from lodestream.ports.settings import Settings
from lodestream.ports.sink import Changes, Publishing, SinkPosition, SinkWants
from lodestream.sinks._avro import avro_records, avro_schema

_RAW = "_raw"
_KNOWN_S = 10.0
_VERSION, _INDEX = "lodestream-version", "lodestream-index"


class Create(Settings):
    """How to make the topic when it is not there."""

    partitions: int = Field(default=1, ge=1)
    """How many partitions."""
    replication: int = Field(default=-1, ge=-1)
    """Copies of each partition; -1 leaves it to the cluster."""
    config: dict[str, str] = Field(default_factory=dict)
    """Topic settings, such as `retention.ms`. A table whose rows change gets `cleanup.policy: compact` by itself."""


class KafkaSinkSettings(Connection):
    """Where to publish, and in which form."""

    topic: str = Field(min_length=1, max_length=249, pattern=r"^[A-Za-z0-9._-]+$")
    """The topic. It must be there, unless `create` is set."""
    value: Literal["json", "avro", "raw"] = "json"
    """A message's value: a JSON object, an Avro record framed for the schema registry, or the bytes of `_raw`."""
    columns: tuple[str, ...] | None = None
    """Columns of the value. Default: all whose name does not begin with `_`."""
    key: str | tuple[str, ...] | None = None
    """Columns of the key, or one column. One of text or bytes is the key as it is, others are a JSON object.
    Default: `window_start` and the groups for a table of windows, else no key."""
    headers: tuple[str, ...] = ()
    """Columns that become headers of their name; a list of key and value, such as `kafka_headers`, becomes several."""
    timestamp: str | None = None
    """Timestamp column that becomes the message's time. Default: the time of publishing."""
    mark: bool = False
    """Put the table's version and the number of the change in it into headers `lodestream-version` and
    `lodestream-index`: whoever drops repeats of the two sees each change once. Always on where a service has no
    transactions."""
    registry: str = "default"
    """Schema registry for `avro`: a name under `registries:`, or a URL."""
    subject: str | None = None
    """Subject under which the Avro schema is registered. Default: `TOPIC-value`."""
    partitioner: Literal[
        "murmur2_random", "murmur2", "consistent_random", "consistent", "fnv1a_random", "fnv1a", "random"
    ] = "murmur2_random"
    """How the key chooses the partition; the default does as Java clients do."""
    transactional_id: str | None = None
    """Name under which the position is kept. Another name begins anew, as `start` says. Default: of this table in this
    lake, for this topic."""
    start: Literal["all", "new"] = "all"
    """Where a new sink begins: with all that the table holds, or with what changes from now on."""
    create: Create | None = None
    """Make the topic when it is not there."""

    undeciding: ClassVar[frozenset[str]] = frozenset(Connection.model_fields)
    """Settings that say nothing of the messages, and are not stored with the table."""


class KafkaSink:
    """Publishes new rows as messages, and changing rows as upserts by key with tombstones for keys that are gone.

    The messages of a range of versions and the position after it are one transaction. With profile `event_hubs`, which
    has no transactions, a message may come twice after a failure; two headers tell repeats.
    """

    settings: ClassVar[type[Settings]] = KafkaSinkSettings

    def __init__(self, settings: KafkaSinkSettings, publishing: Publishing) -> None:
        self._settings, self._publishing = settings, publishing
        self._marked = settings.mark or not settings.transactional
        self._writer: KafkaWriter | None = None
        self._place: str | None = None
        self._schema_ids: dict[str, int] = {}

    @classmethod
    def wants(cls, settings: Mapping[str, object]) -> SinkWants:
        """What the settings, as written, ask of the table."""
        named: list[tuple[tuple[str | int, ...], str]] = []
        for name in ("columns", "key", "headers", "timestamp"):
            given = settings.get(name)
            columns = _names(given) or ()
            single = isinstance(given, str)
            named += [((name,) if single else (name, i), column) for i, column in enumerate(columns)]
        value: tuple[str, ...] | None = _names(settings.get("columns"))
        if settings.get("value") == "raw":
            value = (_RAW,)
            named.append((("value",), _RAW))
        hubs = settings.get("profile") == "event_hubs"
        return SinkWants(
            target=str(settings.get("topic", "")), columns=tuple(named), key=_names(settings.get("key")), value=value,
            exactly_once=not hubs, start=str(settings.get("start", "all")),
            note=f"at least once: Event Hubs has no transactions; drop repeats of the headers {_VERSION} and {_INDEX}"
            if hubs else "",
        )  # fmt: skip

    @property
    def identity(self) -> str:
        """The transactional id."""
        return self._settings.transactional_id or self._publishing.identity

    @property
    def place(self) -> str | None:
        """Id of the topic."""
        return self._place

    def open(self) -> SinkPosition | None:
        """Connect, make the topic if that is wanted, and take over from earlier processes."""
        settings, topic = self._settings, self._settings.topic
        connection = settings.librdkafka(self._publishing.root)
        writer = self._writer = KafkaWriter(
            {**connection, "partitioner": settings.partitioner}, topic=topic,
            transactional_id=self.identity if settings.transactional else None, group=self.identity,
            passing=self._publishing.passing,
        )  # fmt: skip
        if not writer.connect():
            if settings.create is None:
                raise ConfigError("no such topic", topic=topic, fix="make it, or set create: {partitions: …}")
            compacted = {"cleanup.policy": "compact"} if self._publishing.changing else {}
            made = settings.create
            writer.create(made.partitions, made.replication, {**compacted, **made.config})
        self._place = _topic_id(connection, topic)
        found = writer.take_over()
        return None if found is None else _position(found, topic)

    def publish(self, changes: Sequence[Changes], position: SinkPosition) -> int:
        """Publish the changes and record the position in one transaction, or without one and without a record."""
        assert self._writer is not None
        messages = (message for piece in changes for message in self._messages(piece))
        return self._writer.send(messages, _bookmark(position))

    def close(self) -> None:
        """Let go of the connection."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    # --- rows to messages --------------------------------------------------------------------------------------------

    def _messages(self, changes: Changes) -> Iterable[Outgoing]:
        rows = changes.rows
        count = len(rows)
        if not count:
            return []
        values: Iterable[bytes | None] = self._values(rows)
        if changes.gone is not None:
            values = [None if gone else value for value, gone in zip(values, changes.gone.tolist(), strict=True)]
        times: Iterable[int] = repeat(0, count)
        if self._settings.timestamp is not None:
            micros = rows.column(self._settings.timestamp).cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
            times = (micros.fill_null(0).to_numpy() // 1000).tolist()
        return map(Outgoing, values, self._keys(rows), self._headers(changes), times)

    def _values(self, rows: pa.Table) -> Sequence[bytes | None]:
        if self._settings.value == "raw":
            raw: list[bytes | None] = rows.column(_RAW).to_pylist()
            return raw
        wanted = self._publishing.value
        chosen = rows.select(list(wanted or (name for name in rows.column_names if not name.startswith("_"))))
        if self._settings.value == "json":
            return json_objects(chosen)
        frame = b"\x00" + struct.pack(">I", self._schema_id(chosen.schema))
        return [frame + record for record in avro_records(chosen)]

    def _schema_id(self, columns: pa.Schema) -> int:
        """Id of the columns' Avro schema in the registry, registered there once."""
        table = self._publishing.table
        text = avro_schema(columns, table.name, f"lodestream.{table.layer}")
        if text not in self._schema_ids:
            subject = self._settings.subject or f"{self._settings.topic}-value"
            registry = self._publishing.registry(self._settings.registry)
            self._schema_ids[text] = registry.register(subject, "AVRO", text)
        return self._schema_ids[text]

    def _keys(self, rows: pa.Table) -> Iterable[bytes | None]:
        key = self._publishing.key
        if not key:
            return repeat(None, len(rows))
        if len(key) > 1:
            return json_objects(rows.select(list(key)))
        found = [one.encode() if isinstance(one, str) else one for one in texts(rows.column(key[0]))]
        if self._publishing.changing and None in found:
            fix = "name columns that are never NULL under key:, or several, which make a JSON object"
            raise ConfigError("a row has no key", table=str(self._publishing.table), key=key[0], fix=fix)
        return found

    def _headers(self, changes: Changes) -> Iterator[Headers | None]:
        parts: list[Iterable[Headers]] = [
            _header_column(name, changes.rows.column(name)) for name in self._settings.headers
        ]
        if self._marked:
            version = str(changes.version).encode()
            numbers = np.arange(changes.first, changes.first + len(changes.rows)).tolist()
            parts.append([(_VERSION, version), (_INDEX, str(number).encode())] for number in numbers)
        if not parts:
            return repeat(None, len(changes.rows))
        return ([one for part in row for one in part] for row in zip(*parts, strict=True))


def _topic_id(connection: Mapping[str, Any], topic: str) -> str | None:
    """Id of the topic, None where the cluster tells none; one that was just made takes a moment to be known."""
    ids = TopicIds(connection)
    try:
        deadline = time.monotonic() + _KNOWN_S
        while topic not in (found := ids.of([topic])):
            if time.monotonic() > deadline:
                raise TransientError("the topic is not known yet", topic=topic)
            time.sleep(0.05)
        return found[topic]
    finally:
        ids.close()


def _header_column(name: str, column: pa.ChunkedArray) -> Iterator[Headers]:
    kind = column.type
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type) and kind.value_type.names == ["key", "value"]:
        return ([(one["key"], one["value"]) for one in row or ()] for row in column.to_pylist())
    return ([] if one is None else [(name, one if isinstance(one, bytes) else one.encode())] for one in texts(column))


def _names(given: object) -> tuple[str, ...] | None:
    """A list of names, or one name, as a tuple; None for anything else."""
    if isinstance(given, str):
        return (given,)
    return tuple(given) if isinstance(given, list | tuple) else None


def _bookmark(position: SinkPosition) -> Bookmark:
    note = {
        "lodestream": 1, "table": position.table_id, "epoch": position.epoch, "version": position.version,
        "upto": position.upto, "changes": position.changes,
    }  # fmt: skip
    return Bookmark(position.version + 1, json.dumps(note, sort_keys=True))


def _position(found: Bookmark, topic: str) -> SinkPosition:
    try:
        note = json.loads(found.note)
        return SinkPosition(
            str(note["table"]), int(note["epoch"]), int(note["version"]), int(note["upto"]), int(note["changes"])
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataLossRefused(
            "the consumer group has an offset that no sink wrote; begin anew with another transactional_id",
            topic=topic, offset=found.offset,
        ) from error  # fmt: skip


component = KafkaSink
