"""Projects that run on Spark and on the embedded engine side by side. Runs in the environment of Spark."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from lodestream.app import open_project
from lodestream.engines.embedded.store import FlowStore
from lodestream.errors import ConfigError, LodestreamError
from lodestream.lake.layout import table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.table import TableName
from lodestream.operations.reconcile import reconcile
from lodestream.planning.compile import compile_project
from lodestream.planning.on_spark import refuse_on_spark
from lodestream.project.load import load_project
from lodestream.project.mistakes import ProjectError
from lodestream.runtime.maintain import Upkeep
from lodestream.testing.differential import differences
from lodestream.testing.equality import compare_lakes
from lodestream.testing.streams import make_stream

KEPT = Upkeep(hot_kept_ms=1 << 40)
"""Files that were swapped stay: every version is looked at afterwards."""


class Site:
    """A folder with a project; `spark` and `embedded` are its two lakes."""

    def __init__(self, root, session):
        self.root, self.session = Path(root), session

    def write(self, declarations):
        for path, text in declarations.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text)

    def spark_app(self):
        app = open_project(str(self.root), lake="spark")
        app.engine = "spark"
        return app

    def on_spark(self, *tables, listener=lambda _name, _batch: None):
        app = self.spark_app()
        app.apply()
        names = [TableName.parse(table) for table in tables] or None
        pipeline = app.on_spark(session=self.session)
        pipeline.upkeep = KEPT
        pipeline.run(tables=names, until_idle=True, listener=listener)
        app.close()

    def on_embedded(self):
        app = open_project(str(self.root), lake="embedded")
        app.run()
        app.close()

    def compare(self):
        """(rows compared, differences)."""
        return compare_lakes(open_project(str(self.root), lake="embedded"), self.spark_app())

    def table(self, name):
        """A table on Spark."""
        app = self.spark_app()
        return DeltaTable.open(app.disk, table_path(app.lake, TableName.parse(name)))

    def versions(self):
        """Of every table on Spark."""
        return {str(name): self.table(str(name)).snapshot.version for name in self.spark_app().flows}

    def infos(self, name):
        """What the commits of a table on Spark say, but its first."""
        return [commit.info for commit in self.table(name).commits(0)]

    def reconcile(self):
        app = self.spark_app()
        reports = [reconcile(app.project.root, app.lake, plan, app.resolve) for plan in app.flows.values()]
        return [f"{report.table}: {problem}" for report in reports for problem in report.problems]

    def judged(self):
        """How the two lakes differ, and what of the one on Spark does not add up."""
        compared, differences = self.compare()
        return {"rows": compared, "differences": differences, "problems": self.reconcile()}

    def replay_on_embedded(self):
        """The embedded engine on the very same batches."""
        app = open_project(str(self.root), lake="embedded")
        app.apply()
        pipeline = app.pipeline()
        for name, plan in app.flows.items():
            flow = pipeline.flow(name)
            flow.open()
            made = FlowStore(app.disk, str(self.root / "spark"), name, 1)
            for number in itertools.count(1):
                batch = made.plan(number)
                if batch is None:
                    break
                flow.store.put_plan(replace(batch, definition=plan.definition))
                flow.step()
            flow.close()
        app.close()


def unmark(checkpoint):
    """As if Spark had died between the main commit of the last batch and its own marker: it does that batch again."""
    folder = checkpoint / "commits"
    last = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    for marker in (f"{last}", f".{last}.crc"):
        (folder / marker).unlink(missing_ok=True)


def said_by(work):
    """What the error says that ends this."""
    try:
        work()
    except LodestreamError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


class StreamSite(Site):
    """A random stream, of events or of changes, without the tables that are refused."""

    def __init__(self, root, session, seed, refuse=lambda plan: None, make=make_stream):
        super().__init__(root, session)
        whole = make(seed)
        self.placed = 0
        needless = () if whole.users else ("tables/bronze/users.yaml",)
        self.write({path: text for path, text in whole.declarations.items() if path not in needless})
        # Queries that are idle look for news all the time, which for a few rows is most of the work.
        self.write({"lodestream.yaml": whole.declarations["lodestream.yaml"] + "batch: {interval: 400 ms}\n"})
        for folder in ("events", "users"):
            (self.root / "data" / folder).mkdir(parents=True)
        self.stream = without_refused(whole, self.root, refuse)

    def place(self):
        """The next file of each source; False when there is none."""
        if self.placed == len(self.stream.files):
            return False
        for folder, files in (("events", self.stream.files), ("users", self.stream.users)):
            for file in files[self.placed : self.placed + 1]:
                (self.root / "data" / folder / file.unit).write_bytes(file.content)
        self.placed += 1
        return True

    def drive(self):
        """One file after the other, with all that Spark does when it is idle in between."""
        app = self.spark_app()
        app.apply()
        pipeline = app.on_spark(session=self.session)
        pipeline.upkeep = KEPT
        self.place()
        pipeline.run(until_idle=True, more=self.place)
        app.close()

    def by_meaning(self):
        """What the reference semantics say against the rows, for the batches that Spark made."""
        return differences(self.stream, self.root / "spark")

    def operators(self):
        """Stateful and joining stages that the stream goes through."""
        specs = self.stream.specs.values()
        stages = [(s.dedup, s.window, s.join, s.changes, *s.lookups) for s in specs]
        return sum(stage is not None for found in stages for stage in found)


def without_refused(stream, root, refuse):
    """The stream without the tables that Spark or `refuse` refuses and those that read them, declarations too."""
    project = load_project(str(root))
    gone = set()
    for name, plan in compile_project(project, {}).flows.items():
        try:
            refuse_on_spark(project, {name: plan})
            refuse(plan)
        except (ProjectError, ConfigError):
            gone.add(name)
        if gone.intersection(plan.streams):
            gone.add(name)
    for name in gone:
        (root / "tables" / name.layer / f"{name.name}.yaml").unlink()
    return replace(
        stream, specs={name: spec for name, spec in stream.specs.items() if name not in gone},
        upstream={name: above for name, above in stream.upstream.items() if name not in gone},
    )  # fmt: skip
