"""What a flow remembers can be made again from rows: the half of a handover between the engines that needs no Spark."""

import json
import random
import shutil

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from lodestream.cli.root import app as cli
from lodestream.engines.embedded import frames, takeover
from lodestream.engines.embedded.history import last_commit
from lodestream.engines.embedded.inputs import StreamInput
from lodestream.engines.embedded.takeover import Point, check_handover, check_same, remembered
from lodestream.errors import ConfigError
from lodestream.lake import crash
from lodestream.lake.log import commit_path
from lodestream.model.steps import Aggregation, Dedupe
from lodestream.model.table import TableName
from lodestream.testing.streams import make_stream
from tests.engines.lakes import Lab
from tests.engines.test_differential import Site

SHORT, LONG = 10, 1_000

pytestmark = pytest.mark.usefixtures("one_duckdb")


def opened(pipeline):
    """Every flow."""
    flows = {name: pipeline.flow(name) for name in pipeline.flows}
    for flow in flows.values():
        flow.open()
    return flows


def run(flows):
    while sum(flow.step(idle=True) is not None for flow in flows.values()):
        pass


def close(flows):
    for flow in flows.values():
        flow.close()


def handed_over(plan):
    try:
        check_handover(plan)
    except ConfigError:
        return False
    return True


def stateful(flow):
    return handed_over(flow.plan) and (flow.plan.step(Dedupe) or flow.plan.step(Aggregation))


def made_again(flow):
    batch = flow.state.batch
    at = Point.of(last_commit(flow.table, flow.app_id), batch)
    return remembered(flow.plan, flow.around, frames.connect(), flow.quarantine, at)


def told(windows):
    names = windows.schema.names
    order = [(name, "ascending") for name in names if not pa.types.is_nested(windows.schema.field(name).type)]
    return windows.table.sort_by(order).to_pylist()


@pytest.mark.parametrize("first", [*range(0, SHORT, 10), *(pytest.param(s, marks=pytest.mark.long) for s in
                                   range(20_000, 20_000 + LONG, 10))])  # fmt: skip
def test_the_state_is_made_again_from_rows(tmp_path, first):
    compared = 0
    for seed in range(first, first + 10):
        (tmp_path / str(seed)).mkdir()
        site = Site(tmp_path / str(seed), make_stream(seed))
        pipeline = site.pipeline()
        while site.place():
            flows = opened(pipeline)
            run(flows)
            for flow in filter(stateful, flows.values()):
                if flow.state.batch:
                    made = made_again(flow)
                    check_same(made, flow.state, flow.name)
                    if made.windows is not None:
                        assert told(made.windows) == told(flow.state.windows), (seed, flow.name)
                    compared += len(made.rows)
            close(flows)
    assert compared > 100


def of_spark(flow):
    """Make the last commit one of Spark's, which names no state."""
    version = last_commit(flow.table, flow.app_id).version
    path = commit_path(flow.table.path, version)
    lines = []
    with open(path) as file:
        for action in map(json.loads, file):
            if "commitInfo" in action:
                action["commitInfo"].pop("state", None)
                action["commitInfo"]["query"] = "a query"
            lines.append(json.dumps(action))
    with open(path, "w") as file:
        file.write("".join(line + "\n" for line in lines))


@pytest.mark.parametrize("first", [*range(100, 100 + SHORT, 10), *(pytest.param(s, marks=pytest.mark.long) for s in
                                   range(30_000, 30_000 + LONG, 10))])  # fmt: skip
def test_flows_go_on_from_commits_of_spark(tmp_path, first):
    """Without the state that they kept themselves."""
    taken = 0
    for seed in range(first, first + 10):
        (tmp_path / str(seed)).mkdir()
        site, rng = Site(tmp_path / str(seed), make_stream(seed)), random.Random(seed)
        pipeline = site.pipeline()
        while site.place():
            flows = opened(pipeline)
            run(flows)
            for flow in flows.values():
                if flow.state.batch and handed_over(flow.plan) and rng.random() < 0.7:
                    of_spark(flow)
                    shutil.rmtree(f"{flow.store.root}/state")
                    taken += 1
            close(flows)
        assert site.differences() == [], seed
    assert taken > 50


def after_spark(folder, seed):
    """A site whose flows that keep state all stand after a commit of Spark's, with rows to come from upstream."""
    site = Site(folder, make_stream(seed))
    for _ in range(2):
        site.place()
    flows = opened(site.pipeline())
    run(flows)
    for flow in flows.values():
        if flow.state.batch and stateful(flow):
            of_spark(flow)
    while site.place():
        run({name: flow for name, flow in flows.items() if name.layer == "bronze"})
    close(flows)
    return site


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("seed", "step"), [(3, 5), *(pytest.param(seed, 1, marks=pytest.mark.long) for seed in (3, 7, 8, 11))]
)
def test_a_kill_at_any_point_of_a_takeover(tmp_path, seed, step):
    """Each time the process dies some points later, on a lake that nobody else has touched, and starts again."""
    (tmp_path / "made").mkdir()
    site = after_spark(tmp_path / "made", seed)
    points = 0
    while True:
        shutil.copytree(site.root, root := tmp_path / str(points))
        here = Site.__new__(Site)
        here.root, here.stream, here.placed, here.ticks = root, site.stream, site.placed, site.ticks
        if not dies_at(here, points):
            break
        flows = opened(here.pipeline())
        run(flows)
        close(flows)
        assert here.differences() == [], points
        shutil.rmtree(root)
        points += step
    assert points > 20


def dies_at(site, number):
    """Open the flows that keep state and step each once, but for what comes after so many points; whether it died."""
    seen = iter(range(number))

    def count(name):
        if next(seen, None) is None:
            raise Killed(name)

    pipeline = site.pipeline()
    flows = [pipeline.flow(name) for name in pipeline.flows if name.layer != "bronze"]
    crash.install(count)
    try:
        for flow in filter(stateful, flows):
            flow.open()
            flow.step()
    except Killed:
        return True
    finally:
        crash.install(None)
        for flow in flows:
            flow.close()
    return False


def test_what_no_row_tells_is_refused(tmp_path):
    """A row that went upstream by erasure: then its key is known only to the state."""
    site = Site(tmp_path, make_stream(4))
    while site.place():
        pass
    flows = opened(site.pipeline())
    run(flows)
    flow = next(flow for flow in flows.values() if stateful(flow) and len(made_again(flow).rows))
    pieces = StreamInput.pieces
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StreamInput, "pieces", lambda *given: (one.slice(0, 0) for one in pieces(*given)))
        with pytest.raises(ConfigError, match="cannot be handed over"):
            check_same(made_again(flow), flow.state, flow.name)
    close(flows)


def test_a_row_that_was_set_aside_after_dedup_keeps_its_key(tmp_path):
    """Its window could not take it; a copy that comes after the take-over is a duplicate all the same."""
    lab = Lab(tmp_path / "lab")
    lab.table(
        "bronze.events",
        """
        source: {files: {path: events, settle: 0}}
        format: json
        columns: {id: string, at: timestamp, code: string}
    """,
    )
    lab.table(
        "gold.codes",
        """
        from: stream(bronze.events)
        skip_silver: true
        event_time: {column: at, delay: 1 minute}
        dedup: {keys: [id]}
        window: {every: 1 hour}
        group_by: {number: cast(code as int)}
        measures: {rows: count(*)}
        emit: updates
    """,
    )
    lab.events(
        [{"id": "a", "at": "2026-01-01T00:00:01Z", "code": "x"}, {"id": "b", "at": "2026-01-01T00:00:02Z", "code": "1"}]
    )
    app = lab.run()
    flow = app.pipeline().flow(TableName.parse("gold.codes"))
    flow.open()
    check_same(made_again(flow), flow.state, flow.name)
    of_spark(flow)
    flow.close()
    lab.events([{"id": name, "at": "2026-01-01T00:00:03Z", "code": "1"} for name in "abc"])
    told = CliRunner().invoke(cli, ["-C", str(lab.root), "run", "--until-idle"])
    assert "gold.codes: taken over from Spark at batch 2" in told.output
    kinds = {(row["_source"], row["kind"]) for row in lab.rows("gold.codes__quarantine")}
    assert kinds == {("0000.jsonl", "quarantine"), ("0001.jsonl", "duplicate")}
    assert [(row["number"], row["rows"]) for row in lab.rows("gold.codes")] == [(1, 2)]


# --- the tests see bugs -----------------------------------------------------------------------------------------------


def rows_set_aside_count(patch):
    patch.setattr(takeover, "open_entries", lambda entries: entries.slice(0, 0))


def the_span_begins_late(patch):
    patch.setattr(takeover, "_span", lambda plan, event, late_us: (event, late_us + 1, 1 << 62))


@pytest.mark.parametrize("bug", [rows_set_aside_count, the_span_begins_late],
                         ids=lambda bug: bug.__name__)  # fmt: skip
def test_a_planted_bug_is_seen(tmp_path, bug):
    with pytest.MonkeyPatch.context() as patch:
        bug(patch)
        with pytest.raises((AssertionError, ConfigError)):
            compare_all(tmp_path)


def compare_all(folder):
    for first in range(0, SHORT, 10):
        (folder / str(first)).mkdir()
        test_the_state_is_made_again_from_rows(folder / str(first), first)
