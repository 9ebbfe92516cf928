"""One table of every kind that the lake writes, for readers that others wrote."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lodestream.app import open_project
from lodestream.lake.compaction import everything, rewrite
from lodestream.lake.disk import LocalDisk
from lodestream.lake.layout import table_path
from lodestream.lake.log import log_folder
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import from_arrow
from lodestream.model.table import TableName
from lodestream.planning.diff import accept_hash

UTC = dt.UTC
TYPES = pa.schema(
    [
        ("id", pa.int64()),
        ("flag", pa.bool_()),
        ("tiny", pa.int8()),
        ("small", pa.int16()),
        ("whole", pa.int32()),
        ("big", pa.int64()),
        ("real", pa.float32()),
        ("double", pa.float64()),
        ("text", pa.string()),
        ("raw", pa.binary()),
        ("day", pa.date32()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("money", pa.decimal128(38, 9)),
        ("cents", pa.decimal128(9, 2)),
        ("tags", pa.list_(pa.string())),
        ("place", pa.struct([("x", pa.float64()), ("names", pa.list_(pa.string()))])),
        ("facts", pa.map_(pa.string(), pa.int64())),
    ]
)
ROWS = [
    {
        "id": 1, "flag": True, "tiny": -128, "small": -32768, "whole": -(2**31), "big": -(2**63), "real": 1.5,
        "double": -0.0,
        "text": "", "raw": b"", "day": dt.date(1, 1, 1), "time": dt.datetime(1, 1, 1, tzinfo=UTC),
        "money": Decimal("-99999999999999999999999999999.999999999"), "cents": Decimal("0.01"), "tags": [],
        "place": {"x": None, "names": None}, "facts": [],
    },
    {
        "id": 2, "flag": False, "tiny": 127, "small": 32767, "whole": 2**31 - 1, "big": 2**63 - 1, "real": float("inf"),
        "double": 5e-324, "text": "zażółć 日本 \U0001f680 \x00 \n", "raw": b"\x00\xff", "day": dt.date(9999, 12, 31),
        "time": dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "money": Decimal("1e-9"),
        "cents": Decimal("-9999999.99"), "tags": ["a", None, ""], "place": {"x": 1.0, "names": ["n", None]},
        "facts": [("k", 1), ("l", None)],
    },
    {"id": 3} | {name: None for name in TYPES.names if name != "id"},
]  # fmt: skip
VALUES = [
    "plain", "a b", "a/b", "a:b", "a%b", "%2F", "ä", "日本", "a=b", "it's \"q\"", "..", ".", "a\\b", "a\nb", None,
    "x" * 300, "#?&", "[]{}^~", "+", "\x7f", "\U0001f680", " lead", "trail ", "*", "<>|", "a,b", "é/../é",
    "\U00020bb7\U0010ffff", "\x85\u2028",
]  # fmt: skip
NOW_US = 1_790_000_000_000_000
_SCHEMA = pa.schema([("id", pa.int64()), ("time", pa.timestamp("us", "UTC")), ("text", pa.string()),
                     ("day", pa.string())])  # fmt: skip
_PEOPLE = (
    (
        "{id: int, name: string, born: date, note: string}",
        '{"id": 1, "name": "Ann", "born": "1990-01-01", "note": "x"}',
    ),
    (
        "{id: bigint, full_name: {type: string, renamed_from: name}, born: date, city: string}",
        '{"id": 3000000000, "full_name": "Bo", "born": "0001-01-01", "city": "Rome"}',
    ),
)


def make(path: str, schema: pa.Schema = _SCHEMA, partitions: tuple[str, ...] = ()) -> DeltaTable:
    return DeltaTable.create(
        LocalDisk(), path, from_arrow(schema), partition_columns=partitions, table_id="7e1c", clock_us=NOW_US
    )


def put(table: DeltaTable, number: int, *, hot: bool = False, replaced: bool = False, count: int = 12) -> None:
    """Commit a batch; `replaced` takes the hot files away in the same commit."""
    ids = range(number * 100, number * 100 + count)
    rows = pa.table({
        "id": ids, "time": pa.array([NOW_US + i for i in ids], pa.timestamp("us", "UTC")),
        "text": [None if i % 5 == 0 else f"it's {i % 7} €" for i in ids],
        "day": [("a b", "c/d", None)[i % 3] for i in ids],
    }, schema=_SCHEMA)  # fmt: skip
    staged = table.stage(rows, name=f"{number}-a", hot=hot)
    removes = table.hot_files() if replaced else []
    table.commit(adds=staged.adds, removes=removes, txn=("app", number), clock_us=NOW_US + number)


def every_type(path: str) -> None:
    table = make(path, TYPES)
    for number in range(2):
        staged = table.stage(pa.Table.from_pylist(ROWS, schema=TYPES), name=f"{number}-a")
        table.commit(adds=staged.adds, clock_us=NOW_US)


def no_rows(path: str) -> None:
    make(path, TYPES)


def odd_partitions(path: str) -> None:
    schema = pa.schema([("id", pa.int64()), ("part", pa.string())])
    table = make(path, schema, ("part",))
    values = [value for value in VALUES if value != "x" * 300]  # Polars takes values from the names of folders
    staged = table.stage(pa.table({"id": range(len(values)), "part": values}, schema=schema), name="1-a")
    table.commit(adds=staged.adds, clock_us=NOW_US)


def typed_partitions(path: str) -> None:
    names = ("flag", "whole", "big", "day", "time", "cents")
    schema = pa.schema([TYPES.field(name) for name in ("id", "text", *names)])
    table = make(path, schema, names)
    listed = [{key: row[key] for key in schema.names} for row in ROWS]
    listed[1]["cents"] = Decimal("9999999.99")  # delta-rs's dataset cannot parse a negative one
    rows = pa.Table.from_pylist(listed, schema=schema)
    table.commit(adds=table.stage(rows, name="1-a").adds, clock_us=NOW_US)


def hot_files(path: str) -> None:
    table = make(path)
    put(table, 1)
    for number in range(2, 6):
        put(table, number, hot=True, replaced=True)


def compacted(path: str) -> None:
    _compact(path, ())


def z_ordered(path: str) -> None:
    _compact(path, ("time", "id"))


def _compact(path: str, z_columns: tuple[str, ...]) -> None:
    table = make(path, partitions=("day",))
    for number in range(1, 8):
        put(table, number)
    for group in everything(table.files(), target_bytes=1 << 20, z_columns=z_columns):
        assert rewrite(table, group, target_bytes=1 << 20, z_columns=z_columns, clock_us=NOW_US) is not None
    put(table, 8)


def checkpointed(path: str) -> None:
    """The entries below the checkpoint are gone."""
    table = make(path, partitions=("day",))
    for number in range(1, 30):
        put(table, number, hot=number % 3 == 0, replaced=number % 3 == 0, count=4)
        if number in (10, 20):
            table.checkpoint(NOW_US)
    assert table.clean_log(keep_versions=1, needed_from=10**9) > 5


def in_parts(path: str) -> None:
    """A checkpoint of two parts, as other writers make them, and nothing below it."""
    table = make(path)
    for number in range(1, 8):
        put(table, number)
    version = table.checkpoint(NOW_US)
    log = Path(log_folder(path))
    single = log / f"{version:020d}.checkpoint.parquet"
    rows = pq.read_table(single).replace_schema_metadata(None)
    half = rows.num_rows // 2
    for part, piece in ((1, rows.slice(0, half)), (2, rows.slice(half))):
        pq.write_table(piece, log / f"{version:020d}.checkpoint.{part:010d}.{2:010d}.parquet")
    single.unlink()
    (log / "_last_checkpoint").write_text(json.dumps({"version": version, "size": rows.num_rows, "parts": 2}))
    for number in range(version):
        (log / f"{number:020d}.json").unlink()
    put(table, 9)


def as_spark_writes_times(path: str) -> None:
    """INT96, as Spark's OPTIMIZE leaves them."""
    table = make(path)
    put(table, 1)
    staged = table.stage(table.read(table.files()), name="2-a")
    file = table.file_path(staged.adds[0])
    pq.write_table(table.read(table.files()), file, use_deprecated_int96_timestamps=True, store_schema=False)
    table.commit(adds=[replace(staged.adds[0], size=os.path.getsize(file))], clock_us=NOW_US)


def emptied(path: str) -> None:
    """All rows left, and some came again, as when a table begins a new epoch."""
    table = make(path)
    for number in range(1, 4):
        put(table, number)
    table.commit(removes=table.files(), clock_us=NOW_US, operation="REBUILD")
    put(table, 4)


def evolved(path: str) -> None:
    """Columns widened, renamed, dropped and added by what is declared, between two files."""
    root = Path(path + "-project")
    (root / "tables" / "bronze").mkdir(parents=True)
    (root / "people").mkdir()
    (root / "lodestream.yaml").write_text("project: evolved\nlake: lake\n")
    for number, (columns, line) in enumerate(_PEOPLE):
        (root / "tables" / "bronze" / "people.yaml").write_text(
            f"source: {{files: {{path: people, settle: 0}}}}\nformat: json\ncolumns: {columns}\n"
        )
        (root / "people" / f"{number}.jsonl").write_text(line + "\n")
        app = open_project(str(root))
        app.apply(accept_hash(app.changes()))
        app.pipeline().run(until_idle=True)
        app.close()
    os.rename(table_path(str(root / "lake"), TableName("bronze", "people")), path)


VARIANTS: dict[str, Callable[[str], None]] = {
    one.__name__: one
    for one in (
        every_type, no_rows, odd_partitions, typed_partitions, hot_files, compacted, z_ordered, checkpointed, in_parts,
        as_spark_writes_times, emptied, evolved,
    )
}  # fmt: skip
