"""A project whose lake is in an object store, run on Spark beside the same one in a folder on the embedded engine."""

from __future__ import annotations

import json
import random
import shutil

from ruamel.yaml import YAML

from lodestream.app import open_project
from lodestream.errors import LodestreamError
from lodestream.lake.layout import table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from tests.engines.spark.sites import Site

TABLES = {
    "bronze.orders": """
source: {files: {path: data/orders, settle: 0}}
format: json
columns: {id: string, user: bigint, at: timestamp, amount: "decimal(12,2)"}
partition_by: [date(at)]
""",
    "bronze.users": """
source: {files: {path: data/users, settle: 0}}
format: csv
columns: {id: bigint, tier: string}
""",
    "silver.orders": """
from: stream(bronze.orders)
expect: {has_id: {that: id is not null, else: quarantine}}
event_time: {column: at, delay: 20 seconds}
dedup: {keys: [id], within: 25 seconds}
enrich: {lookup: {table: bronze.users, on: {user: id}, columns: [tier]}}
""",
    "gold.per_minute": """
from: stream(silver.orders)
event_time: {column: at, delay: 1 second}
window: {every: 1 minute}
group_by: [tier]
measures: {orders: count(*), revenue: sum(amount)}
""",
}
WIDER = {
    "gold.corrected": """
from: stream(silver.orders)
event_time: {column: at, delay: 1 second}
window: {every: 20 seconds}
measures: {orders: count(*)}
emit: final
late: update
""",
    "gold.shown": """
from: stream(silver.orders)
event_time: {column: at, delay: 1 second}
window: {every: 1 minute, slide: 20 seconds}
group_by: [tier]
measures: {orders: count(*)}
emit: updates
""",
    "gold.raw_visits": """
from: stream(bronze.orders)
skip_silver: true
event_time: {column: at, delay: 10 seconds}
dedup: {keys: [id]}
enrich: {lookup: {table: bronze.users, on: {user: id}, columns: [tier]}}
window: {gap: 5 seconds}
group_by: [tier]
measures: {orders: count(*)}
emit: final
""",
    "gold.visits_per_minute": """
from: stream(gold.raw_visits)
window: {every: 1 minute}
measures: {visits: count(*), orders: sum(orders)}
emit: final
""",
    "silver.pairs": """
from: stream(bronze.orders)
event_time: {column: at, delay: 10 seconds}
dedup: {keys: [id, at]}
join:
  from: stream(bronze.orders)
  kind: left
  on: {user: user}
  event_time: {column: at, delay: 15 seconds}
  within: {before: 2 seconds, after: 4 seconds}
  columns: {id: other, at: other_at}
""",
    "gold.by_tier": """
sql: select u.tier, count(*) as orders from silver.orders o join bronze.users u on o.user = u.id group by u.tier
""",
}


class StoreSite(Site):
    """`lake:` is in the store; the embedded engine's is the folder `embedded`."""

    def __init__(self, root, session, tables, lake, store):
        super().__init__(root, session)
        self.lake, self.store = lake, store
        for name, text in tables.items():
            layer, _, short = name.partition(".")
            self.write({f"tables/{layer}/{short}.yaml": text})
        self.declare()

    def declare(self, **settings):
        """Write `lake:`, with further settings."""
        lake = {"url": self.lake, **self.store, **settings}
        with open(self.root / "lodestream.yaml", "w", encoding="utf-8") as file:
            YAML(typ="safe").dump({"project": "stores", "lake": lake}, file)

    def spark_app(self):
        app = open_project(str(self.root))
        app.engine = "spark"
        return app

    def folders(self):
        """Where Spark keeps how far silver is."""
        return list(self.root.glob("**/_lodestream/flows/silver.orders/*/1/spark"))


def orders(seed, start_s, count):
    """Lines of a file: copies, stragglers that are not late, rows without an id."""
    rng = random.Random(seed)
    lines = []
    for i in range(count):
        at = start_s + i - rng.randint(0, 8)
        row = {
            "id": None if rng.random() < 0.1 else f"o{seed}-{i}", "user": rng.choice([1, 2, 3, 9]),
            "amount": rng.choice(["5.25", "120.00"]), "at": f"2026-01-01T{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}Z",
        }  # fmt: skip
        lines += [json.dumps(row)] * rng.choice([1, 1, 2])
    return "".join(line + "\n" for line in lines)


def versions(site):
    app = site.spark_app()
    opened = {str(name): DeltaTable.open(app.disk, table_path(app.lake, name)) for name in app.flows}
    return {name: table.snapshot.version for name, table in opened.items()}


def told(work):
    """What an error says; nothing when there is none."""
    try:
        work()
    except LodestreamError as error:
        return {"kind": type(error).__name__, "message": error.message, **{k: str(v) for k, v in error.facts.items()}}
    return {}


def in_store(root, session, killed, lake, store, *, wide=False):
    """Three rounds: the second killed before it commits, the third after it; then what goes wrong is said."""
    site = StoreSite(root, session, TABLES | (WIDER if wide else {}), lake, store)
    site.write({"data/users/a.csv": "id,tier\n1,gold\n2,silver\n3,\n"})
    compared, died, repeated = [], [], []
    for number, start_s in enumerate((40_012, 40_055, 40_100)):
        site.write({f"data/orders/{number}.jsonl": orders(number, start_s, 40)})
        site.on_embedded()
        if number == 1:
            site.on_spark("bronze.orders", "bronze.users")
            with killed("_commit_main"):
                died.append(told(lambda: site.on_spark("silver.orders")).get("message"))
        site.on_spark()
        compared.append(site.compare())
    before = versions(site)
    [folder] = site.folders()
    newest = max(int(path.name) for path in (folder / "commits").iterdir() if path.name.isdigit())
    for marker in (f"{newest}", f".{newest}.crc"):
        (folder / "commits" / marker).unlink(missing_ok=True)
    site.on_spark("silver.orders")
    repeated.append(before == versions(site))
    shutil.move(folder, site.root / "kept")
    lost = told(lambda: site.on_spark("silver.orders"))
    shutil.move(site.root / "kept", folder)
    return {"compared": compared, "died": died, "repeated": repeated, "lost": lost, "unchanged": before == versions(site)}
