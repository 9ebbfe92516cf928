"""The native form of Avro programs gives the codes and the arrays that the NumPy form gives, on any bytes."""

import itertools
import json
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lodestream.formats._avro_decode import run_program
from lodestream.formats._avro_native import NativePrograms
from lodestream.formats._avro_program import DEPTH, ITEMS, TRUNCATED, Limits, Want, compile_program
from lodestream.formats._avro_schema import parse_schema
from lodestream.native import KERNELS
from tests.formats.avro_cases import records, written
from tests.formats.test_avro_oracle import damaged, everything
from tests.native import needs_native

pytestmark = needs_native
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def some_of(kind, rng):
    """A want that leaves parts out, down to unions of several branches."""
    if kind.kind == "record":
        return Want({i: some_of(f.type, rng) for i, f in enumerate(kind.fields) if rng.random() < 0.7})
    if kind.kind in ("array", "map"):
        return Want({0: some_of(kind.inner[0], rng)} if rng.random() < 0.9 else {})
    if kind.kind == "union":
        return Want({i: some_of(b, rng) for i, b in enumerate(kind.inner) if rng.random() < 0.8})
    return Want({})


def both(program, bodies, limits):
    block = np.frombuffer(b"".join(bodies), np.uint8)
    ends = np.cumsum([len(body) for body in bodies]).astype(np.int64)
    starts = ends - [len(body) for body in bodies]
    native = NativePrograms(KERNELS)
    found = [run(program, block, starts, ends, limits) for run in (run_program, native, native)]
    for _, array in found:
        array.validate(full=True)
    return found


@settings(max_examples=250, deadline=None, suppress_health_check=SLOW)
@given(st.data(), st.randoms(use_true_random=False), st.booleans())
def test_codes_and_arrays_are_those_of_the_portable_form(data, rng, whole):
    schema, values = data.draw(records())
    kind = parse_schema(json.dumps(schema))
    bodies = written(schema, data.draw(st.lists(values, min_size=1, max_size=14)))
    bodies = [damaged(rng, body) if rng.random() < 0.4 else body for body in bodies]
    limits = Limits(depth_max=rng.choice([2, 4, 64]), items_max=rng.choice([2, 1000]))
    program = compile_program(kind, everything(kind) if whole else some_of(kind, rng))
    (codes, array), *others = both(program, bodies, limits)
    for other_codes, other in others:
        assert other_codes.tolist() == codes.tolist()
        assert other.type == array.type
        good = np.flatnonzero(codes == 0)
        assert repr(other.take(good).to_pylist()) == repr(array.take(good).to_pylist())


NULLS = {"type": "array", "items": "null"}
INTS = {"type": "array", "items": "int"}


@pytest.mark.parametrize("branches", [["null", "int", "string"], ["int", "null"], ["string", NULLS], [INTS, "null"]])
def test_unions(branches):
    kind = parse_schema(json.dumps({"type": "record", "name": "R", "fields": [{"name": "u", "type": branches}]}))
    bodies = [b"\0", b"\0\2", b"\2\2", b"\2", b"\2\2x", b"\4\2x", b"\2\4\0", b"\6", b"\1"]
    for places, want in itertools.product(({0}, {1}, {0, 1}, range(len(branches))), (Want({}), Want({0: Want({})}))):
        program = compile_program(kind, Want({0: Want(dict.fromkeys(places, want))}))
        (codes, array), (other_codes, other), _ = both(program, bodies, Limits())
        assert other_codes.tolist() == codes.tolist()
        good = np.flatnonzero(codes == 0)
        assert other.take(good).to_pylist() == array.take(good).to_pylist()


def test_bombs_cost_nothing():
    kind = parse_schema(json.dumps({"type": "record", "name": "R", "fields": [{"name": "a", "type": NULLS}]}))
    program = compile_program(kind, everything(kind))
    started = time.process_time()
    (codes, _), (other, _), _ = both(program, [b"\x80\xa8\xd6\xb9\x07\0", b"\x01\x01", b"\xff" * 9 + b"\x01"], Limits())
    assert other.tolist() == codes.tolist()
    assert other[0] == ITEMS
    assert time.process_time() - started < 5


def test_a_type_inside_itself_is_stepped_over_to_the_depth_that_is_allowed():
    node = {"type": "record", "name": "N", "fields": [{"name": "next", "type": ["null", "N"]}]}
    kind = parse_schema(json.dumps({"type": "record", "name": "R", "fields": [{"name": "n", "type": node}]}))
    program = compile_program(kind, Want({}))
    bodies = [b"\2" * n + b"\0" for n in (0, 3, 10, 200)] + [b"\2" * 5]
    (codes, _), (other, _), _ = both(program, bodies, Limits(depth_max=8))
    assert other.tolist() == codes.tolist() == [0, 0, DEPTH, DEPTH, TRUNCATED]


def test_ranges_outside_of_the_block_are_truncated():
    kind = parse_schema(json.dumps({"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}))
    program = compile_program(kind, everything(kind))
    spans = np.array([[0, 1], [0, 9], [5, 2], [-1, 1], [2**62, 2**62 + 1]])
    codes, _ = NativePrograms(KERNELS)(program, np.zeros(2, np.uint8), spans[:, 0], spans[:, 1], Limits())
    assert codes.tolist() == [0, *[TRUNCATED] * 4]
