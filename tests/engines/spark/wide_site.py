"""Definitions that take more than one operator of Spark, or one that Spark does not have; both engines on one plan."""

from __future__ import annotations

import json
from pathlib import Path

import lodestream.sinks
from lodestream.app import open_project
from tests.engines.spark.sites import Site
from tests.enrichers.service import serving

OWN_SINKS = str(Path(__file__).with_name("sinks"))

USERS = {"data/users/a.csv": "id,tier\n1,gold\n2,gold\n3,silver\n4,\n9,bronze\n"}
COLUMNS = (
    'columns: {id: string, user: bigint, at: timestamp, amount: "decimal(12,2)", code: string, tags: array<string>}'
)
SOURCES = {
    "lodestream.yaml": "project: wide\nlake: lake\n",
    "tables/bronze/users.yaml": """
source: {files: {path: data/users, settle: 0}}
format: csv
columns: {id: bigint, tier: string}
""",
    "tables/bronze/orders.yaml": f"""
source: {{files: {{path: data/orders, settle: 0}}}}
format: json
keep_raw: true
{COLUMNS}
derive: {{number: cast(code as int)}}
expect: {{paid: {{that: amount >= 0, else: drop}}}}
event_time: {{column: at, delay: 10 seconds}}
dedup: {{keys: [id], within: 12 seconds}}
enrich: {{lookup: {{table: bronze.users, on: {{user: id}}, columns: [tier]}}}}
partition_by: [date(at)]
""",
    "tables/bronze/timed.yaml": f"""
source: {{files: {{path: data/orders, settle: 0}}}}
format: json
{COLUMNS}
event_time: {{column: at, delay: 10 seconds}}
""",
}
"""Sources whose rows have event time: their plans are made before Spark knows the watermark."""

UNTIMED = {
    "lodestream.yaml": SOURCES["lodestream.yaml"],
    "tables/bronze/users.yaml": SOURCES["tables/bronze/users.yaml"],
    "tables/bronze/timed.yaml": SOURCES["tables/bronze/timed.yaml"].partition("event_time")[0],
}
"""The same without it, as tables that are handed over have to be."""

FOLDED = {
    "tables/gold/covered.yaml": """
from: stream(bronze.timed)
skip_silver: true
event_time: {column: at, delay: 5 seconds}
dedup: {keys: [id]}
enrich: {lookup: {table: bronze.users, on: {user: id}, columns: [tier]}}
window: {every: 1 minute, slide: 20 seconds}
group_by: {tier: tier, first: "substring(code, 1, 1)"}
measures: {orders: count(*), revenue: sum(amount), mean: avg(cast(code as int)), last: max(at)}
emit: updates
completeness: true
""",
    "tables/gold/corrected.yaml": """
from: stream(bronze.timed)
skip_silver: true
event_time: {column: at, delay: 1 second}
enrich: {language: {column: code, into: language}}
window: {every: 20 seconds}
group_by: [language]
measures: {orders: count(*), revenue: sum(amount)}
emit: final
late: update
completeness: true
partition_by: [date(window_start)]
""",
    "tables/gold/visits.yaml": """
from: stream(bronze.timed)
skip_silver: true
event_time: {column: at, delay: 10 seconds}
window: {gap: 3 seconds}
group_by: {user: user, big: amount > 100}
measures: {orders: count(*), last: max(code)}
emit: updates
""",
    "tables/gold/spells.yaml": """
from: stream(bronze.timed)
skip_silver: true
event_time: {column: at, delay: 10 seconds}
window: {gap: 2 seconds}
measures: {orders: count(*)}
emit: final
completeness: true
""",
    "tables/gold/spells_per_minute.yaml": """
from: stream(gold.spells)
window: {every: 1 minute}
measures: {spells: count(*), orders: sum(orders)}
emit: final
completeness: true
""",
    "tables/silver/pairs.yaml": """
from: stream(bronze.timed)
event_time: {column: at, delay: 10 seconds}
dedup: {keys: [id, at]}
enrich:
  - language: {column: code, into: language}
  - pii: {column: code, into: safe_code}
join:
  from: stream(bronze.timed)
  on: user
  event_time: {column: at, delay: 5 seconds}
  within: {before: 1 second, after: 1 second}
  columns: {id: other}
""",
}
"""Windows folded by the embedded engine's code in workers, and a join of enriched rows."""


DRIFTING = {
    "lodestream.yaml": "project: drifting\nlake: lake\n",
    "tables/bronze/added.yaml": """
source: {files: {path: data/events, settle: 0}}
format: json
drift: add
keep_raw: true
columns: {id: string, at: timestamp, amount: int}
expect: {paid: {that: amount > 0, else: quarantine}}
event_time: {column: at, delay: 5 seconds}
dedup: {keys: [id]}
partition_by: [date(at)]
""",
    "tables/bronze/widened.yaml": """
source: {files: {path: data/events, settle: 0}}
format: json
drift: widen
columns: {id: string, at: timestamp, amount: int}
""",
    "tables/silver/known.yaml": """
from: stream(bronze.widened)
expect: {named: {that: id is not null, else: quarantine}}
select: [id, at]
""",
}
"""Sources that show columns that were not declared, and wider types."""


def drifting(number):
    """Files of a round by name: each brings a field that was not there before, and larger numbers."""
    amounts = (5, 3_000_000_000 if number else 6, -1)
    files = {}
    for name in ("a", "b"):
        rows = [
            {"id": f"{name}{number}-{i // 2}", "at": f"2026-01-01T10:00:{10 * number + i:02}Z", "amount": amount}
            for i, amount in enumerate(amounts * 2)
        ]
        rows[2] |= (
            {f"extra_{name}": number, "late" if name == "a" else "early": "x"} if number != 1 else {"more": [1.5]}
        )
        files[name] = "".join(json.dumps(row) + "\n" for row in rows)
    return files


def asking(url, root):
    """Rows that wait for answers, windows of those, and both published."""
    sink = "sink: {listing: {path: %s/%s.json}}"
    return {
        "lodestream.yaml": "project: asking\nlake: lake\nbatch: {interval: 50 ms}\n",
        "tables/bronze/reviews.yaml": """
source: {files: {path: data/reviews, settle: 0}}
format: json
columns: {id: bigint, text: string, at: timestamp}
""",
        "tables/silver/scored.yaml": f"""
from: stream(bronze.reviews)
expect: {{known: {{that: text is not null, else: quarantine}}}}
event_time: {{column: at, delay: 10 seconds}}
dedup: {{keys: [id]}}
enrich:
  http: {{url: '{url}', send: [text], receive: {{score: double, label: string}}}}
{sink % (root, "scored")}
""",
        "tables/gold/labels.yaml": f"""
from: stream(silver.scored)
event_time: {{column: at, delay: 0 seconds}}
window: {{every: 10 seconds}}
group_by: [label]
measures: {{reviews: count(*), score: sum(score)}}
emit: updates
{sink % (root, "labels")}
""",
    }


def reviews(number):
    """A file of a round: texts that come again, some without one, some ids twice."""
    rows = [
        {"id": 20 * number + i - i % 5 // 4, "text": None if i == 7 else f"review {i % 9}" * (1 + i % 3),
         "at": f"2026-01-01T10:00:{20 * number + i:02}Z"}
        for i in range(20)
    ]  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in rows)


def beside(root, session):
    """Two rounds over a service on loopback; how often it was asked, and what was published."""
    if OWN_SINKS not in lodestream.sinks.__path__:
        lodestream.sinks.__path__.append(OWN_SINKS)
    with serving() as service:
        site = Site(root, session)
        site.write(asking(service.url, root))
        for number in range(2):
            site.write({f"data/reviews/{number}.jsonl": reviews(number)})
            site.on_spark()
        asked = dict(service.asked)
        published = [json.loads((root / f"{name}.json").read_text())["lines"] for name in ("scored", "labels")]
        with open_project(str(root), lake="embedded") as app:  # which publishes nothing: the places are taken
            app.apply()
            app.pipeline().run(until_idle=True, publishing=())
        tables = [stored(site.table(name)) for name in ("silver.scored", "gold.labels")]
        return site.judged() | {"asked": asked, "published": published, "tables": tables}


def stored(table):
    """The rows of a table, without what sinks do not publish."""
    rows = [{c: v for c, v in row.items() if c[0] != "_"} for row in table.read(table.files()).to_pylist()]
    return json.loads(json.dumps(rows, default=str))


class Rounds:
    """Rounds over a growing source; the last batch of each is done twice, and the embedded engine follows."""

    def __init__(self, root, session, declarations):
        self.site = Site(root, session)
        self.site.write(declarations)
        self.counts = {}

    def note(self, name, done):
        for kind, rows in done.counts.items():
            self.counts[f"{name}:{kind}"] = self.counts.get(f"{name}:{kind}", 0) + rows

    def round(self, files, again, *tables):
        self.site.write(files)
        self.site.on_spark(*tables, listener=self.note)
        for name in tables or self.site.spark_app().flows:
            again(self.site, str(name))

    def answer(self):
        self.site.replay_on_embedded()
        return self.site.judged() | {"counts": self.counts}
