"""Avro equals fastavro, field by field, on random schemas and values; both interpreters give the same on any bytes."""

import json
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lodestream.formats import _avro_decode
from lodestream.formats._avro_program import FAULTS, Limits, Want, compile_program
from lodestream.formats._avro_schema import parse_schema
from tests.formats.avro_cases import one_schema, outcome, records, written

NO_LIMITS = Limits()
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def as_row(value, top=True):
    """A value as fastavro takes it, as Arrow gives it."""
    if isinstance(value, dict):
        return {k: as_row(v, False) for k, v in value.items()}
    return [as_row(v, False) for v in value] if isinstance(value, list) else value


def fits(schema, value, kind):
    """The value as the column of this type would give it."""
    if value is None:
        return None
    if kind.name == "map":
        return [(k, fits(None, v, kind.element)) for k, v in value.items()]
    if kind.name == "array":
        return [fits(None, v, kind.element) for v in value]
    if kind.name == "struct":
        return {f.name: fits(None, value[f.name], f.type) for f in kind.fields}
    return value


def everything(kind):
    if kind.kind == "record":
        return Want({i: everything(f.type) for i, f in enumerate(kind.fields)})
    if kind.kind in ("array", "map"):
        return Want({0: everything(kind.inner[0])})
    if kind.kind == "union":
        return Want({i: everything(b) for i, b in enumerate(kind.inner) if b.kind != "null"})
    return Want({})


@settings(max_examples=120, deadline=None, suppress_health_check=SLOW)
@given(st.data(), st.sampled_from([0, 8, 10_000]))
def test_rows_equal_what_fastavro_wrote(data, few):
    schema, values = data.draw(records())
    made = data.draw(st.lists(values, min_size=1, max_size=14))
    from tests.formats.avro_cases import columns_of

    columns = columns_of(schema)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_avro_decode, "FEW", few)
        got = outcome(one_schema(schema, written(schema, made), columns, drift="add"))
    expected = {i: {c.name: fits(schema, value[c.name], c.type) for c in columns} for i, value in enumerate(made)}
    assert got == expected


def run(schema, bodies, few, limits=NO_LIMITS, want=everything):
    kind = parse_schema(json.dumps(schema))
    block = np.frombuffer(b"".join(bodies), np.uint8)
    ends = np.cumsum([len(body) for body in bodies]).astype(np.int64)
    starts = ends - [len(body) for body in bodies]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_avro_decode, "FEW", few)
        codes, array = _avro_decode.run_program(compile_program(kind, want(kind)), block, starts, ends, limits)
    array.validate(full=True)
    rows = array.to_pylist()
    return [repr(rows[i]) if not code else FAULTS[code] for i, code in enumerate(codes)]


def nothing(kind):
    return Want({})


@settings(max_examples=150, deadline=None, suppress_health_check=SLOW)
@given(st.data(), st.randoms(use_true_random=False), st.sampled_from([everything, nothing]))
def test_vectors_give_what_one_by_one_gives_on_damaged_bytes(data, rng, want):
    schema, values = data.draw(records())
    bodies = written(schema, data.draw(st.lists(values, min_size=3, max_size=14)))
    broken = [damaged(rng, body) if rng.random() < 0.6 else body for body in bodies]
    limits = Limits(depth_max=rng.choice([2, 4, 64]), items_max=rng.choice([2, 1000]))
    alone = run(schema, broken, 10_000, limits, want)
    assert run(schema, broken, 0, limits, want) == alone
    assert run(schema, broken, 3, limits, want) == alone
    for i in range(0, len(broken), 5):  # nor does it matter what stands around a record
        assert run(schema, [broken[i]], 0, limits, want) == [alone[i]]


def damaged(rng: random.Random, body: bytes) -> bytes:
    data = bytearray(body)
    for _ in range(rng.choice([1, 1, 3])):
        what = rng.randrange(4)
        at = rng.randrange(len(data) + 1)
        if what == 0:
            del data[at:]
        elif what == 1:
            data[at:at] = rng.choice([b"\xff" * 11, b"\x80" * 9 + b"\x01", b"\x01", b"\x03\x02", rng.randbytes(3)])
        elif data and at < len(data):
            data[at] = rng.randrange(256) if what == 2 else data[at] ^ 1 << rng.randrange(8)
    return bytes(data)


@pytest.mark.parametrize("want", [everything, nothing])
def test_the_first_fault_in_reading_order_is_the_reason(want):
    enum = {"type": "enum", "name": "E", "symbols": ["A"]}
    pair = [{"name": name, "type": "boolean"} for name in "xy"]
    point = {"type": "record", "name": "P", "fields": pair}
    arrays = [{"name": n, "type": {"type": "array", "items": items}} for n, items in (("a", enum), ("b", point))]
    schema = {"type": "record", "name": "R", "fields": arrays}
    long = b"\xff" * 11 + b"\x01"
    bodies = [
        b"\x06\x00\x02" + long + b"\0\0",
        b"\x06\x00" + long + b"\x02\0\0",
        b"\x06\x00\x02\xff",
        b"\x06\x00\xff\xff",
        b"\0\x04\0\0\0\x02\0",
        b"\0\x04\0\0\x02\0\0",
        b"\0\x04\0\0\x02",
        b"\0\0",
        b"\2\0\0\2\1\0\0",
    ]
    alone = run(schema, bodies, 10_000, want=want)
    assert run(schema, bodies, 0, want=want) == alone
    assert alone[:4] == ["enum", "varint", "enum", "truncated"]
