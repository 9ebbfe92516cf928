"""A project whose lake is written by the engine's committer: every type there is, and rows of two tenants."""

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pyarrow as pa

from lodestream.lake.disk import LocalDisk
from lodestream.lake.layout import table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.arrow import to_arrow
from lodestream.model.table import TableName
from lodestream.model.types import Column, Schema, parse_type

CLOCK_US = 1_700_000_000_000_000
ORDERS = {
    "id": "bigint", "customer": "string", "tenant": "string", "amount": "decimal(12,2)", "paid": "boolean",
    "weight": "double", "ordered_at": "timestamp", "ordered_on": "date", "items": "int",
}  # fmt: skip
KINDS = {
    "n": "int", "flag": "boolean", "tiny": "tinyint", "small": "smallint", "whole": "int", "big": "bigint",
    "single": "float", "wide": "double", "money": "decimal(38,10)", "words": "string", "bytes": "binary",
    "day": "date", "moment": "timestamp", "numbers": "array<bigint>", "names": "array<string>",
    "place": "struct<lat:double,name:string>", "tags": "map<string,string>",
}  # fmt: skip
MOMENT = dt.datetime(2024, 5, 1, 12, 30, 15, 250_000, tzinfo=dt.UTC)
ROWS = 2_500


def orders() -> pa.Table:
    numbers = list(range(1, ROWS + 1))
    return pa.table(
        {
            "id": numbers,
            "customer": [None if n % 50 == 0 else f"customer {n % 97}" for n in numbers],
            "tenant": ["acme" if n % 2 else "globex" for n in numbers],
            "amount": [Decimal(n) / 4 for n in numbers],
            "paid": [n % 3 == 0 for n in numbers],
            "weight": [n / 8 for n in numbers],
            "ordered_at": [MOMENT + dt.timedelta(minutes=n) for n in numbers],
            "ordered_on": [(MOMENT + dt.timedelta(minutes=n)).date() for n in numbers],
            "items": [n % 7 for n in numbers],
        },
        schema=to_arrow(schema_of(ORDERS)),
    )


def kinds() -> pa.Table:
    return pa.table(
        {
            "n": [1, 2, 3],
            "flag": [True, None, False],
            "tiny": [1, None, -128],
            "small": [2, None, -32768],
            "whole": [3, None, -(2**31)],
            "big": [4, None, 2**63 - 1],
            "single": [1.5, None, float("nan")],
            "wide": [2.25, None, float("-inf")],
            "money": [Decimal("12345.6789"), None, Decimal("-0.0000000001")],
            "words": ["plain", None, 'tab\t quote" back\\slash, comma\nline ü'],
            "bytes": [b"\x00\xff", None, b""],
            "day": [dt.date(2024, 5, 1), None, dt.date(1969, 12, 31)],
            "moment": [MOMENT, None, dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC)],
            "numbers": [[1, None, 3], None, []],
            "names": [["a b", "NULL", None, 'x"y\\'], None, []],
            "place": [{"lat": 1.5, "name": "x"}, None, {"lat": None, "name": None}],
            "tags": [[("k", "v")], None, []],
        },
        schema=to_arrow(schema_of(KINDS)),
    )


def schema_of(columns: dict[str, str]) -> Schema:
    return Schema(tuple(Column(name, parse_type(kind)) for name, kind in columns.items()))


def write_table(lake: str, name: str, columns: dict[str, str], rows: pa.Table) -> None:
    table = DeltaTable.create(
        LocalDisk(), table_path(lake, TableName.parse(name)), schema_of(columns), partition_columns=(),
        table_id=f"id-{name}", clock_us=CLOCK_US,
    )  # fmt: skip
    table.commit(adds=table.stage(rows, name="1").adds, clock_us=CLOCK_US)


def write_project(folder: Path, server: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "lodestream.yaml").write_text(f"project: shop\nlake: lake\nserver: {{port: 0, {server}}}\n")
    (folder / "tables/bronze").mkdir(parents=True)
    declared = "source: {http: {stream: secrets}}\ncolumns: {id: bigint, canary: string}\n"
    (folder / "tables/bronze/secrets.yaml").write_text(declared)
    lake = str(folder / "lake")
    write_table(lake, "gold.orders", ORDERS, orders())
    write_table(lake, "gold.kinds", KINDS, kinds())
    write_table(lake, "silver.people", {"id": "bigint", "name": "string"}, pa.table({"id": [1], "name": ["ann"]}))
    write_table(lake, "bronze.secrets", {"id": "bigint", "canary": "string"}, pa.table({"id": [1], "canary": ["bird"]}))
    return folder
