"""Avro schemas and values for tests: made by hypothesis, written and read by fastavro."""

import io
import json

import fastavro
import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from lodestream.formats._avro_native import interpreter
from lodestream.formats._avro_schema import parse_schema, record_schema
from lodestream.formats.avro import AvroFormat, AvroSettings
from lodestream.ports.source import Reading
from tests.formats.registry import Registry, framed

FORM: list[object] = [None]
"""The kernels that messages are decoded with; None for the portable form."""

LONG = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-70, 70), st.sampled_from([2**56, -(2**55) - 1, 2**62]))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SIMPLE = {
    "boolean": st.booleans(),
    "int": st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(-70, 70)),
    "long": LONG,
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
    "bytes": st.binary(max_size=12),
    "string": TEXT,
}


@st.composite
def schemas(draw, depth=3, names=None):
    """A type and a strategy for its values, such that every value has a table type."""
    names = names if names is not None else iter(range(10_000))
    kinds = [*SIMPLE, "fixed", "enum"] + (["record", "array", "map", "nullable"] * 2 if depth else [])
    kind = draw(st.sampled_from(kinds))
    if kind in SIMPLE:
        return kind, SIMPLE[kind]
    if kind == "fixed":
        size = draw(st.integers(0, 9))
        return {"type": "fixed", "name": f"F{next(names)}", "size": size}, st.binary(min_size=size, max_size=size)
    if kind == "enum":
        symbols = [f"S{i}" for i in range(draw(st.integers(1, 5)))]
        return {"type": "enum", "name": f"E{next(names)}", "symbols": symbols}, st.sampled_from(symbols)
    if kind == "record":
        return draw(records(depth - 1, names, least=1))
    inner, values = draw(schemas(depth - 1, names))
    if kind == "array":
        return {"type": "array", "items": inner}, st.lists(values, max_size=5)
    if kind == "map":
        return {"type": "map", "values": inner}, st.dictionaries(TEXT, values, max_size=4)
    if isinstance(inner, list):
        return inner, values
    order = draw(st.booleans())
    return ["null", inner] if order else [inner, "null"], st.one_of(st.none(), values)


@st.composite
def records(draw, depth=3, names=None, least=0):
    names = names if names is not None else iter(range(10_000))
    fields, values = [], {}
    for i in range(draw(st.integers(least, 4))):
        kind, strategy = draw(schemas(depth, names))
        fields.append({"name": f"f{i}", "type": kind})
        values[f"f{i}"] = strategy
    return {"type": "record", "name": f"R{next(names)}", "fields": fields}, st.fixed_dictionaries(values)


def written(schema, values):
    """Each value in Avro's binary form, by fastavro."""
    parsed = fastavro.parse_schema(schema)
    out = []
    for value in values:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, parsed, value)
        out.append(buffer.getvalue())
    return out


def columns_of(schema):
    return record_schema(parse_schema(json.dumps(schema)))


def reading(schema, registry=None, drift="quarantine", keep_raw=False, root="/", reserved=()):
    def open_registry(name):
        assert name == "default"
        return registry

    return Reading(schema, keep_raw, drift, str(root), frozenset(reserved), open_registry)


def decode(messages, columns, registry=None, kind=None, **settings):
    """Messages decoded as Avro with a registry."""
    made = AvroFormat(AvroSettings(**settings), reading(columns, registry, **(kind or {})), run=interpreter(FORM[0]))
    return made.decode_messages(pa.array(messages, pa.binary()), "t-0", np.arange(len(messages)) * 3 + 5)


def one_schema(schema, bodies, columns=None, drift="quarantine", **settings):
    """Bodies of one writer schema, framed and decoded."""
    registry = Registry()
    number = registry.add(schema if isinstance(schema, str) else json.dumps(schema))
    columns = columns_of(schema) if columns is None else columns
    return decode([framed(number, body) for body in bodies], columns, registry, {"drift": drift}, **settings)


def outcome(decoded):
    """Values or reasons by place in the batch."""
    rows = {
        (r.pop("_position") - 5) // 3: {k: v for k, v in r.items() if k[0] != "_"} for r in decoded.rows.to_pylist()
    }
    rejects = {(r["_position"] - 5) // 3: r["_reasons"] for r in decoded.rejects.to_pylist()}
    assert not set(rows) & set(rejects)
    decoded.rows.validate(full=True)
    assert decoded.rows["_position"].to_pylist() == sorted(decoded.rows["_position"].to_pylist())
    assert decoded.rejects["_position"].to_pylist() == sorted(decoded.rejects["_position"].to_pylist())
    return dict(sorted((rows | rejects).items()))
