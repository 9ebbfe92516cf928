"""A small project that has run, and a way to call verbs in this process."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lodestream.cli.root import app

ROWS = 3000


@dataclass
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def lines(self):
        return [json.loads(line) for line in self.out.splitlines()]


def call(*arguments: str, project: Path | None = None, stdin: str | None = None) -> Result:
    """Run `lodestream ARGUMENTS` in this process; an unexpected exception is raised."""
    at = ["-C", str(project)] if project is not None else []
    result = CliRunner().invoke(app, [*at, *arguments], input=stdin, prog_name="lodestream")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Result(result.exit_code, result.stdout, result.stderr)


def make_orders(folder: Path, rows: int = ROWS) -> Path:
    """The template's project, smaller."""
    assert call("init", str(folder)).code == 0
    bronze = folder / "tables/bronze/orders.yaml"
    bronze.write_text(re.sub(r"rows: \d+", f"rows: {rows}", bronze.read_text()))
    return folder


@pytest.fixture(scope="session")
def _ran(tmp_path_factory):
    folder = make_orders(tmp_path_factory.mktemp("orders") / "shop")
    result = call("run", "--until-idle", "--json", project=folder)
    assert result.code == 0, result.err
    return folder


@pytest.fixture(scope="session")
def orders(_ran):
    """A project that has run; tests do not change it."""
    return _ran


@pytest.fixture
def own_orders(_ran, tmp_path):
    """A project that has run, to be changed."""
    folder = tmp_path / "shop"
    shutil.copytree(_ran, folder)
    return folder
