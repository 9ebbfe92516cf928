"""Tables that go from one engine to the other and back. Runs in the environment of Spark; see scenarios.py.

Both engines fill the lake `spark`; the lake `embedded` is filled by the embedded engine alone.
"""

from __future__ import annotations

import itertools
import random
from functools import partial

from lodestream.app import open_project
from lodestream.engines.embedded.checkpoints import Checkpoint
from lodestream.engines.embedded.takeover import check_handover
from lodestream.engines.spark.flow import SparkFlow
from lodestream.errors import ConflictError, LodestreamError
from lodestream.lake import crash
from lodestream.model.table import TableName
from tests.engines.spark.sites import KEPT, Site, StreamSite

USERS = {"data/users/a.csv": "id,tier\n2,gold\n3,silver\n4,\n5,bronze\n5,again\n"}


class Both:
    """Runs a site's lake `spark` on either engine, and keeps what is told."""

    def __init__(self, site: Site) -> None:
        self.site, self.told = site, []

    def notice(self, table, text):
        self.told.append(f"{table}: {text}")

    def on_spark(self, *tables, more=lambda: False):
        app = self.site.spark_app()
        app.apply()
        names = [TableName.parse(table) for table in tables] or None
        try:
            pipeline = app.on_spark(session=self.site.session, notice=self.notice)
            pipeline.upkeep = KEPT
            pipeline.run(tables=names, until_idle=True, more=more)
        finally:
            app.close()

    def on_embedded(self, *tables):
        app = open_project(str(self.site.root), lake="spark")
        app.apply()
        names = [TableName.parse(table) for table in tables] or None
        try:
            pipeline = app.pipeline(self.notice)
            pipeline._upkeep = KEPT
            pipeline.run(tables=names, until_idle=True)
        finally:
            app.close()


def bring(site, orders):
    """One more file."""
    folder = site.root / "data" / "orders"
    number = len(list(folder.iterdir())) if folder.exists() else 0
    site.write({f"data/orders/{number}.jsonl": orders(number, 40_012 + 47 * number, 40)})


def there_and_back(root, session, declarations, orders, turns):
    """The same files for the embedded engine alone and for both in turn; Spark has the second turn."""
    site = Site(root, session)
    both, found = Both(site), []
    site.write({**declarations, **USERS})
    for engine in itertools.islice(itertools.cycle((both.on_embedded, both.on_spark)), turns):
        bring(site, orders)
        site.on_embedded()
        engine()
        found.append(site.judged())
    return {"turns": found, "told": both.told}


def killed_on_spark(site, orders, tables):
    """After a turn of the embedded engine, which leaves a batch of the first of `tables` half done: Spark dies between
    any two effects of its take-over of each, and starts again."""
    both, died = Both(site), []
    bring(site, orders)
    site.on_embedded()
    both.on_spark("bronze.orders", "bronze.users")
    app = open_project(str(site.root), lake="spark")
    half_done = dies_at(app.pipeline().flow(TableName.parse(tables[0])), "main.staged")
    app.close()
    for table in tables:
        for owner, method, after in (
            (Checkpoint, "put", False), (Checkpoint, "put", True), (SparkFlow, "_commit_quarantine", False),
            (SparkFlow, "_commit_main", False), (SparkFlow, "_commit_main", True),
        ):  # fmt: skip
            died += killed(partial(both.on_spark, table), method, owner, after=after)
        both.on_spark(table)
    both.on_spark()
    return {"half_done": half_done, "died": died, "compared": site.compare(), "problems": site.reconcile()}


def killed(work, method, owner=SparkFlow, *, after=False):
    """Do it, but die before `owner` does that, or after; what is said of it, nothing when it never came to that."""
    kept = getattr(owner, method)

    def dies(self, *given):
        if after:
            kept(self, *given)
        raise LodestreamError("killed here")

    setattr(owner, method, dies)
    try:
        work()
    except LodestreamError as error:
        return [error.message]
    finally:
        setattr(owner, method, kept)
    return []


class Killed(BaseException):
    pass


def killed_on_embedded(site, orders, tables):
    """After a turn of Spark, which leaves a batch of the first of `tables` half done: the embedded engine dies at each
    point of its first batch of each, and starts again."""
    both, died = Both(site), 0
    bring(site, orders)
    site.on_embedded()
    both.on_embedded("bronze.orders", "bronze.users")
    [half_done] = killed(partial(both.on_spark, tables[0]), "_commit_main")
    app = open_project(str(site.root), lake="spark")
    for table in tables:
        passed = 0
        while dies_at(app.pipeline().flow(TableName.parse(table)), passed):
            passed, died = passed + 1, died + 1
    app.close()
    both.on_embedded()
    return {"half_done": half_done, "died": died, "compared": site.compare(), "problems": site.reconcile()}


def dies_at(flow, where):
    """Open a flow and step it once, up to the point of that name or number; whether it died there."""
    seen = itertools.count()

    def count(name):
        if where in (next(seen), name):
            raise Killed(name)

    crash.install(count)
    try:
        flow.open()
        flow.step()
    except Killed:
        return True
    finally:
        crash.install(None)
        flow.close()
    return False


def at_once(site, orders):
    """Each engine goes on with the tables while the other one runs too."""
    both, said = Both(site), {}
    bring(site, orders)

    def meanwhile():
        bring(site, orders)
        site.on_embedded()
        both.on_embedded()
        return True

    site.on_embedded()
    try:
        both.on_spark(more=meanwhile)
    except ConflictError as error:
        said["spark"] = error.message
    first = site.compare()
    app = open_project(str(site.root), lake="spark")
    flow = app.pipeline().flow(TableName.parse("bronze.orders"))
    flow.open()
    bring(site, orders)
    site.on_embedded()
    both.on_spark()
    try:
        flow.step()
    except ConflictError as error:
        said["embedded"] = error.message
    flow.open()
    again = flow.step()
    flow.close()
    app.close()
    return {"said": said, "first": first, "second": site.compare(), "again": again, "problems": site.reconcile()}


def switched(root, session, seed, make):
    """A random stream whose tables change engines between files, against the reference semantics, and the embedded
    engine on the very same batches."""
    site = StreamSite(root, session, seed, refuse=check_handover, make=make)
    both, rng = Both(site), random.Random(f"switch {seed}")
    engine, engines = rng.choice((both.on_embedded, both.on_spark)), []
    while site.place():
        engine()
        engines.append(engine.__name__.removeprefix("on_"))
        if rng.random() < 0.7:
            engine = both.on_embedded if engine == both.on_spark else both.on_spark
    mistakes = site.by_meaning() + site.reconcile()
    site.replay_on_embedded()
    compared, differences = site.compare()
    return {
        "seed": seed, "engines": engines, "rows": compared, "mistakes": mistakes + differences, "told": len(both.told),
        "operators": site.operators(),
    }  # fmt: skip
