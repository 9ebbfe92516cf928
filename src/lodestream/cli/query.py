"""`lodestream query`: ask the tables in SQL."""

from __future__ import annotations

import enum
import re
import sys
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from lodestream.cli.call import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from lodestream.model.table import TableName
    from lodestream.query.service import Answer

_TABLE_ROWS = 1000


class Format(enum.StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


def query(
    call: Call,
    sql: Annotated[str, typer.Argument(help="SQL over layer.name; `-` reads it from stdin.")],
    form: Annotated[Format, typer.Option("--format", "-f", help="json is one object a line.")] = Format.TABLE,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write there, not to stdout.")
    ] = None,
    rows_max: Annotated[
        int | None, typer.Option("--max-rows", min=0, help=f"0 is all. [default: {_TABLE_ROWS} for tables, else all]")
    ] = None,
    as_of: Annotated[
        list[str] | None,
        typer.Option("--as-of", metavar="TABLE=VERSION", help="Read an older version, by its number or a time."),
    ] = None,
    memory: Annotated[str, typer.Option(help="Memory that the query may use.")] = "1GB",
    reader: Annotated[
        str | None, typer.Option("--as", metavar="WHO", help="As this user would be answered, by grants and policies.")
    ] = None,
    time_s: Annotated[float, typer.Option("--timeout", min=0, help="Seconds that it may take; 0 is no bound.")] = 0,
) -> None:
    """Ask bronze, silver, gold and quarantine tables (layer.name__quarantine) in DuckDB's SQL.

    A query reads one version of each table, whatever is written meanwhile. Times are UTC. An older version is
    `from silver.orders at (version => 12)` or `--as-of silver.orders=12`; that of a time is
    `at (timestamp => '2024-01-31 12:00:00')` or `--as-of silver.orders=2024-01-31T12:00:00`.
    """
    from lodestream.cli.interrupt import leave_on_interrupt
    from lodestream.query.service import OWNER, Budget

    app = call.app()
    call.hint = 'lodestream status lists tables, lodestream query "describe layer.name" columns'
    text = sys.stdin.read() if sql == "-" else sql
    form = Format.JSON if call.json else form
    rows_max = (_TABLE_ROWS if form is Format.TABLE else 0) if rows_max is None else rows_max
    service = app.query
    budget = Budget(time_s=_bounded(time_s), memory_bytes=_bytes(memory))
    versions = _versions(as_of or [], service.snapshots.version_at)
    principal = OWNER if reader is None else app.acting(reader, call.principal)

    def ask() -> None:
        with service.ask(text, principal=principal, as_of=versions, budget=budget) as answer:
            rows = _Rows(answer, rows_max)
            _show(call, rows, form, output)
            for name, (read, out) in answer.files.items():
                if out:
                    call.say(f"{name}: {read} of {read + out} files read; no row of the others meets the conditions")
            if rows.cut:
                call.say(f"cut after {rows_max} rows; --max-rows 0 shows all")

    leave_on_interrupt(ask)


def _show(call: Call, rows: _Rows, form: Format, output: str | None) -> None:
    from lodestream.errors import ConfigError

    if output is not None:
        _to_file(call, rows, form, output)
    elif form is Format.TABLE:
        _table(call, rows)
    elif form is Format.PARQUET and sys.stdout.isatty():
        raise ConfigError("parquet does not go to a terminal; use --output FILE")
    else:
        _write(rows, form, sys.stdout.buffer)


class _Rows:
    """The batches of an answer, cut after so many rows."""

    def __init__(self, answer: Answer, rows_max: int) -> None:
        self.answer, self.schema = answer, answer.schema
        self._left = rows_max or sys.maxsize
        self.cut = False

    def __iter__(self) -> Any:
        for batch in self.answer.batches():
            if batch.num_rows > self._left:
                self.cut = True
                batch = batch.slice(0, self._left)
            self._left -= batch.num_rows
            if batch.num_rows:
                yield batch
            if self.cut:
                return


def _table(call: Call, rows: _Rows) -> None:
    import pyarrow as pa

    numbers = {
        field.name for field in rows.schema
        if pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_decimal(field.type)
    }  # fmt: skip
    found: list[list[object]] = []
    for batch in rows:
        found += [list(row) for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)]
    call.table(rows.schema.names, found, right=numbers)
    call.say(f"{len(found)} row{'' if len(found) == 1 else 's'}")


def _to_file(call: Call, rows: _Rows, form: Format, path: str) -> None:
    from lodestream.cli.output import open_output

    if form is Format.TABLE:
        form = next((kind for kind in Format if path.endswith(f".{kind}")), Format.CSV)
    with open_output(path) as file:
        _write(rows, form, file)
    call.say(f"written. file={path!r} format={form.value!r}")


def _write(rows: _Rows, form: Format, file: IO[bytes]) -> None:
    from lodestream.cli.encode import csv_columns, csv_schema, json_lines

    if form is Format.JSON:
        for batch in rows:
            file.write(json_lines(batch).encode())
    elif form is Format.CSV:
        from pyarrow.csv import CSVWriter, WriteOptions

        options = WriteOptions(quoting_style="needed", quoting_header="needed")
        with CSVWriter(file, csv_schema(rows.schema), write_options=options) as writer:
            for batch in rows:
                writer.write_batch(csv_columns(batch))
    else:
        import pyarrow.parquet as pq

        with pq.ParquetWriter(file, rows.schema, compression="snappy") as writer:
            for batch in rows:
                writer.write_batch(batch)
    file.flush()


def _bounded(time_s: float) -> float:
    return time_s or 30 * 86_400.0


def _bytes(text: str) -> int:
    """Bytes of `512MB`, `1GB` or `1GiB`."""
    from lodestream.errors import ConfigError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])(i?)B", text.strip(), re.IGNORECASE)
    if found is None:
        raise ConfigError("not a size; write 512MB or 1GB", memory=text)
    base = 1024 if found[3] else 1000
    return int(float(found[1]) * base ** ("KMGT".index(found[2].upper()) + 1))


def _versions(given: list[str], version_at: Callable[[TableName, int], int]) -> dict[TableName, int]:
    from lodestream.errors import ConfigError
    from lodestream.model.table import TableName
    from lodestream.query.guard import moment_us

    found = {}
    for text in given:
        written, _, moment = text.partition("=")
        try:
            name = TableName.parse(written.strip())
            found[name] = int(moment) if moment.strip().isdigit() else version_at(name, moment_us(moment))
        except ValueError:
            raise ConfigError("write --as-of as layer.name=VERSION or layer.name=TIME", as_of=text) from None
    return found
