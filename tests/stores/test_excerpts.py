"""Queries of a lake in an object store fetch the files and columns that they need, and find the same as always."""

import datetime as dt
import io
import random

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lodestream.lake.excerpts import write_excerpt
from lodestream.lake.layout import table_path
from lodestream.lake.table import DeltaTable
from lodestream.model.access import Principal
from lodestream.model.policy import Grant, Mask, RowFilter
from lodestream.model.table import TableName
from lodestream.query.service import QueryService
from tests.catalog.conftest import say
from tests.query.conftest import catalog_at, schema_of
from tests.stores.conftest import on_azurite
from tests.stores.faults import proxied
from tests.stores.test_faults import behind

DAYS, ROWS = 4, 30_000
COLUMNS = {
    "id": "bigint", "day": "date", "name": "string", "region": "string", "amount": "double", "note": "string",
    "size": "int",
}  # fmt: skip
T = TableName("gold", "t")


def rows_of(day: int) -> pa.Table:
    rng = np.random.default_rng(day)
    return pa.table({
        "id": np.arange(ROWS) + day * ROWS, "day": pa.array([dt.date(2024, 1, 1 + day)] * ROWS),
        "name": [f"{n:x}" for n in rng.integers(0, 1 << 60, ROWS)], "region": rng.choice(["EU", "US"], ROWS),
        "amount": rng.random(ROWS), "note": [f"{n:x}" for n in rng.integers(0, 1 << 60, ROWS)],
        "size": rng.integers(0, 1000, ROWS).astype(np.int32),
    })  # fmt: skip


def fill(place) -> pa.Table:
    disk, days = place.disk(), [rows_of(day) for day in range(DAYS)]
    table = DeltaTable.create(
        disk, table_path(place.lake, T), schema_of(COLUMNS), partition_columns=("day",), table_id="one", clock_us=10**15
    )
    for day, rows in enumerate(days):
        table.commit(adds=table.stage(rows, name=str(day)).adds, clock_us=10**15)
    return pa.concat_tables(days)


def test_one_column_of_one_day_is_all_that_is_fetched(remote, tmp_path):
    rows = fill(remote)
    whole = sum(add.size for add in DeltaTable.open(remote.disk(), table_path(remote.lake, T)).files())
    with proxied(remote.store["endpoint"]) as proxy:
        asked = behind(proxy, remote)
        service = QueryService(asked.disk(), asked.lake, threads=1)
        try:

            def fetched(text):
                proxy.answered.clear()
                with service.ask(text, principal=Principal("o", kind="owner")) as answer:
                    found = answer.table().to_pydict()
                data = [size for method, path, size in proxy.answered if method == "GET" and ".parquet" in path]
                return found, len(data), sum(data), answer.files["gold.t"]

            total = float(np.sum(rows.filter(pa.array(np.arange(len(rows)) // ROWS == 2))["amount"].to_numpy()))
            found, requests, size, files = fetched("select sum(amount) s from gold.t where day = '2024-01-03'")
            assert found["s"][0] == pytest.approx(total)
            assert (requests, files) == (2, (1, DAYS - 1))
            assert size < whole // DAYS // 3
            assert fetched("select max(amount) m from gold.t where day = date '2024-01-03'")[1] == 0, "is kept"
            assert fetched("select count(*) n from gold.t")[:2] == ({"n": [DAYS * ROWS]}, DAYS), "footers"
            found, requests, size, _ = fetched("select * from gold.t where day = '2024-01-03' order by id limit 1")
            assert (found["id"], requests) == ([2 * ROWS], 1), "whole"
            assert fetched("select sum(size) n from gold.t where day = '2024-01-03'")[1] == 0, "all is there already"
        finally:
            service.close()


def test_policies_see_the_columns_that_they_look_at(azurite_url, tmp_path):
    place = on_azurite(azurite_url, tmp_path)
    rows = fill(place)
    catalog = catalog_at(tmp_path / "catalog")
    say(
        catalog, Grant("anna", "select", "gold.t"), RowFilter("eu", (T,), "region = 'EU' and size > 500", ()),
        Mask("m", ((T, "name"),), "substring(note, 1, 2)", ()),
    )  # fmt: skip
    service = QueryService(place.disk(), place.lake, authority=catalog, threads=1)
    try:
        text = "select count(*) n, count(distinct name) d, sum(amount) s from gold.t where day < '2024-01-03'"
        with service.ask(text, principal=Principal("anna", via="test")) as answer:
            (found,) = answer.table().to_pylist()
            assert not answer.files
    finally:
        service.close()
        catalog.close()
    kept = duckdb.sql("select * from rows where region = 'EU' and size > 500 and day < date '2024-01-03'")
    n, d, s = kept.aggregate("count(*), count(distinct note[1:2]), sum(amount)").fetchall()[0]
    assert (found["n"], found["d"]) == (n, d)
    assert found["s"] == pytest.approx(s)
    assert rows.num_rows == DAYS * ROWS


@pytest.mark.parametrize("seed", range(8))
def test_an_excerpt_reads_as_the_whole_file(tmp_path, seed):
    rng = random.Random(seed)
    count = rng.choice([0, 10, 5_000, 30_000])
    made = {
        "id": range(count), "Text": [f"{rng.random():.17f}" for _ in range(count)],
        "few": [n % 3 for n in range(count)],
        "deep": [{"a": n, "b": [str(n)] * (n % 3)} for n in range(count)], "id.x": [float(n) for n in range(count)],
        "none": pa.nulls(count, pa.string()),
    }  # fmt: skip
    whole = str(tmp_path / "whole.parquet")
    pq.write_table(
        pa.table(made), whole, row_group_size=rng.choice([1_000, 7_777, 1 << 20]), write_page_index=rng.random() < 0.5,
        compression=rng.choice(["snappy", "none", "zstd"]), data_page_size=rng.choice([1_000, 1 << 20]),
    )  # fmt: skip
    with open(whole, "rb") as file:
        data = file.read()
    for _ in range(4):
        columns = rng.sample(list(made), rng.randrange(len(made) + 1))
        part, fetched = str(tmp_path / "part.parquet"), []

        def read(start, end, fetched=fetched):
            assert 0 <= start < end <= len(data)
            fetched.append(end - start)
            return data[start:end]

        with open(part, "wb") as file:
            write_excerpt(file, len(data), columns, read)
        assert sum(fetched) <= len(data)
        assert pq.read_metadata(part).num_rows == count
        assert pq.read_table(part, columns=columns).equals(pq.read_table(whole, columns=columns))
        listed = ", ".join(f'"{name}"' for name in columns) or "count(*)"
        assert duckdb.sql(f"select {listed} from '{part}'").fetchall() == (
            duckdb.sql(f"select {listed} from '{whole}'").fetchall()
        )


def test_a_footer_without_sense_is_left_to_the_reader():
    file = io.BytesIO()
    data = b"PAR1" + bytes(200_000) + b"PAR1"
    write_excerpt(file, len(data), ["a"], lambda start, end: data[start:end])
    assert file.getvalue() == data
