"""`reconcile` is exact: it accepts what the engine makes of generated chaos, and no row more, less or elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lodestream.app import App, open_project
from lodestream.engines.embedded import state as state_module
from lodestream.engines.embedded import store as store_module
from lodestream.lake.actions import RemoveFile
from lodestream.model.table import TableName
from lodestream.operations.account import Report
from lodestream.operations.reconcile import reconcile
from tests.engines.lakes import Lab

ROWS = 4000
BRONZE = f"""
source:
  generator: {{stream: orders, seed: 5, rows: {ROWS}, partitions: 2, event_rate: 20,
              chaos: {{late: 0.05, duplicate: 0.02, malformed: 0.02, late_by: 200}}}}
"""
SILVER = """
from: stream(bronze.o)
expect:
  dear: {that: amount >= 5, else: quarantine}
  known: {that: country <> 'FR', else: drop}
event_time: {column: ordered_at, delay: 100 seconds}
dedup: {keys: [order_id]}
partition_by: [country]
"""
WINDOW = """
from: stream(silver.o)
event_time: {{column: ordered_at, delay: 1 second}}
window: {window}
group_by: [country]
measures: {{orders: count(*), amount: sum(amount)}}
emit: {emit}
"""
WINDOWS = {
    "tumbling_updates": ("{every: 1 minute}", "updates"),
    "tumbling_final": ("{every: 1 minute}", "final"),
    "hopping_updates": ("{every: 90 seconds, slide: 30 seconds}", "updates"),
    "hopping_final": ("{every: 2 minutes, slide: 1 minute}", "final"),
    "sessions_updates": ("{gap: 3 seconds}", "updates\ncompleteness: true"),
    "sessions_final": ("{gap: 2 seconds}", "final\ncompleteness: true"),
    "tumbling_corrected": ("{every: 1 minute}", "updates\nlate: update\ncompleteness: true"),
}
CHAINED = """
from: stream(gold.{above})
window: {{every: 5 minutes}}
group_by: [country]
measures: {{windows: count(*), orders: sum(orders)}}
"""
TABLES = ("bronze.o", "silver.o", *(f"gold.{name}" for name in WINDOWS), "gold.of_windows", "gold.of_sessions")


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Generated orders with every kind of harm, taken in in many batches; tests do not change it."""
    lab = Lab(tmp_path_factory.mktemp("reconcile") / "p")
    (lab.root / "lodestream.yaml").write_text("project: lab\nlake: lake\nbatch: {rows_max: 250}\n")
    lab.table("bronze.o", BRONZE)
    lab.table("silver.o", SILVER)
    for name, (window, emit) in WINDOWS.items():
        lab.table(f"gold.{name}", WINDOW.format(window=window, emit=emit))
    lab.table("gold.of_windows", CHAINED.format(above="hopping_final"))
    lab.table("gold.of_sessions", CHAINED.format(above="sessions_final"))
    lab.run()
    return lab


@functools.cache
def opened(root: Path) -> App:
    return open_project(str(root))


def report(lab: Lab, name: str) -> Report:
    app = opened(lab.root)
    return reconcile(app.project.root, app.lake, app.flows[TableName(*name.split("."))])


@pytest.mark.parametrize("name", TABLES)
def test_generated_chaos_adds_up_exactly(chaos: Lab, name: str) -> None:
    found = report(chaos, name)
    assert found.problems == []
    assert found.skipped is None
    counts = found.counts
    assert sum(counts.values()) == found.input
    if name == "bronze.o":
        assert found.input == ROWS
        assert counts["quarantine"] > 50
    if name == "silver.o":
        assert min(counts[kind] for kind in ("output", "quarantine", "late", "duplicate", "dropped")) > 10
    if name.startswith("gold."):
        assert (counts["late"] > 0) == (not name.startswith("gold.of_") and name != "gold.tumbling_corrected")
        assert counts["open"] > 0


def test_counts_are_those_of_the_tables(chaos: Lab) -> None:
    found = report(chaos, "silver.o")
    assert found.input == len(chaos.rows("bronze.o", "_position"))
    assert found.counts["output"] == len(chaos.rows("silver.o", "_position"))
    kinds = [row["kind"] for row in chaos.quarantine("silver.o", "kind")]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        kind: found.counts[kind] for kind in ("quarantine", "late", "duplicate", "dropped")
    }


# --- tampering -------------------------------------------------------------------------------------------------------


class Tampered:
    """Changes the rows of a table behind the engine's back, and puts the first version's files back in the end."""

    def __init__(self, lab: Lab, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
        self.lab, self.name, self.change = lab, name, change

    def __enter__(self) -> None:
        self.files = self.lab.delta(self.name).files()
        table = self.lab.delta(self.name)
        changed = self.change(table.read(self.files))
        self.swap(table.stage(changed, name=f"tampered-{table.snapshot.version}").adds)

    def __exit__(self, *_: object) -> None:
        self.swap([replace(file, data_change=True) for file in self.files])

    def swap(self, adds: Any) -> None:
        table = self.lab.delta(self.name)
        table.commit(adds=adds, removes=[RemoveFile.of(add) for add in table.files()], clock_us=0)


def first_changed(table: pa.Table, column: str, value: Callable[[Any], Any], row: int = 0) -> pa.Table:
    values = table.column(column).to_pylist()
    values[row] = value(values[row])
    at = table.schema.get_field_index(column)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))


def without_first(table: pa.Table) -> pa.Table:
    return table.slice(1)


def first_twice(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(0, 1)])


def one_from_nowhere(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, first_changed(table.slice(0, 1), "_position", lambda _: 10_000_000)])


def first_elsewhere(table: pa.Table) -> pa.Table:
    """The row is there, but says that it came from another place."""
    return first_changed(table, "_position", lambda position: position + 10_000_000)


def first_from_other_source(table: pa.Table) -> pa.Table:
    return first_changed(table, "_source", lambda _: "generator/7")


def digest_bit(table: pa.Table) -> pa.Table:
    return first_changed(table, "_digest", lambda digest: digest ^ 1)


def one_row_more(table: pa.Table) -> pa.Table:
    return first_changed(table, "_rows", lambda rows: rows + 1)


def groups_swapped(table: pa.Table) -> pa.Table:
    """Two groups of one window change places."""
    starts = table.column("window_start").to_pylist()
    other = next(i for i in range(1, len(starts)) if starts[i] == starts[0])
    countries = table.column("country").to_pylist()
    swapped = first_changed(table, "country", lambda _: countries[other])
    return first_changed(swapped, "country", lambda _: countries[0], row=other)


def window_later(table: pa.Table) -> pa.Table:
    minute = pa.scalar(30_000_000, pa.duration("us"))
    later = [pc.add(value, minute).as_py() for value in table.column("window_start").slice(0, 1)]
    return first_changed(table, "window_start", lambda _: later[0])


def called(kind: str, other: str) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        return first_changed(table, "kind", lambda _: other, row=table.column("kind").to_pylist().index(kind))

    return change


def final_turned(table: pa.Table) -> pa.Table:
    return first_changed(table, "_final", lambda final: not final)


def covers_one_more(table: pa.Table) -> pa.Table:
    return first_changed(table, "_covers", lambda covers: [{**covers[0], "rows": covers[0]["rows"] + 1}, *covers[1:]])


def covers_a_source_less(table: pa.Table) -> pa.Table:
    return first_changed(table, "_covers", lambda covers: covers[1:])


ROW_CHANGES = [without_first, first_twice, one_from_nowhere, first_elsewhere, first_from_other_source]
WINDOW_CHANGES = [without_first, first_twice, digest_bit, one_row_more, groups_swapped, window_later]


@pytest.mark.parametrize("change", ROW_CHANGES)
@pytest.mark.parametrize("name", ["bronze.o", "silver.o"])
def test_a_row_changed_is_seen(chaos: Lab, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    with Tampered(chaos, name, change):
        assert report(chaos, name).problems


@pytest.mark.parametrize("change", ROW_CHANGES)
@pytest.mark.parametrize("name", ["bronze.o", "silver.o"])
def test_a_quarantine_row_changed_is_seen(chaos: Lab, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    with Tampered(chaos, f"{name}__quarantine", change):
        assert report(chaos, name).problems


@pytest.mark.parametrize("change", WINDOW_CHANGES)
@pytest.mark.parametrize("name", ["gold.tumbling_updates", "gold.hopping_final"])
def test_a_window_changed_is_seen(chaos: Lab, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    with Tampered(chaos, name, change):
        assert report(chaos, name).problems


@pytest.mark.parametrize("name", ["gold.tumbling_final", "gold.hopping_updates"])
def test_a_late_row_that_is_no_longer_recorded_is_seen(chaos: Lab, name: str) -> None:
    with Tampered(chaos, f"{name}__quarantine", without_first):
        assert report(chaos, name).problems


def test_a_resolution_that_nothing_came_of_is_seen(chaos: Lab) -> None:
    with Tampered(chaos, "silver.o__quarantine", called("quarantine", "resolved")):
        assert report(chaos, "silver.o").problems


@pytest.mark.parametrize("name", ["bronze.o", "silver.o", "gold.hopping_final"])
def test_rows_put_back_as_they_were_add_up_again(chaos: Lab, name: str) -> None:
    with Tampered(chaos, name, without_first):
        pass
    assert report(chaos, name).ok


# --- odd sources -----------------------------------------------------------------------------------------------------

CSV = """
source: {{files: {{path: events, settle: 0 seconds}}}}
format: {{csv: {{{shape}}}}}
columns: {{id: string, text: string}}
"""


@pytest.mark.parametrize(
    ("shape", "data", "records"),
    [
        ("header: true", b"id,text\na,b\nc,d\n", 2),
        ("header: true", b"\xef\xbb\xbfid,text\r\na,b\r\n\r\n  \r\nc,d", 2),
        ("header: false", b"a,b\nc,d\n", 2),
        ("header: false", b"\xef\xbb\xbfa,b\nc,d\n", 2),
        ("multiline: true", b'id,text\na,"b\nb"\nc,d\n', 2),
        ("multiline: true, header: false", b'"a\n\n",b\nc,"d ""\n"" d"\n\ne,f', 3),
        ("multiline: true, quote: null", b'id,text\na,"b\nb"\nc,d\n', 3),
    ],
)
def test_csv_of_every_shape_adds_up(tmp_path: Path, shape: str, data: bytes, records: int) -> None:
    lab = Lab(tmp_path / "p")
    lab.table("bronze.e", CSV.format(shape=shape))
    (lab.root / "events" / "a.csv").write_bytes(data)
    lab.run()
    (found,) = lab.reconcile()
    assert found.input == records


def test_positions_of_deleted_plans_are_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow keeps its last plans only; what the older ones had read is folded into one file."""
    monkeypatch.setattr(store_module, "_PLANS_KEPT", 2)
    monkeypatch.setattr(state_module, "_CHAIN_MAX", 1)
    lab = Lab(tmp_path / "p")
    lab.table("bronze.e", "source: {files: {path: events, settle: 0 seconds}}\nformat: json\ncolumns: {id: string}\n")
    for number in range(9):
        lab.events([{"id": f"e{number}"}, '{"torn'])
        lab.run()
    plans = lab.root / "lake" / "_lodestream" / "flows" / "bronze.e" / "1" / "plans"
    assert len(list(plans.glob("0*.json"))) < 6
    (found,) = lab.reconcile()
    assert (found.input, found.counts["output"], found.counts["quarantine"]) == (18, 9, 9)


def test_windows_over_a_time_made_in_their_own_flow_are_said_to_be_unproven(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "p")
    columns = "columns: {id: string, at: timestamp}"
    lab.table("bronze.e", f"source: {{files: {{path: events, settle: 0 seconds}}}}\nformat: json\n{columns}\n")
    lab.table(
        "gold.w",
        "from: stream(bronze.e)\nderive: {day: cast(at as timestamp)}\nevent_time: {column: day, delay: 30 seconds}\n"
        "window: {every: 1 hour}\nmeasures: {n: count(*)}\n",
    )
    lab.events([{"id": "a", "at": "2024-01-01T00:10:00Z"}])
    lab.run()
    assert "not the windows" in str(report(lab, "gold.w").skipped)


def test_a_window_that_no_input_has_is_seen(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "p")
    columns = "columns: {id: string, at: timestamp}"
    lab.table("bronze.e", f"source: {{files: {{path: events, settle: 0 seconds}}}}\nformat: json\n{columns}\n")
    lab.table(
        "gold.w",
        "from: stream(bronze.e)\nevent_time: {column: at, delay: 30 seconds}\nwindow: {every: 1 hour}\n"
        "measures: {n: count(*)}\n",
    )
    lab.run()
    table = lab.delta("gold.w")
    row = {"window_start": 0, "window_end": 3_600_000_000, "n": 1, "_rows": 1, "_digest": 5, "_batch": 1}
    rows = pa.table({name: pa.array([value], pa.int64()) for name, value in row.items()})
    for name in ("window_start", "window_end"):
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, name, rows.column(name).cast(pa.timestamp("us", tz="UTC")))
    table.commit(adds=table.stage(rows, name="forged").adds, clock_us=0)
    assert report(lab, "gold.w").problems


@pytest.mark.parametrize("change", [final_turned, covers_one_more, covers_a_source_less])
@pytest.mark.parametrize("name", ["gold.sessions_final", "gold.tumbling_corrected"])
def test_a_window_that_says_of_itself_what_is_not_so_is_seen(
    chaos: Lab, name: str, change: Callable[[pa.Table], pa.Table]
) -> None:
    with Tampered(chaos, name, change):
        assert report(chaos, name).problems
