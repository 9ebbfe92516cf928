"""A project whose lake is in an object store, run on Spark beside the same one in a folder on the embedded engine."""

from __future__ import annotations

import json
import random
import shutil
import sys
from functools import partial
from importlib.metadata import EntryPoint

from ruamel.yaml import YAML

from lodestream.app import open_project
from lodestream.deploy.databricks import make_bundle
from lodestream.deploy.jobs import CHECKPOINTS
from lodestream.lake.log import commit_path
from tests.engines.spark.handover import killed
from tests.engines.spark.sites import Site, said_by, unmark

VOLUME = "volume"
"""Folder of the project that stands for a volume of Databricks."""
TABLES = {
    "tables/bronze/orders.yaml": """
source: {files: {path: data/orders, settle: 0}}
format: json
columns: {id: string, user: bigint, at: timestamp, amount: "decimal(12,2)"}
partition_by: [date(at)]
""",
    "tables/silver/orders.yaml": """
from: stream(bronze.orders)
expect: {has_id: {that: id is not null, else: quarantine}}
event_time: {column: at, delay: 20 seconds}
dedup: {keys: [id], within: 25 seconds}
""",
    "tables/gold/per_minute.yaml": """
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
    "tables/bronze/users.yaml": """
source: {files: {path: data/users, settle: 0}}
format: csv
columns: {id: bigint, tier: string}
""",
    "tables/silver/known.yaml": """
from: stream(silver.orders)
enrich: {lookup: {table: bronze.users, on: {user: id}, columns: [tier]}}
""",
    "tables/gold/corrected.yaml": """
from: stream(silver.orders)
event_time: {column: at, delay: 1 second}
window: {every: 20 seconds}
measures: {orders: count(*)}
emit: final
late: update
""",
    "tables/gold/shown.yaml": """
from: stream(silver.orders)
event_time: {column: at, delay: 1 second}
window: {every: 1 minute, slide: 20 seconds}
group_by: [user]
measures: {orders: count(*)}
emit: updates
""",
    "tables/gold/raw_visits.yaml": """
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
    "tables/gold/visits_per_minute.yaml": """
from: stream(gold.raw_visits)
window: {every: 1 minute}
measures: {visits: count(*), orders: sum(orders)}
emit: final
""",
    "tables/silver/pairs.yaml": """
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
    "tables/silver/last_of_user.yaml": """
from: stream(bronze.orders)
changes: {keys: [user], sequence_by: at, delete_when: amount > 100}
""",
    "tables/silver/users_over_time.yaml": """
from: stream(bronze.orders)
changes: {keys: [user], sequence_by: at, delete_when: amount > 100, type: 2}
""",
    "tables/gold/by_tier.yaml": """
sql: select u.tier, count(*) as orders from silver.orders o join bronze.users u on o.user = u.id group by u.tier
""",
}


class StoreSite(Site):
    """`lake:` is in the store; the embedded engine's is the folder `embedded`."""

    def __init__(self, root, session, tables, lake, store):
        super().__init__(root, session)
        self.lake, self.store = lake, store
        self.write(tables)
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


def in_store(root, session, lake, store, *, wide=False, switched=False):
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
            answer["died"] += killed(partial(site.on_spark, "silver.orders"), "_commit_main")
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
    site.table("silver.orders").checkpoint()
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


def whole_again(site):
    """A table that comes when the log of the one that it reads no longer begins at the beginning."""
    above = site.table("silver.orders")
    above.checkpoint()
    above.clean_log(keep_versions=1, needed_from=above.snapshot.version)
    gone = not above.disk.exists(commit_path(above.path, 0))
    site.write({"tables/gold/oftener.yaml": OFTENER})
    site.on_embedded()
    site.on_spark("gold.oftener")
    return {"gone": gone, "compared": site.compare()}


def again(site, folder):
    """The last batch of silver once more, as if Spark had died before its own marker; then without the checkpoint."""
    before = site.versions()
    unmark(folder)
    site.on_spark("silver.orders")
    repeated = site.versions()
    shutil.move(folder, site.root / "kept")
    lost = said_by(partial(site.on_spark, "silver.orders"))
    shutil.move(site.root / "kept", folder)
    return {"unchanged": before == repeated == site.versions(), "lost": lost}
