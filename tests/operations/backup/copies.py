"""Labs that are copied: what the tests of backups have in common."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lodestream.app import now_us
from lodestream.lake.disk import LocalDisk
from lodestream.operations.backup.make import Made, Source, make_point
from lodestream.operations.backup.replica import Replica
from lodestream.operations.backup.restore import Places, restore
from lodestream.operations.backup.vault import Vault
from tests.engines.lakes import Lab

BRONZE = """
source: {files: {path: events, settle: 0}}
format: json
columns: {id: bigint, country: string, amount: double, at: timestamp}
"""
SILVER = """
from: stream(bronze.orders)
expect: {positive: {that: amount >= 0, else: quarantine}}
event_time: {column: at, delay: 1 minute}
dedup: {keys: [id]}
"""
GOLD = """
from: stream(silver.orders)
event_time: {column: at, delay: 1 minute}
window: {every: 1 minute}
group_by: [country]
measures: {orders: count(*), spent: sum(amount)}
emit: updates
"""
TABLES = {"bronze.orders": BRONZE, "silver.orders": SILVER, "gold.per_country": GOLD}


def shop(root: Path, batches: int = 3) -> Lab:
    """Orders through three tables with state, quarantine, duplicates and open windows."""
    lab = Lab(root)
    (root / "lodestream.yaml").write_text("project: lab\nlake: lake\nbatch: {rows_max: 20}\n")
    for name, text in TABLES.items():
        lab.table(name, text)
    for _ in range(batches):
        more(lab)
        lab.run()
    return lab


def more(lab: Lab, rows: int = 20) -> None:
    """Another file of events; a few are bad, a few were there before."""
    first = lab.files * rows
    lab.events([order(first + i) for i in range(rows)] + [order(first)])


def order(number: int) -> dict[str, Any]:
    minute, second = divmod(number, 60)
    at = f"2026-01-01T{minute // 60:02}:{minute % 60:02}:{second:02}Z"
    amount = -1.0 if number % 7 == 3 else float(number)
    return {"id": number, "country": "DE" if number % 2 else "FR", "amount": amount, "at": at}


def source(lab: Lab) -> Source:
    app = lab.app()
    return Source(app.disk, app.lake, app.home, app.project.name, app.project.root, app.flows, now_us)


def point_of(lab: Lab, vault: Vault) -> Made:
    """One more point."""
    vault.make("lab")
    with vault.turn(now_us):
        return make_point(source(lab), vault)


def twin(root: Path, other: Path) -> Lab:
    """A lab as it stands, lake and all, in another folder."""
    shutil.copytree(root, other)
    found = Lab.at(other)
    found.files = len(list((other / "events").iterdir()))
    return found


def sibling(lab: Lab, root: Path) -> Lab:
    """The same project in another folder, with the same events and no lake."""
    shutil.copytree(lab.root, root, ignore=shutil.ignore_patterns("lake", "set", "replica"))
    found = Lab.at(root)
    found.files = lab.files
    return found


def restored(lab: Lab, vault: Vault, root: Path, point: str | None = None) -> Lab:
    """A point in a project of its own."""
    found = sibling(lab, root)
    made = vault.point(point) if point else vault.newest()
    assert made is not None
    lake = str(root / "lake")
    restore(vault, made, Places(LocalDisk(), lake, lake), lambda _text: None)
    return found


def replica_of(lab: Lab) -> Replica:
    """A replica at `lake` in a folder of its own."""
    lake = str(lab.root / "lake")
    return Replica(LocalDisk(), lake, lake)


def released(vault: Vault) -> None:
    """The turn of a process that died is over."""
    Path(vault.root, "turn.json").unlink(missing_ok=True)


def hand_on(lab: Lab, copy: Lab) -> None:
    """The source of the one is that of the other too."""
    for path in (lab.root / "events").iterdir():
        shutil.copy2(path, copy.root / "events")


def contents(lab: Lab) -> dict[str, list[str]]:
    """Every table's rows, without what differs from run to run."""
    found = {}
    for name in lab.app().flows:
        asked = (str(name), f"{name}__quarantine") if lab.app().flows[name].streams else (str(name),)
        for one in asked:
            rows = lab.read(one)
            kept = [c for c in rows.column_names if c not in ("_batch", "_ingest_time", "_attempt", "_time", "row")]
            found[one] = sorted(map(repr, rows.select(kept).to_pylist()))
    return found


def goes_on(lab: Lab, copy: Lab) -> None:
    """Both take in what is new and end up equal, and nothing of the copy is missing or twice."""
    hand_on(lab, copy)
    lab.run()
    copy.run()
    copy.reconcile()
    assert contents(copy) == contents(lab)
