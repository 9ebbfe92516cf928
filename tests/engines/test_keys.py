"""Hashing of key columns: stored state holds it, so it is pinned; both forms give the same."""

import math
from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestream.engines.embedded.keys import hash_keys
from lodestream.native import KERNELS
from tests.native import FORMS, needs_native

VALUES = {
    pa.string(): st.text(max_size=20),
    pa.binary(): st.binary(max_size=40),
    pa.binary(16): st.binary(min_size=16, max_size=16),
    pa.binary(5): st.binary(min_size=5, max_size=5),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int8(): st.integers(-128, 127),
    pa.bool_(): st.booleans(),
    pa.float64(): st.floats(),
    pa.float32(): st.floats(width=32),
    pa.date32(): st.dates(),
    pa.timestamp("us", tz="UTC"): st.integers(-(2**50), 2**50),
    pa.decimal128(12, 2): st.decimals(-999999999, 999999999, places=2),
    pa.dictionary(pa.int32(), pa.string()): st.text(max_size=5),
}


PINNED = [
    "2640394c18c47480fe7226871567ccac",
    "e1601e2727ee0fe1cb98ce22b861c1ea",
    "72970b2f897aa66d5edadc7063d7e2c0",
    "282f0195ee35dd1c1c47f5fc449e7623",
]


@st.composite
def key_columns(draw):
    rows = draw(st.integers(0, 40))
    found = []
    for kind in draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=3)):
        values = draw(st.lists(VALUES[kind] | st.none(), min_size=rows + 2, max_size=rows + 2))
        found.append(pa.array(values, kind).slice(draw(st.integers(0, 2)), rows))
    return found


@needs_native
@settings(max_examples=300, deadline=None)
@given(key_columns())
def test_both_forms_hash_alike(columns):
    for portable, native in zip(hash_keys(columns, None), hash_keys(columns, KERNELS), strict=True):
        assert portable.tolist() == native.tolist()


@pytest.mark.parametrize("kernels", FORMS)
def test_never_changes(kernels):
    columns = [
        pa.array(["a", None, "a longer key, of 31 bytes in all", ""]),
        pa.array([1, -1, None, 0]),
        pa.array([Decimal("1.50"), None, Decimal("-2.25"), Decimal(0)], pa.decimal128(12, 2)),
        pa.array([date(2026, 3, 1), date(1969, 12, 31), None, date(1970, 1, 1)]),
        pa.array([datetime(2026, 3, 1, 12), None, datetime(1960, 1, 1), datetime(1970, 1, 1)], pa.timestamp("us")),
    ]
    high, low = hash_keys(columns, kernels)
    assert [f"{h:016x}{x:016x}" for h, x in zip(high.tolist(), low.tolist(), strict=True)] == PINNED


@pytest.mark.parametrize("kernels", FORMS)
def test_floats_that_are_one_value_are_one_key(kernels):
    high, low = hash_keys([pa.array([0.0, -0.0, math.nan, np.float64("-nan"), None])], kernels)
    assert (high[0], low[0]) == (high[1], low[1])
    assert (high[2], low[2]) == (high[3], low[3])
    assert len(set(high.tolist())) == 3
