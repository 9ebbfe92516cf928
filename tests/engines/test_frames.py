"""Expressions over Arrow tables keep the order of the rows, whatever DuckDB makes of them."""

import pyarrow as pa
import pytest

from lodestream.engines.embedded.frames import connect, select


@pytest.mark.parametrize("sizes", [[80], [2, 78], [1, 1, 5000, 3]])
def test_an_in_list_that_becomes_a_join_keeps_the_order(sizes: list[int]) -> None:
    values = iter(range(sum(sizes)))
    chunks = [pa.array([str(next(values)) for _ in range(size)]) for size in sizes]
    rows = pa.table({"v": pa.chunked_array(chunks)})
    result = select(connect(), rows, [("v", '"v"'), ("hit", "\"v\" IN ('1', '2', '3', '4', '5', '70')")])
    assert result.column("v").to_pylist() == rows.column("v").to_pylist()
    assert [v for v, hit in zip(*map(pa.ChunkedArray.to_pylist, result.columns), strict=True) if hit] == [
        v for v in ("1", "2", "3", "4", "5", "70") if int(v) < sum(sizes)
    ]
