"""What test_on_spark.py asks: runs in the environment of Spark, one session for all, a line of JSON per answer."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sys
import time
import traceback
from pathlib import Path

import pyarrow as pa

from lodestream.app import open_project
from lodestream.demo.flights import prepare, release_stragglers, withhold_stragglers
from lodestream.demo.run import write_project
from lodestream.engines.spark.expressions import error, value
from lodestream.engines.spark.flow import SparkFlow
from lodestream.engines.spark.session import open_session
from lodestream.errors import LodestreamError
from lodestream.expressions.scalar import compile_scalar
from lodestream.lake.layout import table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from tests.engines.spark.sites import Site, StreamSite
from tests.expressions.spark_rows import load, table

CODE = ("spark.sql.codegen.wholeStage", "spark.sql.codegen.factoryMode")
SMALL = {
    "spark.sql.shuffle.partitions": "1",
    # A few rows are sooner interpreted than compiled for; `rounds` and `compiled_functions` compile, as users do.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}
DECLARATIONS = {
    "lodestream.yaml": "project: both\nlake: lake\n",
    "tables/bronze/orders.yaml": """
source: {files: {path: data/orders, settle: 0}}
format: json
keep_raw: true
columns: {id: string, user: bigint, at: timestamp, amount: "decimal(12,2)", code: string, tags: array<string>}
""",
    "tables/bronze/users.yaml": """
source: {files: {path: data/users, settle: 0}}
format: csv
columns: {id: bigint, tier: string}
""",
    "tables/silver/orders.yaml": """
from: stream(bronze.orders)
derive:
  number: cast(code as int)
  customer: user + 1
  big: amount > 100
expect:
  has_id: {that: id is not null, else: quarantine}
  small: {that: cast(code as int) < 50, else: quarantine}
  paid: {that: amount >= 0, else: drop}
  known: {that: customer is not null, else: warn}
event_time: {column: at, delay: 10 seconds}
dedup: {keys: [id], within: 25 seconds}
enrich: {lookup: {table: bronze.users, on: {customer: id}, columns: [tier]}}
partition_by: [date(at)]
""",
    "tables/gold/per_minute.yaml": """
from: stream(silver.orders)
event_time: {column: at, delay: 1 second}
window: {every: 1 minute, slide: 20 seconds}
group_by: [tier]
measures: {orders: count(*), revenue: sum(amount), mean: avg(number), last: max(at)}
emit: updates
""",
    "tables/gold/raw_minutes.yaml": """
from: stream(bronze.orders)
skip_silver: true
event_time: {column: at, delay: 10 seconds}
dedup: {keys: [id]}
window: {every: 1 minute}
group_by: {first: "substring(code, 1, 1)"}
measures: {orders: count(*), codes: sum(cast(code as int)) filter (where amount > 0)}
emit: final
""",
    "tables/gold/by_tier.yaml": """
sql: |
  select o.tier, u.id, count(*) as orders, sum(o.amount) as revenue, max(o.at) as last
  from silver.orders o join bronze.users u on o.customer = u.id
  group by o.tier, u.id
""",
}


def orders(seed, start_s, count):
    """Lines of a file: copies, stragglers, missing times, torn lines, codes that are no numbers."""
    rng = random.Random(seed)
    lines, seen = [], []
    for i in range(count):
        now = start_s + i
        at = now - (rng.randint(15, 90) if rng.random() < 0.15 else rng.randint(0, 8))
        row = {
            "id": f"o{seed}-{i}", "user": rng.choice([1, 2, 3, 4, 9, None]),
            "amount": rng.choice(["5.25", "120.00", "-1.00"]),
            "at": f"2026-01-01T{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}Z",
            "code": rng.choice(["7", "12", "60", "x", ""]),
            "tags": rng.choice([[], ["a", "b"], None]),
        }  # fmt: skip
        if rng.random() < 0.1:
            row["at"] = None
        if seen and rng.random() < 0.2:
            row = rng.choice(seen)
        seen.append(row)
        lines.append(json.dumps(row) if rng.random() > 0.05 else '{"id": "torn')
    return "".join(line + "\n" for line in lines)


def small(root, session):
    site = Site(root, session)
    site.write(DECLARATIONS)
    site.write({
        "data/users/a.csv": "id,tier\n2,gold\n3,silver\n4,\n5,bronze\n5,again\n",
        "data/orders/a.jsonl": orders(1, 40_000, 60),
    })  # fmt: skip
    return site


def rounds(root, session):
    """Two rounds over a growing source, each on both engines; in compiled code, as users run it."""
    with compiled(session):
        return two_rounds(root, session)


def two_rounds(root, session):
    site = small(root, session)
    found = []
    for name, start_s in (("b", 40_050), (None, 0)):
        kinds = {}
        site.on_embedded()
        site.on_spark(
            lambda _name, done, kinds=kinds: [kinds.update({k: kinds.get(k, 0) + n}) for k, n in done.counts.items()]
        )
        compared, differences = site.compare()
        found.append({"rows": compared, "differences": differences, "counts": kinds, "problems": site.reconcile()})
        if name:
            site.write({f"data/orders/{name}.jsonl": orders(2, start_s, 50)})
    return {"rounds": found}


def names(site):
    return [name for name, plan in site.spark_app().flows.items() if str(name) != "gold.by_tier"]


def checkpoint(site, name):
    return site.root / "spark" / "_lodestream" / "flows" / str(name) / "1" / "spark"


def versions(site):
    app = site.spark_app()
    opened = {str(name): DeltaTable.open(app.disk, table_path(app.lake, name)) for name in app.flows}
    return {name: table.snapshot.version for name, table in opened.items()}


def replay(root, session):
    """Crashes between any two of quarantine commit, main commit and Spark's marker; then the rest of the work."""
    site = small(root, session)
    site.on_embedded()
    died = []
    for broken_one in ("silver.orders", "gold.per_minute"):
        for method in ("_commit_quarantine", "_commit_main"):
            kept = getattr(SparkFlow, method)

            def broken(self, *given, kept=kept, table=broken_one):
                if str(self.name) == table:
                    raise LodestreamError("killed here")
                return kept(self, *given)

            setattr(SparkFlow, method, broken)
            try:
                site.on_spark()
            except LodestreamError as error:
                died.append(error.message)
            finally:
                setattr(SparkFlow, method, kept)
    site.on_spark()
    first = site.compare()
    before = versions(site)
    for name in names(site):  # killed after the main commit
        markers = sorted(os.listdir(checkpoint(site, name) / "commits"), key=lambda n: (n[0] == ".", len(n), n))
        last = [marker for marker in markers if marker.isdigit()][-1]
        for marker in (last, f".{last}.crc"):
            (checkpoint(site, name) / "commits" / marker).unlink(missing_ok=True)
    site.on_spark()
    return {
        "died": died,
        "first": first,
        "second": site.compare(),
        "unchanged": before == versions(site),
        "problems": site.reconcile(),
    }


def lost(root, session):
    """What is said when a checkpoint is lost, in whole or in part, or the other engine has filled the lake."""
    site = small(root, session)
    site.on_spark()
    said = {}

    def tried(name, change):
        kept = checkpoint(site, "silver.orders")
        shutil.copytree(kept, root / "kept")
        change(kept)
        try:
            site.on_spark()
            said[name] = "nothing"
        except LodestreamError as error:
            said[name] = f"{type(error).__name__}: {error.message}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.move(root / "kept", kept)

    before = versions(site)
    tried("all", shutil.rmtree)
    tried("offsets", lambda folder: [shutil.rmtree(folder / part) for part in ("offsets", "commits")])
    tried("another", lambda folder: (folder / "metadata").write_text('{"id":"11111111-2222-3333-4444-555555555555"}'))
    app = open_project(str(root), lake="spark")
    try:
        app.run(tables=[TableName.parse("bronze.orders")])
        said["embedded"] = "nothing"
    except LodestreamError as error:
        said["embedded"] = f"{type(error).__name__}: {error.message}"
    return {"said": said, "unchanged": before == versions(site)}


def stream(root, session, seed):
    """A random stream: against the reference semantics, and the embedded engine on the very same batches."""
    site = StreamSite(root, session, seed)
    site.drive()
    mistakes = site.by_meaning()
    site.replay_on_embedded()
    compared, differences = site.compare()
    batches = sum(
        len(list(folder.glob("*.json")))
        for folder in (Path(root) / "spark" / "_lodestream" / "flows").glob("*/1/plans")
    )
    return {
        "seed": seed,
        "rows": compared,
        "mistakes": mistakes + differences,
        "batches": batches,
        "operators": site.operators(),
    }


def demo(root, session):
    """The demo's project as it is: a year of flights, then the late rows of the feed."""
    site = Site(root, session)
    prepare(root / "data")
    write_project(root)
    withhold_stragglers(root / "data")
    found = []
    with compiled(session):
        for _ in range(2):
            site.on_embedded()
            site.on_spark()
            found.append(site.compare())
            release_stragglers(root / "data")
    return {"rounds": found, "problems": site.reconcile()}


DOMAINS = ("arrays", "date_texts", "day_parts", "decimals", "doubles", "ints", "longs", "numbers_to_times", "numerals",
           "random", "smalls", "time_texts", "wide", "words")  # fmt: skip
"""Input tables on whose rows some function raises."""


def functions(root, session):
    """Every function on its defining rows, in the form that does not raise: where it errs, and where it is NULL."""
    wrong, asked, errs = [], 0, 0
    for domain in DOMAINS:
        head, cases = load(domain)
        schema, rows = table(head["columns"], head["rows"])
        rows = rows.append_column("_i", pa.array(range(len(rows)), pa.int32()))
        kinds = [f.with_type(pa.timestamp("us", tz="UTC")) if pa.types.is_timestamp(f.type) else f for f in rows.schema]
        session.createDataFrame(rows.cast(pa.schema(kinds))).createOrReplaceTempView("input")
        made = [(case, compile_scalar(case["text"], schema)) for case in cases if "refused" not in case]
        made = [(case, one) for case, one in made if one.error is not None]
        items = [
            f"{error(one.text, one.type)} AS e{i}, {value(one)} IS NULL AS n{i}" for i, (_, one) in enumerate(made)
        ]
        answers = session.sql(f"SELECT _i, {', '.join(items)} FROM input").collect()
        for row in answers:
            for i, (case, _) in enumerate(made):
                expected = isinstance(case["values"][row["_i"]], dict)
                nothing = expected or case["values"][row["_i"]] is None
                asked, errs = asked + 1, errs + expected
                if (row[f"e{i}"], row[f"n{i}"]) != (expected, nothing):
                    wrong.append(f"{case['text']} on {head['rows'][row['_i']]}: {row[f'e{i}']}, null {row[f'n{i}']}")
    return {"asked": asked, "errs": errs, "wrong": wrong}


def compiled_functions(root, session):
    """The same in compiled code."""
    with compiled(session):
        return functions(root, session)


@contextlib.contextmanager
def compiled(session):
    for name in CODE:
        session.conf.unset(name)
    yield
    for name in CODE:
        session.conf.set(name, SMALL[name])


def main():
    folder, wanted = Path(sys.argv[1]), sys.argv[2:]
    session = open_session("local[2]", settings=SMALL)
    for name in wanted:
        scenario, _, seed = name.partition(":")
        started = time.monotonic()
        try:
            answer = globals()[scenario](folder / name.replace(":", "-"), session, *([int(seed)] if seed else []))
        except Exception:
            answer = {"raised": traceback.format_exc()}
        answer["seconds"] = round(time.monotonic() - started)
        print(json.dumps({"scenario": name, **answer}, default=str), flush=True)
    session.stop()


if __name__ == "__main__":
    main()
