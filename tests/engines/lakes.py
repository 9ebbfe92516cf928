"""Small projects for engine tests: files in, pipeline run until idle, tables out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lodestream.app import App, open_project
from lodestream.lake.crash import install
from lodestream.lake.layout import quarantine_name, table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.operations.account import Report
from lodestream.operations.reconcile import reconcile


class Lab:
    """A project in a folder, written table by table."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "events").mkdir(parents=True)
        (root / "lodestream.yaml").write_text("project: lab\nlake: lake\n")
        self.files = 0

    @classmethod
    def at(cls, root: Path) -> Lab:
        """The lab that stands in a folder."""
        lab = cls.__new__(cls)
        lab.root, lab.files = root, 100
        return lab

    def table(self, name: str, text: str) -> None:
        layer, short = name.split(".")
        folder = self.root / "tables" / layer
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{short}.yaml").write_text(text)

    def events(self, rows: list[Any], name: str | None = None) -> Path:
        """One more file of JSON lines; a str is written as it is."""
        path = self.root / "events" / (name or f"{self.files:04}.jsonl")
        self.files += 1
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(line + "\n" for line in lines))
        return path

    def app(self, *, handover: bool = True) -> App:
        app = open_project(str(self.root))
        app.handover = handover
        return app

    def run(self, *, accept: str | None = None, tables: list[str] | None = None, handover: bool = True) -> App:
        app = self.app(handover=handover)
        app.apply(accept)
        names = [TableName.parse(t) for t in tables] if tables else None
        pipeline = app.pipeline()
        pipeline.run(until_idle=True, tables=names)
        app.close()
        return app

    def rows(self, name: str, *columns: str) -> list[dict[str, Any]]:
        """Rows of a table, sorted by their text; `x.y__quarantine` is one too."""
        table = self.read(name)
        listed = table.select(list(columns)).to_pylist() if columns else table.to_pylist()
        return sorted(listed, key=repr)

    def read(self, name: str) -> pa.Table:
        table = self.delta(name)
        return table.read(table.files())

    def delta(self, name: str) -> DeltaTable:
        parsed = TableName(*name.split("."))
        table = DeltaTable.open(self.app().disk, table_path(str(self.root / "lake"), parsed))
        assert table is not None, name
        return table

    def quarantine(self, name: str, *columns: str) -> list[dict[str, Any]]:
        return self.rows(str(quarantine_name(TableName.parse(name))), *columns)

    def reconcile(self) -> list[Report]:
        app = self.app()
        reports = [reconcile(app.project.root, app.lake, plan, app.resolve) for plan in app.flows.values()]
        for report in reports:
            assert report.ok, report.problems
        return reports


class KilledError(BaseException):
    """The process ends here."""


def points_of(work: Callable[[], object]) -> list[str]:
    """The points at which a process that does this can be killed, in order."""
    names: list[str] = []
    install(names.append)
    try:
        work()
    finally:
        install(None)
    return names


def killed_at(step: int, work: Callable[[], object]) -> None:
    """Do it up to the point of that number."""
    left = step

    def hook(_name: str) -> None:
        nonlocal left
        if not left:
            raise KilledError
        left -= 1

    install(hook)
    try:
        with pytest.raises(KilledError):
            work()
    finally:
        install(None)


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition was not met in time"
        time.sleep(0.01)
