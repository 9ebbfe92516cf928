"""The generator: the same seed, the same events, whatever the ranges; chaos in the shares that were asked for."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from lodestream.errors import ConfigError
from lodestream.model.batch import BatchLimit, SourceRange
from lodestream.model.types import Column, Schema, parse_type
from lodestream.ports.source import Reading
from lodestream.sources._streams import STREAMS
from lodestream.sources.generator import GeneratorSettings, GeneratorSource
from lodestream.testing.source_contract import check_resumes, check_source, drain

NOW = 1_800_000_000_000_000
SECOND = 1_000_000


def reading(stream, keep_raw=False):
    return Reading(STREAMS[stream][0], keep_raw, "quarantine", "/")


def source(stream="orders", keep_raw=False, **options):
    return GeneratorSource(GeneratorSettings(stream=stream, **options), None, reading(stream, keep_raw))


def everything(made, rows):
    pieces = list(made.read(SourceRange("generator/0", 0, rows, {"started_us": NOW})))
    return pa.concat_tables([p.rows for p in pieces]), pa.concat_tables([p.rejects for p in pieces])


@pytest.mark.parametrize("stream", list(STREAMS))
@pytest.mark.parametrize("chaos", [{}, {"late": 0.1, "duplicate": 0.1, "malformed": 0.1}], ids=["calm", "chaos"])
def test_every_stream_keeps_the_contract(stream, chaos):
    def make():
        return source(stream, rows=100, partitions=3, chaos=chaos, keep_raw=True)

    limits = (BatchLimit(), BatchLimit(rows_max=17), BatchLimit(bytes_max=1500))
    rows = check_source(make, reading(stream, True), now_us=NOW, limits=limits)
    assert rows.num_rows == 100 if not chaos else 50 < rows.num_rows < 100
    check_resumes(make, now_us=NOW, limit=BatchLimit(rows_max=17))
    assert set(rows["_source"].to_pylist()) == {"generator/0", "generator/1", "generator/2"}
    assert json.loads(rows["_raw"][0].as_py()).keys() == {c.name for c in STREAMS[stream][0]}


def test_any_range_gives_the_same_events():
    made = source(chaos={"late": 0.2, "duplicate": 0.2, "malformed": 0.2})
    whole, torn = everything(made, 500)
    for a, b in ((0, 1), (100, 101), (250, 400)):
        (piece,) = made.read(SourceRange("generator/0", a, b, {"started_us": NOW}))
        inside = [a <= p < b for p in whole["_position"].to_pylist()]
        assert piece.rows.equals(whole.filter(pa.array(inside)))
        assert piece.rejects.num_rows == sum(a <= p < b for p in torn["_position"].to_pylist())


def test_seeds_and_partitions_make_different_events():
    one, _ = everything(source(seed=1), 200)
    other, _ = everything(source(seed=2), 200)
    assert not set(one["order_id"].to_pylist()) & set(other["order_id"].to_pylist())
    made = source(partitions=2)
    ids = [
        i for unit in (0, 1) for p in made.read(SourceRange(f"generator/{unit}", 0, 300, {"started_us": 0}))
        for i in p.rows["order_id"].to_pylist()
    ]  # fmt: skip
    assert len(set(ids)) == 600


def test_chaos_has_the_asked_shares():
    chaos = {"late": 0.05, "duplicate": 0.03, "malformed": 0.02, "late_by": 60}
    rows, torn = everything(source("clicks", chaos=chaos), 20_000)
    assert 300 < torn.num_rows < 500
    assert set(map(tuple, torn["_reasons"].to_pylist())) == {("parse:json",)}
    for raw in torn["_raw"].to_pylist():
        with pytest.raises(ValueError, match=r"."):
            json.loads(raw)
    ids = rows["event_id"].to_pylist()
    assert 500 < len(ids) - len(set(ids)) < 700
    calm, _ = everything(source("clicks"), 20_000)
    at = dict(zip(calm["event_id"].to_pylist(), calm["event_time"].cast(pa.int64()).to_pylist(), strict=True))
    behind = [at[i] - t for i, t in zip(ids, rows["event_time"].cast(pa.int64()).to_pylist(), strict=True)]
    assert min(behind) >= 0
    assert 50 * SECOND < max(behind) <= 60 * SECOND
    assert 900 < len({i for i, late in zip(ids, behind, strict=True) if late}) < 1100


def test_a_duplicate_repeats_an_earlier_event_exactly():
    rows, _ = everything(source(chaos={"late": 0.2, "duplicate": 0.3, "malformed": 0.2}), 3000)
    first = {}
    repeated = 0
    for row in rows.drop_columns(["_position", "_source"]).to_pylist():
        repeated += row["order_id"] in first
        assert first.setdefault(row["order_id"], row) == row
    assert repeated > 600


def test_even_nothing_but_duplicates_is_well_defined():
    rows, torn = everything(source(chaos={"duplicate": 1.0}), 3000)
    assert len(set(rows["order_id"].to_pylist())) == 1
    assert torn.num_rows == 0


def test_the_clock_releases_events_at_the_rate():
    made, consumed = source(rate=100, partitions=2), {}
    total = []
    for second in range(4):
        planned = made.plan(consumed, BatchLimit(), NOW + second * SECOND)
        consumed |= {p.unit: p for p in planned}
        total.append(sum(p.end for p in consumed.values()))
    assert total == [1, 101, 201, 301]
    assert not made.plan(consumed, BatchLimit(), NOW + 3 * SECOND)
    assert not made.finished(consumed, NOW)
    times = [t for p in consumed.values() for d in made.read(p) for t in d.rows["ordered_at"].cast("int64").to_pylist()]
    assert NOW <= min(times) <= max(times) <= NOW + 3 * SECOND


def test_event_time_goes_on_with_the_index_from_the_start():
    rows, _ = everything(source("sensors", start="2024-05-01T00:00:00Z", event_rate=2), 10)
    times = rows["measured_at"].to_pylist()
    assert times[0].isoformat() == "2024-05-01T00:00:00+00:00"
    assert (times[9] - times[0]).total_seconds() == 4.5


def test_no_rows_is_an_end_too():
    assert drain(source(rows=0), BatchLimit(), NOW) == ([], [])


def test_unknown_columns_and_bad_settings_are_refused():
    assert GeneratorSource.declares(GeneratorSettings(stream="clicks")) == STREAMS["clicks"][0]
    with pytest.raises(ConfigError, match="no such column"):
        GeneratorSource(
            GeneratorSettings(), None, Reading(Schema((Column("x", parse_type("int")),)), False, "quarantine", "/")
        )
    for bad in (
        {"stream": "x"},
        {"rate": 0},
        {"chaos": {"late": 0.6, "malformed": 0.6}},
        {"start": "soon"},
        {"rows": -1},
    ):
        with pytest.raises(ValueError, match=r"."):
            GeneratorSettings(**bad)
