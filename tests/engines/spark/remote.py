"""What test_remote.py asks of a server of Spark Connect: a client in the environment of Spark, a line of JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from lodestream.app import open_project
from lodestream.engines.spark import connect
from lodestream.lake.layout import table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from tests.engines.spark.scenarios import orders
from tests.engines.spark.sites import Site, said_by
from tests.engines.spark.topics import TopicSite, messages

BRONZE, SILVER = "tables/bronze/orders.yaml", "tables/silver/orders.yaml"
DECLARATIONS = {
    "lodestream.yaml": "project: remote\nlake: lake\n",
    BRONZE: """
source: {files: {path: data/orders, settle: 0}}
format: json
columns: {id: string, user: bigint, at: timestamp, amount: "decimal(12,2)", code: string, tags: array<string>}
""",
    SILVER: """
from: stream(bronze.orders)
expect: {paid: {that: amount >= 0, else: quarantine}}
event_time: {column: at, delay: 10 seconds}
dedup: {keys: [id]}
""",
    "tables/gold/last.yaml": """
from: stream(silver.orders)
changes: {keys: [user], sequence_by: at}
""",
    "tables/gold/minutes.yaml": """
from: stream(silver.orders)
event_time: {column: at, delay: 10 seconds}
window: {every: 1 minute}
measures: {orders: count(*), amount: sum(amount)}
emit: updates
""",
}


class RemoteSite(Site):
    """A project whose lake `spark` a server fills."""

    def __init__(self, root, url, number=0):
        super().__init__(root, None)
        self.url, self.number = url, number

    def bring(self):
        self.write({f"data/orders/{self.number}.jsonl": orders(self.number, 40_012 + 47 * self.number, 40)})
        self.number += 1

    def on_server(self, *tables, lake="spark"):
        app = open_project(str(self.root), lake=lake)
        app.engine = "spark"
        app.apply()
        names = [TableName.parse(table) for table in tables] or None
        try:
            app.on_spark(self.url).run(tables=names, until_idle=True, listener=told)
        finally:
            app.close()


def told(name, committed):
    print(f"{name} {committed.batch} {committed.kind}", file=sys.stderr, flush=True)


def killed(site, root):
    """A client that dies when the first table has got its batch; what it began goes on, or is done again."""
    command = [sys.executable, "-m", "tests.engines.spark.remote", "client", str(root), site.url]
    with subprocess.Popen(command, start_new_session=True) as client:
        app = open_project(str(site.root), lake="spark")
        path = table_path(app.lake, TableName("bronze", "orders"))
        before, deadline = DeltaTable.open(app.disk, path).snapshot.version, time.monotonic() + 300
        while DeltaTable.open(app.disk, path).snapshot.version == before and time.monotonic() < deadline:
            assert client.poll() is None, "it ended"
            time.sleep(0.2)
        os.kill(client.pid, signal.SIGKILL)


def main():
    root, url, servers = Path(sys.argv[2]), sys.argv[3], sys.argv[4] if len(sys.argv) > 4 else ""
    site = RemoteSite(root, url)
    if sys.argv[1] == "client":
        site.on_server()
        return
    put = connect._put
    site.write(DECLARATIONS)
    answer = {"rounds": [], "said": {}}
    site.bring()
    site.on_embedded()
    site.on_server()
    answer["rounds"].append((*site.compare(), site.reconcile()))
    site.bring()
    site.on_embedded()
    killed(site, root)
    site.on_server()
    answer["rounds"].append((*site.compare(), site.reconcile()))
    session = connect.connect(url, str(root))
    connect._put = lambda path, text: None  # what is written here is not there
    answer["said"]["unseen"] = said_by(lambda: site.on_server("bronze.orders"))
    connect._put = put
    answer["said"]["embedded"] = said_by(lambda: site.on_server("bronze.orders", lake="embedded"))
    failing = RemoteSite(root / "failing", url)
    failing.write(DECLARATIONS | {SILVER: DECLARATIONS[SILVER].replace("else: quarantine", "else: fail")})
    failing.bring()
    answer["said"]["fail"] = said_by(lambda: failing.on_server("bronze.orders", "silver.orders"))
    if servers:
        topics = TopicSite(root / "topics", session, servers)
        topics.topic.send(messages(1, 40_000, 60))
        topics.on_embedded()
        topics.on_spark("bronze.orders")
        answer["topics"] = topics.compare()
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
