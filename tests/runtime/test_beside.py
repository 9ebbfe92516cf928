"""What the driver of a run on Spark does itself, without Spark: rows that ask, and sinks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import lodestream.sinks
from lodestream.app import App, open_project
from lodestream.errors import ConfigError
from lodestream.model.table import TableName
from lodestream.runtime.beside import Beside
from tests.engines.lakes import wait_for
from tests.engines.spark.sites import Site
from tests.engines.spark.wide_site import OWN_SINKS, asking, reviews
from tests.enrichers.service import serving

BRONZE, SCORED, LABELS = (TableName.parse(name) for name in ("bronze.reviews", "silver.scored", "gold.labels"))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, App]]:
    """A project whose bronze table is filled already, as Spark would have filled it."""
    monkeypatch.setattr(lodestream.sinks, "__path__", [*lodestream.sinks.__path__, OWN_SINKS])
    with serving() as service:
        Site(tmp_path, None).write({**asking(service.url, tmp_path), "data/reviews/0.jsonl": reviews(0)})
        app = open_project(str(tmp_path))
        app.apply()
        app.pipeline().run(tables=[BRONZE], publishing=(), until_idle=True)
        yield tmp_path, app
        app.close()


def published(root: Path) -> list[list[object]]:
    path = root / "scored.json"
    lines: list[list[object]] = json.loads(path.read_text())["lines"] if path.exists() else []
    return lines


def test_it_goes_on_until_it_is_told_to_stop(site: tuple[Path, App]) -> None:
    root, app = site
    beside, heard = Beside(app.pipeline()), set()
    beside.chosen = beside.publishing = [BRONZE, SCORED, LABELS]
    assert beside.tables == [SCORED]
    beside.start(lambda name, _done: heard.add(str(name)))
    wait_for(lambda: len(published(root)) == 15, 30)  # of 20 rows one has no text, and four are there twice
    beside.check()
    beside.stop()
    beside.stop()
    assert {str(SCORED)} < heard
    assert all(not thread.name.startswith("beside") for thread in threading.enumerate())


def test_it_settles_a_table_and_then_the_sinks(site: tuple[Path, App]) -> None:
    root, app = site
    beside, heard = Beside(app.pipeline()), []
    beside.chosen = beside.publishing = [BRONZE, SCORED]
    beside.make(SCORED)
    beside.settle(SCORED, lambda name, _done: heard.append(str(name)))
    assert set(heard) == {str(SCORED)}
    assert published(root) == []
    beside.publish(lambda _name, _done: None)
    assert len(published(root)) == 15
    beside.publishing = []
    beside.publish(lambda _name, _done: pytest.fail("nothing is to be published"))


def test_what_fails_is_told(site: tuple[Path, App], monkeypatch: pytest.MonkeyPatch) -> None:
    beside = Beside(site[1].pipeline())
    beside.chosen = [SCORED]

    def broken(*_given: object, **_more: object) -> None:
        raise ConfigError("broken here")

    monkeypatch.setattr("lodestream.engines.embedded.flow.Flow.step", broken)
    beside.start(lambda _name, _done: None)
    wait_for(lambda: beside.error is not None)
    with pytest.raises(ConfigError, match="broken here"):
        beside.check()
    beside.stop()
