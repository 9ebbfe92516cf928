"""Erasing a subject from a table that asks a service: rows that wait, and the ledger of answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lodestream.app import now_us, open_project
from lodestream.engines.embedded.ledger import ledger_path
from lodestream.lake.disk import LocalDisk
from lodestream.lake.table import DeltaTable
from lodestream.operations.erase.carry import Carrier
from lodestream.operations.erase.purge import Purge, Purged
from tests.enrichers.service import SCORED, Reply, Reviews, good, serving

ADA, ADA_LATER, BOB, EVE = "ada writes", "ada waits", "bob writes", "eve waits"


def erase(reviews: Reviews, *asked: str) -> dict[str, Any]:
    with open_project(str(reviews.root)) as app:
        return Carrier(app, asked, now_us()).erase()


def questions(reviews: Reviews) -> int:
    table = DeltaTable.open(LocalDisk(), ledger_path(reviews.lake, SCORED))
    assert table is not None
    return len(table.read(table.files(), ["question"]))


def test_who_waits_and_what_was_answered_go(tmp_path: Path) -> None:
    silent: set[str] = set()

    def reply(asked: dict[str, Any]) -> Reply:
        return None if asked["text"] in silent else good(asked)

    with serving(reply) as service:
        reviews = Reviews(tmp_path, service.url)
        reviews.add({1: ADA, 2: BOB})
        reviews.run()
        assert questions(reviews) == 2
        silent.update((ADA_LATER, EVE))
        reviews.add({1: ADA_LATER, 3: EVE})
        with open_project(str(reviews.root)) as app:
            for _ in range(3):
                app.pipeline().run_once()
        assert [row["id"] for row in reviews.rows()] == [1, 2]
        report = erase(reviews, "id=1")
        assert report["proven"], report
        assert questions(reviews) == 1
        asked = dict(service.asked)
        silent.clear()
        reviews.run()
        assert [(row["id"], row["text"]) for row in reviews.rows()] == [(2, BOB), (3, EVE)]
        assert {text: n for text, n in asked.items() if "bob" in text} == {
            text: n for text, n in service.asked.items() if "bob" in text
        }
        reviews.reconciled(output=2, open=0)


@pytest.mark.parametrize("bug", ["files stay", "rows stay"])
def test_the_proof_sees_what_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    done: list[str] = []

    def skipped(name: str) -> Callable[..., Any]:
        def nothing(*_: object, **__: object) -> Purged:
            done.append(name)
            return Purged()

        return nothing

    with serving() as service:
        reviews = Reviews(tmp_path, service.url)
        reviews.add({1: ADA, 2: BOB})
        reviews.run()
        if bug == "files stay":
            monkeypatch.setattr(Purge, "table", skipped(bug))
        else:
            monkeypatch.setattr(Carrier, "_batch", skipped(bug))
        report = erase(reviews, "id=1")
        assert done
        assert not report["proven"]
        held = {one["file"].split("/")[1] for one in report["left"]}
        assert held >= {"reviews", "scored"}
        monkeypatch.undo()
        assert erase(reviews, "id=1")["proven"]
        reviews.reconciled(output=1)
