"""What a flow remembers can be made again from rows: the half of a handover between the engines that needs no Spark."""

import datetime as dt
import json
import random
import shutil
from textwrap import dedent

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from lodestream.cli.root import app as cli
from lodestream.engines.embedded import frames, remembered
from lodestream.engines.embedded.history import last_commit
from lodestream.engines.embedded.inputs import StreamInput
from lodestream.engines.embedded.kept import WINDOWS, is_folded, kept_path, kept_schema, signed
from lodestream.engines.embedded.remembered import Memory, Point
from lodestream.engines.embedded.takeover import check_handover, check_same
from lodestream.engines.spark.deletions import KeptDeletions
from lodestream.engines.spark.kept_windows import KeptWindows
from lodestream.errors import ConfigError, DataLossRefused
from lodestream.lake import crash
from lodestream.lake.log import commit_path
from lodestream.model.batch import Mend
from lodestream.model.steps import Aggregation, ApplyChanges, Dedupe
from lodestream.model.table import TableName
from lodestream.runtime.replaying import take_again
from lodestream.testing.streams import make_changes, make_stream
from tests.engines.lakes import Lab
from tests.engines.spark.wide_site import FOLDED, UNTIMED, USERS
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


def file_by_file(site):
    """Every flow, each time that all have taken in a further file."""
    pipeline = site.pipeline()
    while site.place():
        flows = opened(pipeline)
        run(flows)
        yield flows.values()
        close(flows)


def handed_over(plan):
    try:
        check_handover(plan)
    except ConfigError:
        return False
    return True


def stateful(flow):
    return handed_over(flow.plan) and (flow.plan.step(Dedupe) or flow.plan.step(Aggregation) or flow.plan.join)


def made_again(flow):
    batch = flow.state.batch
    at = Point.of(last_commit(flow.table, flow.app_id), batch)
    memory = Memory(flow.plan, flow.around, frames.connect(), flow.store, flow.table, flow.quarantine)
    return memory.at(at)


def counted(made):
    """Rows that are remembered."""
    sides = (made.join.here, made.join.there) if made.join is not None else ()
    return sum(len(rows) for rows in (made.keyed, made.inside) if rows is not None) + sum(map(len, sides))


def told(windows):
    names = windows.schema.names
    order = [(name, "ascending") for name in names if not pa.types.is_nested(windows.schema.field(name).type)]
    return windows.table.sort_by(order).to_pylist()


@pytest.mark.parametrize("first", [*range(0, SHORT, 10), *(pytest.param(s, marks=pytest.mark.long) for s in
                                   range(20_000, 20_000 + LONG, 10))])  # fmt: skip
def test_the_state_is_made_again_from_rows(tmp_path, first):
    compared = 0
    for seed in range(first, first + 10):
        for flows in file_by_file(Site(tmp_path / str(seed), make_stream(seed))):
            for flow in filter(stateful, flows):
                if flow.state.batch:
                    made = made_again(flow)
                    check_same(made, flow.state, flow.name)
                    if made.windows is not None:
                        assert told(made.windows) == told(flow.state.windows), (seed, flow.name)
                    compared += counted(made)
    assert compared > 100


def of_spark(flow):
    """Make the last commit one of Spark's, which names no state; open windows that it folds it keeps in a table."""
    if is_folded(flow.plan):
        open_windows = flow.state.windows
        shutil.rmtree(kept_path(flow.around.lake, flow.name, flow.epoch, WINDOWS), ignore_errors=True)
        kept = KeptWindows(flow.around, flow.name, flow.epoch, kept_schema(open_windows.schema))
        kept.take_over(signed(open_windows.table), flow.state.batch)
        kept.take_over(signed(open_windows.table.slice(1)), flow.state.batch + 1)  # which is half done
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


def left_to_spark(flow):
    """The last commit is one of Spark's, and the state that this engine kept is gone."""
    of_spark(flow)
    shutil.rmtree(f"{flow.store.root}/state")


@pytest.mark.parametrize("first", [*range(100, 100 + SHORT, 10), *(pytest.param(s, marks=pytest.mark.long) for s in
                                   range(30_000, 30_000 + LONG, 10))])  # fmt: skip
def test_flows_go_on_from_commits_of_spark(tmp_path, first):
    """Without the state that they kept themselves."""
    taken = 0
    for seed in range(first, first + 10):
        site, rng = Site(tmp_path / str(seed), make_stream(seed)), random.Random(seed)
        for flows in file_by_file(site):
            for flow in flows:
                if flow.state.batch and handed_over(flow.plan) and rng.random() < 0.7:
                    left_to_spark(flow)
                    taken += 1
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


@pytest.mark.parametrize(
    "first", [200, *(pytest.param(s, marks=pytest.mark.long) for s in range(40_000, 40_000 + LONG, 5))]
)
def test_tables_of_changes_go_on_from_commits_of_spark(tmp_path, first):
    """With the deletions that Spark remembered, and what a batch that it left half done does to them."""
    taken = remembered = 0
    for seed in range(first, first + 5):
        site, rng = Site(tmp_path / str(seed), make_changes(seed)), random.Random(seed)
        for flows in file_by_file(site):
            for flow in flows:
                step = flow.plan.step(ApplyChanges)
                if step is not None and flow.state.batch and rng.random() < 0.7:
                    schema, deletions = flow.table.snapshot.metadata.schema, flow.state.deletions.table
                    kept = KeptDeletions(flow.around, flow.name, flow.epoch, step, schema)
                    shutil.rmtree(kept.path, ignore_errors=True)
                    kept.take_over(deletions, flow.state.batch)
                    if rng.random() < 0.5:
                        kept.take_over(deletions.slice(1), flow.state.batch + 1)
                    left_to_spark(flow)
                    taken, remembered = taken + 1, remembered + len(deletions)
        assert site.differences() == [], seed
    assert taken > 10
    assert remembered > 10


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
    flow = next(flow for flow in flows.values() if stateful(flow) and counted(made_again(flow)))
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


def test_a_row_that_found_no_partner_keeps_its_key(tmp_path):
    """It was set aside long after it took that; a copy that comes after the take-over is a duplicate all the same."""
    lab = Lab(tmp_path / "lab")
    for name in ("events", "replies"):
        lab.table(f"bronze.{name}", LOOKING_UP["bronze.events"].replace("path: events", f"path: {name}"))
    lab.table(
        "silver.pairs",
        """
        from: stream(bronze.events)
        event_time: {column: at, delay: 0 seconds}
        dedup: {keys: [id], within: 1 hour}
        join:
          from: stream(bronze.replies)
          on: user
          event_time: {column: at, delay: 0 seconds}
          within: {after: 1 minute}
          columns: {id: reply}
    """,
    )
    (lab.root / "replies").mkdir()
    event = {"id": "a", "at": "2026-01-01T00:00:00Z", "user": 1}
    lab.events([event, {"id": "b", "at": "2026-01-01T00:10:00Z", "user": 2}])
    reply = {"id": "r", "at": "2026-01-01T00:10:00Z", "user": 3}
    (lab.root / "replies" / "0.jsonl").write_text(json.dumps(reply) + "\n")
    app = lab.run()
    alone = [row for row in lab.quarantine("silver.pairs") if row["reasons"] == ["unmatched"]]
    assert (event["id"], "0000.jsonl", 0) in [("a", row["_source"], row["_position"]) for row in alone]
    flow = app.pipeline().flow(TableName.parse("silver.pairs"))
    flow.open()
    check_same(made_again(flow), flow.state, flow.name)
    of_spark(flow)
    shutil.rmtree(f"{flow.store.root}/state")
    flow.close()
    lab.events([event | {"at": "2026-01-01T00:10:01Z"}])
    lab.run()
    assert [row["kind"] for row in lab.quarantine("silver.pairs")].count("duplicate") == 1


@pytest.mark.parametrize("engine", ["ours", "spark"])
def test_windows_that_spark_folds_are_kept_as_they_are(tmp_path, engine):
    """They say what they cover, are sessions that are shown while they are open, or count enriched rows."""
    labs = Lab(tmp_path / "turns"), Lab(tmp_path / "alone")
    rng, folded = random.Random(7), 0
    for number in range(4):
        files = {f"data/orders/{number}.jsonl": some_orders(rng, number)}
        for lab in labs:
            for path, text in {**UNTIMED, **FOLDED, **USERS, **files}.items():
                (lab.root / path).parent.mkdir(parents=True, exist_ok=True)
                (lab.root / path).write_text(text)
            app = lab.run()
        pipeline = labs[0].app().pipeline()
        for name, plan in app.flows.items() if engine == "spark" else ():
            flow = pipeline.flow(name)
            flow.open()
            if name.layer != "bronze":
                check_same(made_again(flow), flow.state, flow.name)
            if is_folded(plan):
                folded += len(flow.state.windows.table)
                of_spark(flow)
                shutil.rmtree(f"{flow.store.root}/state")
            flow.close()
    for table in FOLDED:
        name = ".".join(table.removesuffix(".yaml").split("/")[1:])
        one, other = (sorted(map(repr, plain(lab.rows(name)))) for lab in labs)
        assert one == other, name
        assert one, name
    assert folded > 50 or engine == "ours"


def some_orders(rng, number):
    """JSON lines for `UNTIMED`, in two minutes each, some of them twice."""
    lines = []
    for i in range(60):
        at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=90 * number + rng.uniform(0, 120))
        order = {
            "id": f"o{number}-{i}", "user": rng.randrange(6), "at": at.isoformat(), "amount": f"{rng.randrange(200)}.5",
            "code": rng.choice(["1", "22", "x", "hello world", "guten Tag", None]), "tags": None,
        }  # fmt: skip
        lines += [json.dumps(order)] * rng.choice([1, 1, 1, 2])
    return "".join(line + "\n" for line in lines)


LOOKING_UP = {
    "bronze.events": """
        source: {files: {path: events, settle: 0}}
        format: json
        columns: {id: string, at: timestamp, user: bigint}
    """,
    "bronze.users": """
        source: {files: {path: users, settle: 0}}
        format: json
        columns: {id: bigint, tier: string}
    """,
    "gold.tiers": """
        from: stream(bronze.events)
        skip_silver: true
        event_time: {column: at, delay: 1 hour}
        dedup: {keys: [id]}
        enrich: {lookup: {table: bronze.users, on: {user: id}, columns: [tier]}}
        window: {gap: 1 hour}
        group_by: [tier]
        measures: {rows: count(*)}
        emit: final
    """,
    "silver.pairs": """
        from: stream(bronze.events)
        event_time: {column: at, delay: 1 hour}
        enrich: {lookup: {table: bronze.users, on: {user: id}, columns: [tier]}}
        join:
          from: stream(bronze.events)
          on: user
          event_time: {column: at, delay: 1 hour}
          within: {after: 1 minute}
          columns: {id: other}
    """,
}
HOUR_US = 3_600_000_000
LOOKING = ("gold.tiers", "silver.pairs")


def looked_up(folder):
    """A user who is not there yet, is there, and is there twice, when an event of theirs comes; and one event more."""
    lab = Lab(folder)
    for name, text in LOOKING_UP.items():
        lab.table(name, text)
    (lab.root / "users").mkdir()
    for number, users in enumerate(([{"id": 2, "tier": "b"}], [{"id": 1, "tier": "a"}], [{"id": 1, "tier": "c"}])):
        (lab.root / "users" / f"{number}.jsonl").write_text("".join(json.dumps(user) + "\n" for user in users))
        lab.events([{"id": f"e{number}", "at": f"2026-01-01T00:00:0{number}Z", "user": 1}])
        yield lab
    lab.events([{"id": name, "at": "2026-01-01T00:00:09Z", "user": 2} for name in ("e2", "last")])
    lab.events([{"id": "end", "at": "2026-01-02T00:00:00Z", "user": 2}])
    yield lab


def test_rows_go_on_with_what_they_looked_up_in_their_time(tmp_path):
    """In a session, and in a join of two streams, of which Spark made the last commit each time."""
    for lab in looked_up(tmp_path / "turns"):
        app = lab.run()
        for name in LOOKING:
            flow = app.pipeline().flow(TableName.parse(name))
            flow.open()
            check_same(made_again(flow), flow.state, flow.name)
            left_to_spark(flow)
            flow.close()
    for alone in looked_up(tmp_path / "alone"):
        alone.run()
    shown = {name: sorted(map(repr, plain(lab.rows(name)))) for name in LOOKING}
    assert shown == {name: sorted(map(repr, plain(alone.rows(name)))) for name in LOOKING}
    assert sorted((row["tier"] or "", row["rows"]) for row in lab.rows("gold.tiers")) == [("", 1), ("a", 1), ("b", 1)]


@pytest.mark.parametrize("planted", [False, True])
def test_a_session_that_is_over_has_nothing_of_a_later_one(tmp_path, monkeypatch, planted):
    """A row comes within the gap of a session that is over: it begins a session, and the other one's rows stay out."""
    lab = Lab(tmp_path / "lab")
    lab.table("bronze.events", LOOKING_UP["bronze.events"])
    lab.table(
        "gold.visits",
        """
        from: stream(bronze.events)
        skip_silver: true
        event_time: {column: at, delay: 0 seconds}
        window: {gap: 1 minute}
        group_by: [user]
        measures: {rows: count(*)}
        emit: final
    """,
    )
    for user, at in ((1, "00:00:00"), (2, "00:01:10"), (1, "00:00:15")):
        lab.events([{"id": "x", "at": f"2026-01-01T{at}Z", "user": user}])
        app = lab.run()
    assert [(row["user"], row["rows"]) for row in lab.rows("gold.visits")] == [(1, 1)]
    flow = app.pipeline().flow(TableName.parse("gold.visits"))
    flow.open()
    if planted:
        monkeypatch.setattr(Memory, "_finished", lambda memory, windows, rows, late_us: np.zeros(len(rows), np.bool_))
        with pytest.raises(ConfigError, match="windows with rows that were erased since cannot be handed over"):
            check_same(made_again(flow), flow.state, flow.name)
    else:
        check_same(made_again(flow), flow.state, flow.name)
        assert counted(made_again(flow)) == 2
    flow.close()


def test_rows_that_were_mended_are_what_they_were_made(tmp_path):
    """The key that a row took has another name in the table above, and so has what it brings to its partner."""
    lab = Lab(tmp_path / "lab")
    lab.table("bronze.events", LOOKING_UP["bronze.events"])
    rows = (
        "from: stream(bronze.events)\nexpect: {known: {that: user > 0, else: quarantine}}\n"
        "event_time: {column: at, delay: 1 hour}\n"
    )
    join = dedent(LOOKING_UP["silver.pairs"]).partition("[tier]}}\n")[2]
    lab.table("silver.once", rows + "dedup: {keys: [user]}\n")
    lab.table("silver.pairs", rows + join)
    lab.events([{"id": "a", "at": "2026-01-01T00:00:00Z", "user": -1}, {"id": "b", "at": "2026-01-01T00:00:01Z"}])
    lab.run()
    for name in ("silver.once", "silver.pairs"):
        places = sorted((row["_source"], row["_position"]) for row in lab.quarantine(name))
        mends = {place: Mend({"user": number}, by="ana") for number, place in enumerate(places[:1], 7)}
        pipeline = lab.app().pipeline()
        assert take_again(pipeline, TableName.parse(name), places, accept_late=False, mends=mends).passed == 1
        flow = pipeline.flow(TableName.parse(name))
        flow.open()
        made = made_again(flow)
        check_same(made, flow.state, flow.name)
        held = made.keyed if made.join is None else made.join.here.rows
        assert held.column("user").to_pylist() == [7]
        left_to_spark(flow)
        flow.close()
    lab.events([{"id": "c", "at": "2026-01-01T00:00:02Z", "user": 7}])
    lab.run()
    assert "duplicate" in {row["kind"] for row in lab.quarantine("silver.once")}
    assert {row["user"] for row in lab.rows("silver.once")} == {7}
    assert [(row["id"], row["other"]) for row in lab.rows("silver.pairs")] == [("a", "c"), ("c", "c")]


def test_rows_that_may_have_left_by_retention_are_no_state(tmp_path, monkeypatch):
    """What this engine has not seen come cannot be told apart from what never came."""
    *_, lab = looked_up(tmp_path / "lab")
    app = lab.run()
    for name in LOOKING:
        flow = app.pipeline().flow(TableName.parse(name))
        flow.open()
        late_us = flow.state.late_us
        left_to_spark(flow)
        with monkeypatch.context() as patch:
            patch.setattr(remembered, "kept_from_us", lambda table, name, kept_us=late_us: kept_us)
            with pytest.raises(DataLossRefused, match="may have left by retention; go on with the engine"):
                flow.open()
            patch.setattr(remembered, "kept_from_us", lambda table, name, kept_us=late_us - 2 * HOUR_US: kept_us)
            flow.open()
        flow.close()


def plain(rows):
    """Rows without what tells when they came."""
    return [{name: value for name, value in row.items() if name not in ("_ingest_time", "_batch")} for row in rows]


# --- the tests see bugs -----------------------------------------------------------------------------------------------


def rows_set_aside_count(patch):
    patch.setattr(remembered, "open_entries", lambda entries: entries.slice(0, 0))


def the_span_begins_late(patch):
    patch.setattr(Memory, "_span", lambda memory, late_us: (memory._event, late_us + 1, 1 << 62))


def nobody_has_met(patch):
    patch.setattr(remembered, "pairs_of", lambda *given: (np.zeros(0, np.int64),) * 2)


@pytest.mark.parametrize("bug", [rows_set_aside_count, the_span_begins_late, nobody_has_met],
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
