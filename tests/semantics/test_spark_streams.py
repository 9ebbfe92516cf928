"""The oracle equals what Apache Spark did, batch by batch (tools/spark_streams.py made the expectations)."""

import json
from pathlib import Path

import pytest

from lodestream.model.table import Dedup, EventTime, Window
from lodestream.semantics.stages import Batch, Measure, Spec, run_stream

RECORDED = json.loads((Path(__file__).parent / "spark_streams.json").read_text())


def spec_of(stream):
    slide_ms = stream["slide_ms"]
    return Spec(
        event_time=EventTime("t", stream["delay_ms"] * 1_000),
        dedup=Dedup(("key",)) if stream["dedup"] else None,
        window=Window(stream["every_ms"] * 1_000, slide_ms and slide_ms * 1_000) if stream["emit"] else None,
        group_by={"g": lambda row: row["g"]},
        measures={"rows": Measure(lambda row: row["n"], sorted)},
        emit=stream["emit"] or "updates",
    )


def batches_of(stream):
    files = [item for item in stream["files"] if isinstance(item, list)]
    for batch in stream["batches"]:
        yield Batch([{**row, "_source": "f", "_position": row["n"]} for i in batch["files"] for row in files[i]])


def written(stream, outcomes):
    """What each batch wrote, in Spark's form: accepted rows, or the window rows that are new or changed."""
    table = {}
    for out in outcomes:
        if stream["emit"]:
            rows = [
                {"start_us": key[0], "g": key[1][0], "rows": row["rows"]}
                for key, row in out.after.table.items()
                if table.get(key) != row
            ]
            yield sorted(rows, key=lambda r: (r["start_us"], str(r["g"])))
            table = out.after.table
        else:
            yield [row["n"] for row in out.accepted]


@pytest.mark.parametrize("stream", RECORDED["streams"], ids=lambda s: f"{s['name']}, {s['emit'] or 'rows'}")
def test_spark_does_the_same(stream):
    outcomes = run_stream(spec_of(stream), batches_of(stream))
    assert [o.mark.evict_us // 1_000 for o in outcomes] == [b["watermark_ms"] for b in stream["batches"]]
    assert list(written(stream, outcomes)) == [b["output"] for b in stream["batches"]]


def test_the_recorded_streams_have_something_to_say():
    kinds = {}
    missed = 0
    for stream in RECORDED["streams"]:
        for out in run_stream(spec_of(stream), batches_of(stream)):
            missed += len(out.missed)
            for disposition in out.dispositions.values():
                kinds[disposition.kind] = kinds.get(disposition.kind, 0) + 1
    assert RECORDED["spark"] == "4.2.0"
    assert len(RECORDED["streams"]) >= 20
    assert min(kinds[k] for k in ("output", "late", "duplicate", "quarantine")) >= 10, kinds
    assert missed >= 1
    assert sum(not batch["files"] for stream in RECORDED["streams"] for batch in stream["batches"]) >= 10
