"""Schemas survive Delta's JSON form, and delta-rs reads the same."""

import deltalake
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestream.errors import ConfigError
from lodestream.lake.disk import LocalDisk
from lodestream.lake.schema import schema_from_json, schema_to_json
from lodestream.lake.table import DeltaTable
from lodestream.model.types import PRIMITIVES, Column, DataType, Schema, parse_type

SIMPLE = st.sampled_from(PRIMITIVES).map(DataType) | st.tuples(st.integers(1, 38), st.integers(0, 38)).filter(
    lambda p: p[1] <= p[0]
).map(lambda p: DataType("decimal", precision=p[0], scale=p[1]))
TYPES = st.recursive(
    SIMPLE,
    lambda inner: (
        inner.map(lambda t: DataType("array", element=t))
        | st.tuples(SIMPLE, inner).map(lambda p: DataType("map", key=p[0], element=p[1]))
        | st.lists(inner, min_size=1, max_size=3).map(
            lambda ts: DataType("struct", fields=tuple(Column(f"f{i}", t) for i, t in enumerate(ts)))
        )
    ),
    max_leaves=5,
)
COLUMNS = st.lists(st.tuples(st.text(min_size=1, max_size=5), TYPES, st.booleans(), st.text(max_size=5)), max_size=5)


@given(COLUMNS)
@settings(max_examples=40)
def test_round_trip(columns):
    named = {name: Column(name, kind, nullable, comment) for name, kind, nullable, comment in columns}
    schema = Schema(tuple(named.values()))
    assert schema_from_json(schema_to_json(schema)) == schema


def test_delta_rs_sees_the_same_schema(tmp_path):
    text = "a:bigint,b:struct<x:array<double>,y:map<string,decimal(5,2)>>,c:timestamp,d:tinyint"
    schema = Schema((*parse_type(f"struct<{text}>").fields, Column("e", DataType("string"), False, "a note")))
    DeltaTable.create(LocalDisk(), str(tmp_path / "t"), schema, table_id="t", clock_us=0)
    assert schema_from_json(deltalake.DeltaTable(str(tmp_path / "t")).schema().to_json()) == schema


@pytest.mark.parametrize("kind", ['"timestamp_ntz"', '"variant"', '{"type":"cube"}'])
def test_a_type_we_do_not_store_is_named(kind):
    text = f'{{"type":"struct","fields":[{{"name":"a","type":{kind},"nullable":true,"metadata":{{}}}}]}}'
    with pytest.raises(ConfigError, match="cannot be read here"):
        schema_from_json(text)
