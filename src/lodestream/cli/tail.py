"""`lodestream tail`: the newest rows of a table, and those that come."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestream.cli.call import Call, table_named

if TYPE_CHECKING:
    import pyarrow as pa

    from lodestream.lake.table import DeltaTable

_POLL_S = 0.25
_WIDTH_MAX = 40


def tail(
    call: Call,
    table: Annotated[str, typer.Argument(help="layer.name, or layer.name__quarantine")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with rows as they are committed.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many rows to begin with.")] = 10,
) -> None:
    """Show the newest rows of a table, in the order in which they were committed.

    With --follow each further commit's rows are shown when it is durable. A table of windows with `emit: updates` shows
    its open windows again whenever they change.
    """
    import pyarrow.compute as pc

    from lodestream.lake.layout import table_path
    from lodestream.lake.table import DeltaTable

    app = call.app()
    service = app.query
    name = table_named(table, service.tables())
    found = DeltaTable.open(app.disk, table_path(app.lake, name))
    assert found is not None
    show = _Lines(call)
    show.rows(_newest(found, lines))
    if not follow:
        return
    version = found.snapshot.version
    try:
        while True:
            for commit in found.commits(version):
                found.refresh()
                rows = found.read([add for add in commit.adds if add.data_change])
                if commit.info.get("operation") == "MERGE":  # its files also hold rows that it left as they were
                    rows = rows.filter(pc.equal(rows.column("_batch"), int(commit.info["batch"])))
                show.rows(rows)
                version = commit.version
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _newest(table: DeltaTable, count: int) -> pa.Table:
    """The last `count` rows of the live files, newest files last."""
    files = sorted(table.files(), key=lambda add: (add.modification_time, add.path))
    taken: list[Any] = []
    rows = 0
    while files and rows < count:
        add = files.pop()
        taken.insert(0, add)
        rows += add.num_records if add.num_records is not None else count
    read = table.read(taken)
    return read.slice(max(0, len(read) - count))


class _Lines:
    """Prints rows under one header, in columns whose widths the first rows set."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._widths: dict[str, int] = {}

    def rows(self, rows: pa.Table) -> None:
        """Print all rows."""
        from lodestream.cli.encode import json_lines
        from lodestream.cli.output import cell

        if not len(rows):
            return
        if self._call.json:
            for batch in rows.to_batches():
                print(json_lines(batch), end="", flush=True)
            return
        names = rows.schema.names
        texts = [[cell(value) for value in column.to_pylist()] for column in rows.columns]
        if list(self._widths) != names:
            self._widths = {
                name: min(_WIDTH_MAX, max(len(name), *(len(text) for text in column)))
                for name, column in zip(names, texts, strict=True)
            }
            print("  ".join(name.ljust(width) for name, width in self._widths.items()).rstrip())
        for row in zip(*texts, strict=True):
            cells = [_fit(text, width) for text, width in zip(row, self._widths.values(), strict=True)]
            print("  ".join(cells).rstrip(), flush=True)


def _fit(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: max(width - 1, 0)] + "…"
