"""What test_on_spark.py asks: runs in the environment of Spark, one session for all, a line of JSON per answer."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sys
import time
import traceback
from functools import partial
from pathlib import Path

import pyarrow as pa
from typer.testing import CliRunner

from lodestream.cli.root import app as cli
from lodestream.demo.flights import prepare, release_stragglers, withhold_stragglers
from lodestream.demo.run import write_project
from lodestream.engines.spark.expressions import error, value
from lodestream.engines.spark.marks import PARTITIONS
from lodestream.engines.spark.session import open_session
from lodestream.errors import LodestreamError
from lodestream.expressions.scalar import compile_scalar
from lodestream.testing.streams import make_changes, make_sourced, make_stream
from tests.engines.spark.handover import at_once, killed, killed_on_embedded, killed_on_spark, switched, there_and_back
from tests.engines.spark.reading import read_all, read_variants
from tests.engines.spark.sites import Site, StreamSite, said_by, unmark
from tests.engines.spark.stores_site import in_store
from tests.engines.spark.topics import DECLARATIONS as TOPICS
from tests.engines.spark.topics import losses, turns
from tests.engines.spark.wide_site import DRIFTING, FOLDED, SOURCES, UNTIMED, USERS, Rounds, beside, drifting
from tests.engines.spark.workers_site import NOTES, notes
from tests.expressions.spark_rows import load, table

CODE = ("spark.sql.codegen.wholeStage", "spark.sql.codegen.factoryMode")
SMALL = {
    # The first compiler alone is given 48 MB for its code, which are full after some minutes; all is interpreted then.
    "spark.driver.extraJavaOptions": "-Duser.timezone=UTC -XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=512m"
    " -XX:+UseSerialGC",
    PARTITIONS: "1",
    # Batches of a few rows are not worth a second plan, a page of 32 MB for each join, or checksums of checkpoints.
    "spark.sql.adaptive.enabled": "false",
    "spark.buffer.pageSize": "1m",
    "spark.sql.streaming.checkpoint.fileChecksum.enabled": "false",
    "spark.sql.streaming.numRecentProgressUpdates": "1",
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
event_time: {column: at, delay: 20 seconds}
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
    "tables/gold/corrected.yaml": """
from: stream(silver.orders)
event_time: {column: at, delay: 1 second}
window: {every: 20 seconds}
group_by: [tier]
measures: {orders: count(*), revenue: sum(amount)}
emit: final
late: update
""",
    "tables/gold/by_tier.yaml": """
sql: |
  select o.tier, u.id, count(*) as orders, sum(o.amount) as revenue, max(o.at) as last
  from silver.orders o join bronze.users u on o.customer = u.id
  group by o.tier, u.id
""",
}


STATEFUL = {
    "lodestream.yaml": "project: stateful\nlake: lake\n",
    "tables/bronze/orders.yaml": DECLARATIONS["tables/bronze/orders.yaml"],
    "tables/bronze/users.yaml": DECLARATIONS["tables/bronze/users.yaml"],
    "tables/gold/visits.yaml": """
from: stream(bronze.orders)
skip_silver: true
event_time: {column: at, delay: 10 seconds}
dedup: {keys: [id, code]}
enrich: {lookup: {table: bronze.users, on: {user: id}, columns: [tier]}}
window: {gap: 5 seconds}
group_by: {tier: tier, code: code, big: amount > 100}
measures: {orders: count(*), numbers: sum(cast(code as int))}
emit: final
""",
    "tables/gold/visits_per_minute.yaml": """
from: stream(gold.visits)
expect: {small: {that: orders < 3, else: quarantine}}
window: {every: 1 minute, slide: 20 seconds}
group_by: [tier]
measures: {visits: count(*), orders: sum(orders), last: max(window_time)}
emit: final
""",
    "tables/gold/minutes_per_visit.yaml": """
from: stream(gold.visits_per_minute)
window: {gap: 30 seconds}
measures: {windows: count(*)}
emit: final
""",
    "tables/silver/pairs.yaml": """
from: stream(bronze.orders)
event_time: {column: at, delay: 10 seconds}
dedup: {keys: [id, at]}
enrich: {lookup: {table: bronze.users, on: {user: id}, columns: [tier]}}
join:
  from: stream(bronze.orders)
  kind: left
  on: {code: code, user: user}
  event_time: {column: at, delay: 15 seconds}
  within: {before: 2 seconds, after: 4 seconds}
  columns: {id: other, tags: other_tags, at: other_at}
partition_by: [date(at)]
""",
}
"""Sessions, windows of windows, a table joined with itself, lookups in front of both."""


def orders(seed, start_s, count):
    """Lines of a file: copies, stragglers, missing times, torn lines, codes that are no numbers."""
    rng = random.Random(seed)
    lines, seen = [], []
    for i in range(count):
        now = start_s + i
        at = now - (rng.randint(15, 90) if rng.random() < 0.15 else rng.randint(0, 8))
        row = {
            "id": f"o{seed}-{i}", "user": rng.choice([1, 2, 3, 4, 9, None]),
            "amount": rng.choice(["5.25", "120.00", "7.50", "80.00", "-1.00"]),
            "at": f"2026-01-01T{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}Z",
            "code": rng.choice(["7", "12", "8", "9", "10", "11", "60", "x", ""]),
            "tags": rng.choice([[], ["a", "b"], None]),
        }  # fmt: skip
        if rng.random() < 0.1:
            row["at"] = None
        if seen and rng.random() < 0.2:
            row = rng.choice(seen)
        seen.append(row)
        lines.append(json.dumps(row) if rng.random() > 0.05 else '{"id": "torn')
    return "".join(line + "\n" for line in lines)


def rounds(root, session):
    """Two rounds over a growing source, each on both engines; in compiled code, as users run it.

    The session would split states in another number of parts in the second, where they have one already.
    """
    site = Site(root, session)
    site.write(DECLARATIONS)
    site.write({"data/users/a.csv": "id,tier\n2,gold\n3,silver\n4,\n5,bronze\n5,again\n"})
    found = []
    for number, start_s in enumerate((40_012, 40_055)):
        site.write({f"data/orders/{number}.jsonl": orders(number, start_s, 60)})
        counts = {}

        def note(_name, done, counts=counts):
            for kind, rows in done.counts.items():
                counts[kind] = counts.get(kind, 0) + rows

        site.on_embedded()
        with compiled(session):
            session.conf.set(PARTITIONS, str(1 + 2 * number))
            site.on_spark(listener=note)
            session.conf.set(PARTITIONS, SMALL[PARTITIONS])
        found.append(site.judged() | {"counts": counts})
    corrections = sum(bool(commit.removes) for commit in site.table("gold.corrected").commits(-1))
    return {"rounds": found, "corrections": corrections}


def after_rounds(root, session):
    """The project as `rounds` left it."""
    return Site(root.with_name("rounds"), session)


def checkpoint(site, name):
    return site.root / "spark" / "_lodestream" / "flows" / str(name) / "1" / "spark"


def replay(root, session):
    """A third round with crashes between any two of quarantine commit, main commit and Spark's marker."""
    site = after_rounds(root, session)
    site.write({"data/orders/2.jsonl": orders(2, 40_105, 60)})
    site.on_embedded()
    site.on_spark("bronze.orders", "bronze.users")
    died = []
    for name in ("silver.orders", "gold.per_minute"):
        for method in ("_commit_quarantine", "_commit_main"):
            died += killed(partial(site.on_spark, name), method)
        site.on_spark(name)
    site.on_spark()
    first, before = site.compare(), site.versions()
    for name in STREAMS:
        killed_after_commit(site, name)
    site.on_spark(*STREAMS)
    unchanged = before == site.versions()
    return {
        "died": died,
        "first": first,
        "second": site.compare(),
        "unchanged": unchanged,
        "problems": site.reconcile(),
    }


def killed_after_commit(site, name):
    unmark(checkpoint(site, name))


def lost(root, session):
    """What is said when a checkpoint is lost, in whole or in part."""
    site = after_rounds(root, session)
    said = {}

    def told(name, work):
        try:
            work()
            said[name] = "nothing"
        except LodestreamError as error:
            said[name] = f"{type(error).__name__}: {error.message}"

    def tried(name, change):
        folder, kept = checkpoint(site, "silver.orders"), site.root / "kept"
        shutil.copytree(folder, kept)
        change(folder)
        told(name, lambda: site.on_spark("silver.orders"))
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(kept, folder)

    before = site.versions()
    tried("all", shutil.rmtree)
    tried("offsets", lambda folder: [shutil.rmtree(folder / part) for part in ("offsets", "commits")])
    tried("another", lambda folder: (folder / "metadata").write_text('{"id":"11111111-2222-3333-4444-555555555555"}'))
    unchanged = before == site.versions()
    shutil.rmtree(checkpoint(site, "silver.orders"))
    rewind = "table restore silver.orders --version 0 --rewind --yes"
    mended = CliRunner().invoke(cli, ["-C", str(site.root), "--lake", "spark", *rewind.split()])
    site.on_spark(*STREAMS)
    return {"said": said, "unchanged": unchanged, "mended": mended.exit_code, "problems": site.reconcile()}


def stream(root, session, seed, make=make_stream):
    """A random stream: against the reference semantics, and the embedded engine on the very same batches."""
    site = StreamSite(root, session, seed, make=make)
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


def stateful(root, session):
    """Operators with state of their own, round by round, the last batch of each twice; the other engine on the same."""
    rounds = Rounds(root, session, STATEFUL | USERS | {"data/orders/empty.jsonl": ""})
    site = rounds.site
    site.on_spark("bronze.orders")
    for number, start_s in enumerate((40_012, 40_040)):
        site.write({f"data/orders/{number}.jsonl": orders(number, start_s, 50)})
        site.on_spark(listener=rounds.note)
        for name in ("gold.visits", "gold.visits_per_minute", "silver.pairs"):
            killed_after_commit(site, name)
        site.write({"data/users/b.csv": "id,tier\n3,again\n5,bronze\n"})
    return rounds.answer()


def handover(root, session, turns=3):
    """Tables that go from engine to engine."""
    return there_and_back(root, session, DECLARATIONS, orders, turns)


def handover_stateful(root, session, turns=3):
    """The same of a join, sessions and windows of windows, all of them over looked-up columns."""
    return there_and_back(root, session, STATEFUL, orders, turns)


def handover_folded(root, session, turns=3):
    """The same of windows that workers fold, which both engines keep as they are."""
    return there_and_back(root, session, UNTIMED | FOLDED, orders, turns)


def handover_kills(root, session):
    """Kills on either side, and both engines at once, where `handover:4` left the project."""
    site, tables = Site(root.with_name("handover-4"), session), ("silver.orders", "gold.per_minute", "gold.raw_minutes")
    return {
        "embedded": killed_on_embedded(site, orders, tables),
        "spark": killed_on_spark(site, orders, tables[:2]),
        "at_once": at_once(site, orders),
    }


def handover_stateful_kills(root, session):
    """The same where `handover_stateful:4` left the project, of sessions over looked-up columns and a join."""
    site, tables = Site(root.with_name("handover_stateful-4"), session), ("gold.visits", "silver.pairs")
    return {
        "embedded": killed_on_embedded(site, orders, (*tables, "gold.visits_per_minute", "gold.minutes_per_visit")),
        "spark": killed_on_spark(site, orders, tables),
        "at_once": at_once(site, orders),
    }


def handover_stream(root, session, seed):
    """A random stream whose tables change engines."""
    return switched(root, session, seed, make_stream)


def handover_changes(root, session, seed):
    """The same of random changes."""
    return switched(root, session, seed, make_changes)


def changes(root, session, seed):
    """The same of random changes, which make a table of last values, one of history, and one that looks that up."""
    return stream(root, session, seed, make_changes)


def sourced(root, session, seed):
    """The same events, read by a table that knows their time."""
    return stream(root, session, seed, make_sourced)


def wide(root, session):
    """Sources with event time, windows that workers fold, enriched joins; the last batch of the second round twice."""
    rounds = Rounds(root, session, SOURCES | FOLDED)
    rounds.site.write(USERS)
    for number, start_s in enumerate((40_012, 40_040)):
        files = {f"data/orders/{n}.jsonl": orders(n, start_s, 50) for n in (number, number + 10)}
        rounds.round(files, killed_after_commit if number else untouched)
    return rounds.answer()


def untouched(_site, _name):
    """Nothing died."""


def drift(root, session):
    """Sources that show new columns and wider types in each round."""
    rounds = Rounds(root, session, DRIFTING)
    for number in range(3):
        files = {f"data/events/{name}{number}.jsonl": text for name, text in drifting(number).items()}
        rounds.round(files, killed_after_commit if number else untouched)
    return rounds.answer()


def asking(root, session):
    """Rows that wait for somebody's answers, windows of those, and sinks."""
    return beside(root, session)


def folding_crashes(root, session):
    """Tables whose open windows lie beside the plans die in front of each commit, and once behind the last."""
    rounds = Rounds(root, session, SOURCES | FOLDED)
    tables, died = ("gold.covered", "gold.visits"), []
    rounds.site.write(USERS)
    for number, start_s in enumerate((40_012, 40_040)):
        files = {f"data/orders/{n}.jsonl": orders(n, start_s, 50) for n in (number, number + 10)}
        rounds.round(files, untouched, "bronze.users", "bronze.timed")
        for name in tables:
            for method in ("_commit_quarantine", "_commit_windows", "_commit_main") if number else ():
                died += killed(partial(rounds.site.on_spark, name), method)
            rounds.site.on_spark(name)
            killed_after_commit(rounds.site, name)
            rounds.site.on_spark(name)
    rounds.site.on_spark()
    return rounds.answer() | {"died": died}


def crashing(root, session, seed):
    """Random changes; in one round the two tables of changes die in front of each commit, and once behind the last."""
    site = StreamSite(root, session, seed, make=make_changes)
    tables, died = ("silver.last", "silver.history"), []
    site.place()
    site.on_spark()
    site.place()
    site.on_spark("bronze.events")
    for name in tables:
        for method in ("_commit_quarantine", "_commit_deletions", "_commit_main"):
            died += killed(partial(site.on_spark, name), method)
        site.on_spark(name)
    before = site.versions()
    for name in tables:
        killed_after_commit(site, name)
    site.on_spark(*tables)
    unchanged = before == site.versions()
    site.on_spark()
    while site.place():
        site.on_spark()
    mistakes = site.by_meaning()
    site.replay_on_embedded()
    compared, differences = site.compare()
    remembered = [sum(info.get("state_rows", 0) for info in site.infos(table)) for table in tables]
    return {
        "died": died, "unchanged": unchanged, "rows": compared, "mistakes": mistakes + differences,
        "remembered": remembered, "problems": site.reconcile(),
    }  # fmt: skip


def topics(root, session, port):
    """A topic of the broker there, on both engines in turn: its bronze table alone."""
    only = {path: text for path, text in TOPICS.items() if "silver" not in path and "gold" not in path}
    return turns(root, session, f"127.0.0.1:{port}", only)


def topics_to_gold(root, session, port):
    return turns(root, session, f"127.0.0.1:{port}")


def topic_losses(root, session, port):
    return losses(root, session, f"127.0.0.1:{port}")


def workers(root, session):
    """What runs in Python workers: a python step, enrichers in line, and changes that are enriched."""
    site = Site(root, session)
    site.write(NOTES)
    found, counts = [], {}

    def note(name, done):
        for kind, rows in done.counts.items():
            counts.setdefault(str(name), {}).setdefault(kind, 0)
            counts[str(name)][kind] += rows

    for number in range(2):
        site.write({f"data/notes/{number}.jsonl": notes(number + 1, 40)})
        site.on_embedded()
        site.on_spark(listener=note)
        found.append(site.judged())
    site.write({"functions/clean.py": "def tidy(rows):\n    return rows.select(['id'])\n"})
    site.write({"data/notes/2.jsonl": notes(3, 5)})
    return {"rounds": found, "counts": counts, "said": said_by(site.on_spark)}


def stores(root, session, **given):
    """A lake in an object store; what follows the colon only tells one place from another."""
    return in_store(root, session, **given)


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


STREAMS = ("silver.orders", "gold.per_minute", "gold.raw_minutes")
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


def variants(root, session):
    """A table of every kind that the lake writes."""
    return read_variants(root, session)


def whatever_was_written(root, session):
    """Every table that the scenarios before have written, on either engine."""
    return read_all(root.parent, session)


@contextlib.contextmanager
def compiled(session):
    for name in CODE:
        session.conf.unset(name)
    yield
    for name in CODE:
        session.conf.set(name, SMALL[name])


def main():
    """Answer the scenarios named on stdin, one by line, until it ends."""
    folder = Path(sys.argv[1])
    session = open_session("local[2]", settings=SMALL)
    for line in sys.stdin:
        name, _, given = line.strip().partition(" ")
        scenario, _, seed = name.partition(":")
        started = time.monotonic()
        try:
            place = folder / name.replace(":", "-")
            answer = globals()[scenario](
                place, session, *([int(seed)] if seed.isdigit() else []), **json.loads(given or "{}")
            )
        except Exception:
            answer = {"raised": traceback.format_exc()}
        answer["seconds"] = round(time.monotonic() - started)
        print(json.dumps({"scenario": name, **answer}, default=str), flush=True)
    session.stop()


if __name__ == "__main__":
    main()
