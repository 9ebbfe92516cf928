"""What docs/reference/tables.md says: read off a small lake that is made for it, so that it is what is really there."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from lodestream.app import App, open_project
from lodestream.engines.embedded.rejects import QUARANTINE
from lodestream.engines.embedded.store import FOLDED
from lodestream.lake.layout import ERASURE_PROPERTY, QUARANTINE_SUFFIX, RENAMED_PROPERTY, table_path
from lodestream.lake.log import list_log, read_commit
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.model.types import Column

PROJECT = {
    "lodestream.yaml": "project: reference\nlake: lake\nbatch: {rows_max: 400}\n",
    "tables/bronze/orders.yaml": """
        source: {generator: {stream: orders, rows: 1200, event_rate: 10, chaos: {malformed: 0.01}}}
        keep_raw: true
        partition_by: [date(ordered_at), hour(ordered_at)]
    """,
    "tables/silver/orders.yaml": """
        from: stream(bronze.orders)
        event_time: {column: ordered_at, delay: 10 seconds}
        dedup: {keys: [order_id]}
    """,
    "tables/silver/pairs.yaml": """
        from: stream(silver.orders)
        event_time: {column: ordered_at, delay: 10 seconds}
        join: {from: stream(silver.orders), on: order_id, event_time: {column: ordered_at, delay: 10 seconds}, \
            within: {after: 0 s}, columns: {ordered_at: other_at}}
    """,
    "tables/gold/per_minute.yaml": """
        from: stream(silver.orders)
        event_time: {column: ordered_at, delay: 10 seconds}
        window: {every: 1 minute}
        measures: {orders: count(*)}
        completeness: true
    """,
    "tables/gold/totals.yaml": "sql: select count(*) as orders from silver.orders\n",
}
"""One table of each kind."""

COLUMNS = {
    "_raw": "the record's bytes, with `keep_raw: true`; NULL for Parquet",
    "_source": "where the row came from: a file, relative to the source's folder, or `generator/0`",
    "_position": "where in that unit: byte offset of the line, row number, or event number",
    "_ingest_time": "when the row came into bronze (UTC)",
    "_batch": "number of the batch that wrote the row into this table",
    "ordered_at_date": "a physical partition column, here of `date(ordered_at)` and `hour(ordered_at)`",
    "ordered_at_hour": "likewise, of `hour(ordered_at)`",
    "window_start": "first moment of the window (UTC)",
    "window_end": "first moment after the window (UTC)",
    "_rows": "how many input rows the window row covers",
    "_digest": "XOR of the 64-bit hashes of their positions, read as a signed number",
    "_final": "with `completeness: true`: whether the watermark has closed the window",
    "_covers": "likewise: for each source of its rows, first and last position, how many, and their digest",
}
PROPERTIES = {
    "lodestream.definition": "the declaration that the table was made by, as JSON",
    "lodestream.hash": "hash of that declaration; a flow refuses a table of another one",
    "lodestream.epoch": "generation; a rebuild begins the next one",
    "delta.deletedFileRetentionDuration": "how long checkpoints remember removed files, and other writers keep them",
}
RARE_PROPERTIES = {
    ERASURE_PROPERTY: "the last erasure that went through the table, and the first batch that did: `<id>@<batch>`",
    RENAMED_PROPERTY: "a column was renamed; older files have another name for it",
}
COMMIT = {
    "batch": "batch number within the epoch",
    "epoch": "generation of the table",
    "attempt": "which run of the batch committed it",
    "state": "name of the state link that holds after the batch",
    "kind": "`data`, `no_data` (only the watermark moved), `replay`, `refresh` or `erase`",
    "counts": "rows by what became of them, and by rule that they did not meet",
    "definition": "hash of the declaration",
    "watermark_us": "the watermark after the batch, microseconds since 1970",
    "max_event_us": "the newest event time taken in",
    "upto": "version of the upstream table that was read up to",
    "joined_upto": "the same of the stream that is joined",
    "joined_max_event_us": "the newest event time taken in of the stream that is joined",
    "given": "how many rows a join has given so far",
    "state_rows": "what the flow holds after the batch, by kind",
    "state_bytes": "how much memory that takes",
    "state_spilled_bytes": "how much lies in files besides, beyond the bound of memory",
    "pins": "versions of lookup tables and of a query's inputs",
    "code": "version of Lodestream",
}
DELTA_COMMIT = ("timestamp", "operation", "operationParameters", "isBlindAppend", "engineInfo", "txnId")
FILES = {
    "<layer>/<table>/_delta_log/<version>.json": "commits",
    "<layer>/<table>/_delta_log/<version>.checkpoint.parquet": "checkpoints",
    "<layer>/<table>/_delta_log/_last_checkpoint": "names the newest one",
    "<layer>/<table>/part-<batch>-<attempt>-<n>.snappy.parquet": "rows of a batch; closed windows",
    "<layer>/<table>/part-hot-<batch>-<attempt>-<n>.snappy.parquet": "all open windows; each batch swaps it",
    "<layer>/<table>/<column>=<value>/part-<batch>-<attempt>-<n>.snappy.parquet": "with `partition_by`",
    "_lodestream/access/catalog.db": "users, grants, policies, tags, the audit log; `-wal`, `-shm` while it is open",
    "_lodestream/access/audit.key": "key of the anchors",
    "_lodestream/access/audit.anchors": "signed marks of how far the audit log was, for `audit verify`",
    "_lodestream/flows/<layer>.<table>/<epoch>/plans/<batch>.json": "what a batch reads, fixed before it runs",
    "_lodestream/flows/<layer>.<table>/<epoch>/state/<batch>-<attempt>": "positions, watermark, keys, open windows",
    "_lodestream/flows/<layer>.<table>/caught_up": "who looks up in this table may begin",
}
RARE = {
    "_lodestream/flows/<layer>.<table>/answers/": "answers of services, as a Delta table; rebuilds keep it",
    f"_lodestream/flows/<layer>.<table>/<epoch>/plans/{FOLDED}": "how far plans that were deleted had read",
    "_lodestream/ingest/<stream>/<number>.log": "records of an HTTP stream from that number on, one request per entry",
    "_lodestream/ingest/<stream>/id": "which log this is, so that another one of the same name is noticed",
    "_lodestream/ingest/<stream>/durable": "how many records are acknowledged; made again when it is missing",
    "_lodestream/ingest/<stream>/reader-<layer>.<table>": "how many records the table has; for clearing the log",
    "_lodestream/ingest/<stream>/answers.sqlite": "index of idempotency keys; made again from the log",
    "_lodestream/erasures/<id>.json": "an erasure: when, keyed hashes of whom, and its signed report",
    "_lodestream/erasures/key": "key of those hashes and signatures; `lock` beside it is held while somebody erases",
    "<layer>/<table>/part-erased-<batch>-<attempt>-<n>.snappy.parquet": "what stayed of a file when rows were erased",
    "<layer>/<table>/part-altered-<attempt>-<n>.snappy.parquet": "a file under changed columns",
    "_lodestream/access/keys.json": "API keys, each with the digest of its secret",
    "_lodestream/access/usage.json": "records of the day by caller, for quotas",
}


PAGE = """\
# Tables

{note}

Every table is a plain Delta table (reader version 1, writer version 2) of Parquet files with Snappy. Columns whose
name begins with `_` are Lodestream's.

## Columns of tables of rows

After the declared columns, in this order:

{bronze}

A silver table has the same, without `_raw`: {silver}. `_source` and `_position` together name a row: they are unique
in a table and stay the same from bronze to silver. [Where a row comes from](../guides/provenance.md) shows how to
follow them.

Rows of a table with `join:` have positions of their own (`_source` is its name, `_position` counts from 0), and
{joined} say what two rows each was made from; those of the right are NULL where a left join met nobody.

## Columns of tables of windows

With the columns of `group_by` and `measures` between `window_end` and `_rows`:

{windows}

A `sql:` table has its own columns and {query}.

## Quarantine

Beside each table but those of `sql:` stands `<layer>.<table>{suffix}`, also a Delta table. Entries are added and never
changed. [Quarantine](../guides/quarantine.md) says what kinds and reasons there are.

{quarantine}

## Table properties

{properties}

## Commits

The `commitInfo` of a batch's commit holds, beside what Delta writes itself:

{commit}

The commit's `txn` has `appId` `lodestream/<layer>.<table>/<epoch>` and the batch number as `version`. `lodestream
table history` shows these.

## The lake folder

{files}

`<layer>/<table>{suffix}/` is laid out like a table. `<version>` and `<batch>` have 20 digits in logs, plans and states.
"""


def tables(note: str) -> str:
    """The page docs/reference/tables.md."""
    says = ("column", "type", "says")
    with tempfile.TemporaryDirectory(prefix="lodestream-reference-") as folder:
        app = _made(Path(folder))
        user = {"orders", *(c.name for c in app.flows[TableName("silver", "orders")].schema if c.name[0] != "_")}

        def ours(name: str) -> list[Column]:
            return [c for c in _open(app, TableName.parse(name)).snapshot.metadata.schema if c.name not in user]

        return PAGE.format(
            note=note,
            suffix=QUARANTINE_SUFFIX,
            bronze=_table(says, _described(ours("bronze.orders"))),
            silver=", ".join(f"`{c.name}`" for c in ours("silver.orders")),
            joined=", ".join(f"`{c.name}`" for c in ours("silver.pairs") if c.name.startswith(("_left", "_right"))),
            windows=_table(says, _described(ours("gold.per_minute"))),
            query=", ".join(f"`{c.name}`" for c in ours("gold.totals")),
            quarantine=_table(says, ((f"`{c.name}`", f"`{c.type}`", c.comment) for c in QUARANTINE)),
            properties=_table(
                ("property", "says"), _told(_properties(app), PROPERTIES) + _told(RARE_PROPERTIES, RARE_PROPERTIES)
            ),
            commit=_table(("field", "says"), _told(_commit_fields(app), COMMIT)),
            files=_table(("file", "says"), _told(_files(app.lake), FILES) + _told(RARE, RARE)),
        )


def _made(folder: Path) -> App:
    """The small lake, run until idle, with a checkpoint."""
    for name, text in PROJECT.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(re.sub(r"^ +", "", text, flags=re.MULTILINE))
    app = open_project(str(folder))
    app.run()
    for name in app.flows:
        _open(app, name).checkpoint()
    return app


def _open(app: App, name: TableName) -> DeltaTable:
    table = DeltaTable.open(app.disk, table_path(app.lake, name))
    assert table is not None, name
    return table


def _described(columns: Iterable[Column]) -> list[tuple[str, str, str]]:
    """Rows for columns of ours; a column that nobody has described is a KeyError."""
    return [(f"`{c.name}`", f"`{c.type}`", COLUMNS[c.name]) for c in columns]


def _properties(app: App) -> list[str]:
    found = [key for name in app.flows for key in _open(app, name).snapshot.metadata.configuration]
    return list(dict.fromkeys(found))


def _commit_fields(app: App) -> list[str]:
    found: dict[str, None] = {}
    for name in app.flows:
        path = table_path(app.lake, name)
        for version in sorted(list_log(app.disk, path).commits)[1:]:
            found |= dict.fromkeys(read_commit(app.disk, path, version).info)
    return [key for key in found if key not in DELTA_COMMIT]


def _files(lake: str) -> list[str]:
    """The patterns of all files in a lake, as `FILES` names them, in its order."""
    found = set()
    for root, _, names in os.walk(lake):
        for name in names:
            found.add(_pattern(os.path.relpath(os.path.join(root, name), lake)))
    return sorted(found, key=list(FILES).index)


def _pattern(path: str) -> str:
    """A path with placeholders for what differs from lake to lake."""
    if path.startswith("_lodestream"):
        path = re.sub(r"flows/\w+\.\w+", "flows/<layer>.<table>", path)
        path = re.sub(r"\.db-(wal|shm)$", ".db", path).removesuffix(".lock")
        path = re.sub(r"\d{20}", "<batch>", path).replace("/1/", "/<epoch>/")
        return re.sub(r"<batch>-[0-9a-f]{8}$", "<batch>-<attempt>", path)
    path = re.sub(r"^\w+/\w+/", "<layer>/<table>/", path)
    path = re.sub(r"(?:\w+=[^/]+/)+", "<column>=<value>/", path)
    path = re.sub(r"\d{20}", "<version>", path)
    return re.sub(r"part-(hot-)?\d+-[0-9a-f]{8}-\d+\.", r"part-\1<batch>-<attempt>-<n>.", path)


def _told(found: Iterable[str], words: Mapping[str, str]) -> list[tuple[str, str]]:
    """Each thing that was found with its words; one without words is a KeyError."""
    return [(f"`{name}`", words[name]) for name in found]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(line) + " |" for line in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])
