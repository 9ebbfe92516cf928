"""Topics of a broker on Spark and on the embedded engine. Runs in the environment of Spark; see scenarios.py."""

from __future__ import annotations

import json
import os
import random
import socket
import time
from functools import partial

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic, OffsetSpec

from lodestream.app import open_project
from lodestream.lake.layout import table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from tests.engines.spark.handover import Both, killed
from tests.engines.spark.sites import Site, said_by

BRONZE = TableName("bronze", "orders")

PARTITIONS = 3
PATH = "tables/bronze/orders.yaml"
DECLARATIONS = {
    "lodestream.yaml": "project: topics\nlake: lake\nbatch: {rows_max: 200}\n",
    PATH: """
source: {kafka: {servers: "%(servers)s", topic: %(topic)s, include: [key, headers, timestamp, partition, offset]}}
format: json
keep_raw: true
columns: {id: string, user: bigint, at: timestamp, amount: "decimal(12,2)"}
""",
    "tables/silver/orders.yaml": """
from: stream(bronze.orders)
derive: {rate: 100 / user}
expect:
  paid: {that: amount >= 0, else: quarantine}
event_time: {column: at, delay: 100 seconds}
dedup: {keys: [id]}
""",
    "tables/gold/per_minute.yaml": """
from: stream(silver.orders)
event_time: {column: at, delay: 100 seconds}
window: {every: 1 minute}
group_by: [user]
measures: {orders: count(*), amount: sum(amount)}
emit: updates
""",
}  # fmt: skip


class Topic:
    """One topic, and what comes in."""

    def __init__(self, servers, name, partitions=PARTITIONS):
        self.servers, self.name = servers, name
        self.partitions = partitions
        self.admin = AdminClient({"bootstrap.servers": servers})
        made = NewTopic(name, partitions, config={"retention.ms": "-1"})
        self.admin.create_topics([made])[name].result(10)

    def producer(self, **settings):
        return Producer({"bootstrap.servers": self.servers, "linger.ms": 2, **settings})

    def send(self, messages, producer=None):
        mine = producer or self.producer()
        for number, (value, more) in enumerate(messages):
            mine.produce(self.name, value, **{"partition": number % self.partitions, **more})
        assert mine.flush(20) == 0

    def in_transaction(self, messages, *, commit):
        producer = self.producer(**{"transactional.id": f"{self.name}-{random.random()}"})
        producer.init_transactions(20)
        producer.begin_transaction()
        self.send(messages, producer)
        producer.commit_transaction(20) if commit else producer.abort_transaction(20)

    def grow(self, partitions):
        self.admin.create_partitions([NewPartitions(self.name, partitions)])[self.name].result(10)
        self.partitions = partitions

    def ends(self):
        wanted = {TopicPartition(self.name, number): OffsetSpec.latest() for number in range(self.partitions)}
        return {one.partition: found.result(10).offset for one, found in self.admin.list_offsets(wanted).items()}

    def cut(self, partition, before):
        where = TopicPartition(self.name, partition, before)
        self.admin.delete_records([where])[where].result(10)


def messages(seed, start_s, count):
    """Values and what comes with them: copies, torn ones, tombstones, times that do not grow, keys and headers."""
    rng = random.Random(seed)
    seen = []
    for i in range(count):
        at = start_s + i - rng.randint(0, 40)
        row = {
            "id": f"k{seed}-{i}", "user": rng.choice([1, 2, 3, 0, None]),
            "amount": rng.choice(["5.25", "7.50", "-1.00"]),
            "at": None if rng.random() < 0.1 else f"2026-01-01T{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}Z",
        }  # fmt: skip
        row = rng.choice(seen) if seen and rng.random() < 0.2 else row
        seen.append(row)
        kind = rng.random()
        value = None if kind < 0.04 else b'{"id": "torn' if kind < 0.08 else json.dumps(row).encode()
        headers = [("trace", f"{i}".encode()), ("none", None), ("bytes", b"\xff\x00")][: rng.randint(0, 3)]
        yield value, {"key": rng.choice([None, b"", b"k\xff", row["id"].encode()]), "headers": headers,
                      "timestamp": 1_767_225_600_000 + at * 1000}  # fmt: skip


class TopicSite(Site):
    """A project that reads the topic."""

    def __init__(self, root, session, servers, declarations=DECLARATIONS):
        super().__init__(root, session)
        self.topic = Topic(servers, f"spark-{os.getpid()}-{time.monotonic_ns()}")
        given = {"servers": servers, "topic": self.topic.name}
        self.write({**declarations, PATH: declarations[PATH] % given})


def turns(root, session, servers, declarations=DECLARATIONS):
    """One topic and two lakes: the embedded engine alone, and both in turn; Spark has the first turn and the third.

    Before the third turn the topic gets partitions and loses records that nobody has read, and Spark dies in it.
    """
    gaps = DECLARATIONS[PATH].replace("include:", "on_data_loss: record_gap, include:")
    site = TopicSite(root, session, servers, {**declarations, PATH: gaps})
    both, found, topic = Both(site), [], site.topic
    topic.send(messages(1, 40_000, 60))
    topic.in_transaction(messages(2, 40_060, 25), commit=True)
    topic.in_transaction(messages(3, 40_080, 25), commit=False)
    topic.send(messages(4, 40_100, 15))
    site.on_embedded()
    both.on_spark()
    found.append(site.judged())
    topic.send(messages(5, 40_115, 40))
    site.on_embedded()
    both.on_embedded()
    found.append(site.judged())
    topic.grow(PARTITIONS + 1)
    topic.send(messages(6, 40_160, 80))
    topic.cut(0, topic.ends()[0] - 10)
    site.on_embedded()
    died = []
    for method in ("_commit_quarantine", "_commit_main"):
        died += killed(partial(both.on_spark, "bronze.orders"), method)
    both.on_spark()
    found.append(site.judged())
    return {"turns": found, "told": both.told, "died": died, "marks": marks(site)}


def marks(site):
    """What the last commit of either lake says of partitions, and how far the topic goes."""
    found = {}
    for lake in ("spark", "embedded"):
        app = open_project(str(site.root), lake=lake)
        table = DeltaTable.open(app.disk, table_path(app.lake, BRONZE))
        found[lake] = {
            name.rsplit("/", 1)[1]: last for name, last in table.snapshot.txns.items() if name.count("/") > 2
        }
    return found | {"ends": site.topic.ends()}


def losses(root, session, servers):
    """What is said when records are gone that were not read, when the topic is, and when no broker answers."""
    site = TopicSite(root, session, servers)
    topic, read = site.topic, partial(site.on_spark, "bronze.orders")
    topic.send(messages(7, 40_000, 30))
    read()
    topic.send(messages(8, 40_030, 30))
    topic.cut(1, topic.ends()[1] - 2)
    said = {"retention": said_by(read)}
    path = site.root / PATH
    declared = path.read_text()
    path.write_text(declared.replace("include:", "on_data_loss: record_gap, include:"))
    read()
    counts = [info.get("counts", {}) for info in site.infos("bronze.orders")]
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        path.write_text(declared.replace(servers, f"127.0.0.1:{nobody.getsockname()[1]}"))
        said["nobody"] = said_by(read)
    path.write_text(declared)
    topic.admin.delete_topics([topic.name])[topic.name].result(10)
    said["gone"] = said_by(read)
    return {"said": said, "counts": counts, "problems": site.reconcile()}
