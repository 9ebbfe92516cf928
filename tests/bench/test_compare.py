import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from bench import compare, events

SPEC = events.Spec(events=2_000, files=2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return events.ensure(tmp_path_factory.mktemp("cache"), SPEC)


@pytest.fixture
def tables(dataset):
    """Silver and gold as an engine would leave them, the closing event among them."""
    silver = pa.concat_tables([pq.read_table(dataset.ids), pa.table({"event_id": [events.CLOSING_ID]})])
    truth = pq.read_table(dataset.gold).to_pylist()
    rows = [
        {
            "window_start": dt.datetime.fromtimestamp(row["minute_us"] / 1e6, dt.UTC),
            "type": row["type"], "country": row["country"], "events": row["events"],
            "amount": Decimal(row["cents"]) / 100,
        }
        for row in truth
    ]  # fmt: skip
    rows.append({**rows[0], "type": "closing", "country": "ZZ"})
    schema = pa.schema([
        ("window_start", pa.timestamp("us", tz="UTC")), ("type", pa.string()), ("country", pa.string()),
        ("events", pa.int64()), ("amount", pa.decimal128(22, 2)),
    ])  # fmt: skip
    return silver, pa.Table.from_pylist(rows, schema)


def verdict(dataset, folder, silver, gold):
    half = len(silver) // 2
    pq.write_table(silver[:half], folder / "silver0.parquet")
    pq.write_table(silver[half:], folder / "silver1.parquet")
    pq.write_table(gold, folder / "gold.parquet")
    made = compare.tables("engine", [folder / "silver0.parquet", folder / "silver1.parquet"], [folder / "gold.parquet"])
    return compare.compare(compare.truth(dataset), made)


def test_equal_tables_are_equal(dataset, tables, tmp_path):
    found = verdict(dataset, tmp_path, *tables)
    assert found.lines == []
    assert found.silver_rows == SPEC.originals - SPEC.invalid
    assert found.gold_rows == len(pq.read_table(dataset.gold))


def test_a_lost_a_foreign_and_a_repeated_id_are_found(dataset, tables, tmp_path):
    silver, gold = tables
    assert any(
        "1 rows of truth are not in engine" in line for line in verdict(dataset, tmp_path, silver[1:], gold).lines
    )
    foreign = pa.concat_tables([silver, pa.table({"event_id": ["x"]})])
    assert verdict(dataset, tmp_path, foreign, gold).lines == [
        "silver: 1 rows of engine are not in truth, such as [('x', 1)]"
    ]
    assert len(verdict(dataset, tmp_path, pa.concat_tables([silver, silver[:1]]), gold).lines) == 2
    nameless = pa.concat_tables([silver, pa.table({"event_id": pa.array([None], pa.string())})])
    assert len(verdict(dataset, tmp_path, nameless, gold).lines) == 1


@pytest.mark.parametrize("column", ["window_start", "type", "events", "amount"])
def test_a_changed_gold_value_is_found(dataset, tables, tmp_path, column):
    silver, gold = tables
    values = gold[column].to_pylist()
    values[0] = {
        "window_start": values[0] + dt.timedelta(minutes=1) if column == "window_start" else None,
        "type": "other", "events": 99, "amount": Decimal("0.01"),
    }[column]  # fmt: skip
    index = gold.schema.get_field_index(column)
    changed = gold.set_column(index, gold.schema.field(index), pa.array(values, gold.schema.field(index).type))
    assert len(verdict(dataset, tmp_path, silver, changed).lines) == 2


def test_a_window_row_twice_is_found(dataset, tables, tmp_path):
    silver, gold = tables
    real = gold.filter(pc.not_equal(gold["type"], "closing"))
    assert len(verdict(dataset, tmp_path, silver, pa.concat_tables([gold, real[:1]])).lines) == 2
