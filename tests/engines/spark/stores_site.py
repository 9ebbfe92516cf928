"""A project whose lake is in an object store, run on Spark beside the same one in a folder on the embedded engine."""

from __future__ import annotations

import json
import random
import shutil
import sys
from importlib.metadata import EntryPoint

from ruamel.yaml import YAML

from lodestream.app import open_project
from lodestream.deploy.databricks import make_bundle
from lodestream.deploy.jobs import CHECKPOINTS
from lodestream.errors import LodestreamError
from lodestream.lake.layout import table_path
from lodestream.lake.log import commit_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from tests.engines.spark.sites import Site

VOLUME = "volume"
"""Folder of the project that stands for a volume of Databricks."""
TABLES = {
    "bronze.orders": """
source: {files: {path: data/orders, settle: 0}}
format: json
columns: {id: string, user: bigint, at: timestamp, amount: "decimal(12,2)"}
partition_by: [date(at)]
""",
    "silver.orders": """
from: stream(bronze.orders)
expect: {has_id: {that: id is not null, else: quarantine}}
event_time: {column: at, delay: 20 seconds}
dedup: {keys: [id], within: 25 seconds}
""",
    "gold.per_minute": """
from: stream(silver.orders)
event_time: {column: at, delay: 1 second}
window: {every: 1 minute}
group_by: [user]
measures: {orders: count(*), revenue: sum(amount)}
""",
}
OFTENER = """
from: stream(silver.orders)
event_time: {column: at, delay: 1 second}
window: {every: 20 seconds}
measures: {orders: count(*)}
"""
WIDER = {
    "bronze.users": """
source: {files: {path: data/users, settle: 0}}
format: csv
columns: {id: bigint, tier: string}
""",
    "silver.known": """
from: stream(silver.orders)
enrich: {lookup: {table: bronze.users, on: {user: id}, columns: [tier]}}
""",
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
group_by: [user]
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
    "silver.last_of_user": """
from: stream(bronze.orders)
changes: {keys: [user], sequence_by: at, delete_when: amount > 100}
""",
    "silver.users_over_time": """
from: stream(bronze.orders)
changes: {keys: [user], sequence_by: at, delete_when: amount > 100, type: 2}
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
            "amount": rng.choice(["5.25", "120.00"]),
            "at": f"2026-01-01T{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}Z",
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


def as_on_databricks(site):
    """The stream of the bundle that `deploy databricks` makes, run by the wheel's entry point with its parameters."""
    with open_project(str(site.root), lake="embedded") as app:
        bundle = make_bundle(app.project, app.compiled_for("spark"))
    read = YAML(typ="safe", pure=True).load
    (task,) = read(bundle.files["resources/stream.yml"].decode())["resources"]["jobs"]["stream"]["tasks"]
    target = read(bundle.files["databricks.yml"].decode())["targets"]["dev"]["variables"]
    values = {
        "${workspace.file_path}/project": str(site.root), CHECKPOINTS: str(site.root / VOLUME),
        **{f"${{var.{name}}}": value for name, value in target.items()},
    }  # fmt: skip
    wheel, before = task["python_wheel_task"], sys.argv
    words = [values.get(word, word) for word in wheel["parameters"]]
    sys.argv = ["lodestream", *words, "--until-idle"]  # for else it does not end
    try:
        EntryPoint(wheel["entry_point"], f"{wheel['package_name']}.cli:main", "console_scripts").load()()
    finally:
        sys.argv = before
    return words


def in_store(root, session, killed, lake, store, *, wide=False, switched=False):
    """Rounds over a growing source: as on Databricks, then killed before a commit.

    With `wide` more tables, and killed after a commit; with `switched` the embedded engine goes on, then Spark again.
    """
    site = StoreSite(root, session, TABLES | (WIDER if wide else {}), lake, store)
    site.write({"data/users/a.csv": "id,tier\n1,gold\n2,silver\n3,\n"})
    answer = {"compared": [], "died": []}
    for number, start_s in enumerate((40_012, 40_055)):
        site.write({f"data/orders/{number}.jsonl": orders(number, start_s, 40)})
        site.on_embedded()
        if number == 0:
            if lake.startswith("abfss:"):
                answer["words"] = as_on_databricks(site)
            site.declare(checkpoints=VOLUME)
        elif number == 1:
            site.on_spark("bronze.orders")
            with killed("_commit_main"):
                answer["died"].append(told(lambda: site.on_spark("silver.orders")).get("message"))
            site.on_spark("silver.orders", "gold.per_minute")
        if wide:
            site.on_spark()
        answer["compared"].append(site.compare())
    [folder] = site.folders()
    answer["folder"] = str(folder.relative_to(site.root))
    if wide:
        answer |= again(site, folder)
    if switched:
        answer |= there_and_back(site)
    return answer


def there_and_back(site):
    """A round on the embedded engine, and one on Spark."""
    told, turns = [], []
    silver(site).checkpoint()
    for number, start_s in ((2, 40_100), (3, 40_150)):
        site.write({f"data/orders/{number}.jsonl": orders(number, start_s, 40)})
        site.on_embedded()
        if number == 2:
            with open_project(str(site.root)) as app:
                app.apply()
                app.pipeline(notice=lambda name, text: told.append(f"{name}: {text}")).run(until_idle=True)
        else:
            site.on_spark()
        turns.append(site.compare())
    return {"told": told, "turns": turns, "cleaned": whole_again(site)}


def silver(site):
    app = site.spark_app()
    return DeltaTable.open(app.disk, table_path(app.lake, TableName("silver", "orders")))


def whole_again(site):
    """A table that comes when the log of the one that it reads no longer begins at the beginning."""
    above = silver(site)
    above.checkpoint()
    above.clean_log(keep_versions=1, needed_from=above.snapshot.version)
    gone = not above.disk.exists(commit_path(above.path, 0))
    site.write({"tables/gold/oftener.yaml": OFTENER})
    site.on_embedded()
    site.on_spark("gold.oftener")
    return {"gone": gone, "compared": site.compare()}


def again(site, folder):
    """The last batch of silver once more, as if Spark had died before its own marker; then without the checkpoint."""
    before = versions(site)
    newest = max(int(path.name) for path in (folder / "commits").iterdir() if path.name.isdigit())
    for marker in (f"{newest}", f".{newest}.crc"):
        (folder / "commits" / marker).unlink(missing_ok=True)
    site.on_spark("silver.orders")
    repeated = versions(site)
    shutil.move(folder, site.root / "kept")
    lost = told(lambda: site.on_spark("silver.orders"))
    shutil.move(site.root / "kept", folder)
    return {"unchanged": before == repeated == versions(site), "lost": lost}
