import json
from collections import Counter
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench import events

SPEC = events.Spec(events=10_000, files=4, seed=7)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return events.ensure(tmp_path_factory.mktemp("cache"), SPEC)


def read(dataset):
    """All lines in the order of the files' names, the closing event last."""
    return [line for path in sorted(dataset.lines.iterdir()) for line in path.read_text().splitlines()]


def valid(line):
    """What both pipelines keep, written without them: the row, or None."""
    try:
        row = json.loads(line, parse_float=Decimal)
    except ValueError:
        return None
    good = row.get("event_id") is not None and not isinstance(row["amount"], str) and row["amount"] >= 0
    return row if good else None


def test_has_the_asked_lines_duplicates_and_invalid_rows(dataset):
    lines = read(dataset)[:-1]
    assert len(lines) == SPEC.events
    assert len(lines) - len(set(lines)) == SPEC.duplicates == 100
    assert sum(valid(line) is None for line in set(lines)) == SPEC.invalid == 20
    assert 200 < np.mean([len(line) + 1 for line in lines]) < 240


def test_invalid_rows_are_of_every_kind(dataset):
    kinds = Counter(
        "malformed" if not line.endswith("}") else "type" if '"n/a"' in line else "negative" if ":-" in line
        else "null id" if ':null' in line else "no id"
        for line in read(dataset) if valid(line) is None
    )  # fmt: skip
    assert set(kinds) == {"malformed", "type", "negative", "null id", "no id"}


def test_truth_is_what_the_lines_say(dataset):
    rows = {row["event_id"]: row for line in read(dataset)[:-1] if (row := valid(line))}
    assert set(pq.read_table(dataset.ids)["event_id"].to_pylist()) == set(rows)
    gold = Counter()
    cents = Counter()
    for row in rows.values():
        minute = int(np.datetime64(row["event_time"].removesuffix("Z"), "m").astype("datetime64[us]").astype(int))
        key = minute, row["type"], row["country"]
        gold[key] += 1
        cents[key] += int(row["amount"] * 100)
    table = pq.read_table(dataset.gold).to_pylist()
    assert {(r["minute_us"], r["type"], r["country"]): (r["events"], r["cents"]) for r in table} == {
        key: (count, cents[key]) for key, count in gold.items()
    }
    assert len(table) == len(gold)


def test_no_row_can_be_late_whatever_the_batches(dataset):
    rows = events.order(SPEC)
    times = events.event_times(SPEC, rows)
    behind = np.maximum.accumulate(times) - times
    assert 0 < behind.max() < events.DELAY_US
    assert (np.diff(times) < 0).any()


def test_the_closing_event_passes_every_window(dataset):
    last = json.loads(read(dataset)[-1])
    assert last["event_id"] == events.CLOSING_ID
    closing = int(np.datetime64(last["event_time"].removesuffix("Z"), "us").astype(int))
    newest = events.event_times(SPEC, np.arange(SPEC.originals)).max()
    assert closing - events.DELAY_US >= newest + events.WINDOW_US


def test_files_are_old_and_in_order(dataset):
    times = [path.stat().st_mtime for path in sorted(dataset.lines.iterdir())]
    assert times == sorted(set(times))


def test_is_cached_and_seeded(dataset, tmp_path):
    again = events.ensure(tmp_path, SPEC)
    assert read(again) == read(dataset)
    (again.lines / "part-00000.jsonl").write_text("kept\n")
    assert events.ensure(tmp_path, SPEC).size == again.size
    assert read(again)[0] == "kept"
    other = events.Spec(SPEC.events, SPEC.files, seed=8)
    assert events.ids(other, np.arange(5)) != events.ids(SPEC, np.arange(5))


def test_an_unfinished_folder_is_made_again(tmp_path):
    (tmp_path / SPEC.key / "lines").mkdir(parents=True)
    assert len(list(events.ensure(tmp_path, SPEC).lines.iterdir())) == SPEC.files + 1


def test_ids_are_distinct():
    ids = events.ids(SPEC, np.arange(50_000))
    assert len(ids.unique()) == 50_000
    assert ids.type == pa.string()
