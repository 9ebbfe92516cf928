"""Tables that go from one engine to the other and back. Runs in the environment of Spark; see scenarios.py.

Both engines fill the lake `spark`; the lake `embedded` is filled by the embedded engine alone.
"""

from __future__ import annotations

import random

from lodestream.app import open_project
from lodestream.model.table import TableName
from tests.engines.spark.sites import Site, StreamSite

NOTICES = ("taken over from the embedded engine at batch", "taken over from Spark at batch")


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
            app.on_spark(session=self.site.session, notice=self.notice).run(tables=names, until_idle=True, more=more)
        finally:
            app.close()

    def on_embedded(self, *tables):
        app = open_project(str(self.site.root), lake="spark")
        app.apply()
        names = [TableName.parse(table) for table in tables] or None
        try:
            app.pipeline(self.notice).run(tables=names, until_idle=True)
        finally:
            app.close()


def switched(root, session, seed):
    """A random stream whose tables change engines between files, against the reference semantics, and the embedded
    engine on the very same batches."""
    site = StreamSite(root, session, seed)
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
