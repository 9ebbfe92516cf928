"""The column-wise converters take nothing that the exact ones refuse, and give the same values."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from lodestream.formats._text import text_converter
from lodestream.formats._times import parse_timestamp
from lodestream.formats._types import infer_type
from lodestream.formats._values import BadValueError, converter, from_text
from lodestream.model.arrow import to_arrow_type
from lodestream.model.types import parse_type

TEXTS = {
    "number": [
        "0", "-0", "1", "-1", "12.50", "0.1", "-0.0", "007", "1.", ".5", "-", "", "1-2", "1..2", "--1", "+1",
        "1e5", "1E-2", "127", "128", "-129", "32767", "32768", "2147483648", "-2147483648",
        "9223372036854775807", "nan", "9223372036854775808", "99999999999999999999", "123456789.12",
        "12345678.99", "99999999.99", "inf", "1_0", "0x10", "1,5", " 1", "1 ", "null", "true", "100000000",
        "3.4028235e38", "340282350000000000000000000000000000000", "1" * 300 + ".5", "9" * 310,
    ],
    "boolean": [
        "true", "false", "TRUE", "True", "1", "", "t", "truefalse",
    ],
    "date": [
        "2024-02-29", "2023-02-29", "1900-02-29", "2000-02-29", "0001-01-01", "9999-12-31", "0000-12-31",
        "2024-1-01", "2024-13-01", "2024-00-10", "2024-04-31", "2024-04-00", "20240401", "", "2024/04/01",
        "1969-12-31",
    ],
    "timestamp": [
        "2024-02-29T00:00:00Z", "2024-02-29 23:59:59", "2024-02-29T23:59:59.1Z", "2024-02-29T23:59:59.123456",
        "2024-02-29T23:59:59.1234567Z", "2024-02-29T23:59:59.1234560Z", "2024-02-29T24:00:00Z",
        "2023-02-29T00:00:00Z", "2024-02-29T23:60:00Z", "2024-02-29T23:59:60Z", "2024-02-29T23:59:59+05:30",
        "2024-02-29T23:59:59-0530", "2024-02-29T23:59:59+24:00", "2024-02-29T23:59:59+05:60",
        "2024-02-29T23:59:59+05", "2024-02-29T23:59Z", "", "2024-02-29", "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z",
        "2024-02-29t00:00:00z", "2024-02-29T00:00:00.Z", "2024-02-29T00:00:00ZZ",
    ],
}  # fmt: skip
KINDS = [
    ("tinyint", "number"), ("smallint", "number"), ("int", "number"), ("bigint", "number"), ("float", "number"),
    ("double", "number"), ("decimal(10,2)", "number"), ("decimal(38,0)", "number"), ("decimal(3,3)", "number"),
    ("decimal(30,20)", "number"), ("boolean", "boolean"), ("date", "date"), ("timestamp", "timestamp"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "texts"), KINDS)
def test_a_column_is_converted_as_its_values_are(kind, texts):
    kind = parse_type(kind)
    exact = converter(kind)
    good: list[str] = []
    for text in TEXTS[texts]:
        try:
            exact(from_text(text, kind))
        except BadValueError:
            continue
        good.append(text)
    assert good
    assert len(good) < len(TEXTS[texts])
    chance = random.Random(str(kind))
    fast = text_converter(kind)
    columns = [[text] * 3 for text in TEXTS[texts]]
    columns += [[chance.choice(good) for _ in range(50)] for _ in range(20)]
    columns += [[chance.choice([*TEXTS[texts], *good, None]) for _ in range(50)] for _ in range(60)]
    taken = 0
    for column in columns:
        values, hard = fast(pa.array(column, pa.string()))
        values.validate(full=True)
        assert values.type == to_arrow_type(kind)
        hard = np.zeros(len(column), np.bool_) if hard is None else hard
        for text, value, is_hard in zip(column, values, hard.tolist(), strict=True):
            if text is None:
                assert not value.is_valid
                assert not is_hard
            elif is_hard:
                assert not value.is_valid
            else:
                taken += 1
                assert text in good, text
                assert repr(value) == repr(pa.array([exact(from_text(text, kind))], to_arrow_type(kind))[0])
    assert taken > 300 or kind.scale > 18


@pytest.mark.parametrize("unit", ["seconds", "millis", "micros"])
def test_epoch_numbers_are_converted_as_their_values_are(unit):
    kind = parse_type("timestamp")
    exact, fast = converter(kind, unit), text_converter(kind, unit)
    texts = [
        "0",
        "-1",
        "1700000000",
        "253402300799",
        "253402300800",
        "99999999999999999",
        "1.5",
        "x",
        "",
        "9" * 30,
        "-62135596800",
    ]
    for text in texts:
        values, hard = fast(pa.array([text, "5"]))
        try:
            want = pa.array([exact(from_text(text, kind, unit))], values.type)[0]
        except BadValueError:
            assert hard is not None
            assert hard.tolist() == [True, False]
        else:
            assert hard is not None or values[0].equals(want)
        assert values[1].is_valid


@pytest.mark.parametrize("text", ["2024-01-01T00:00:00Z", "2024-01-01 00:00:00", "2024-01-01T02:00:00+02:00"])
def test_timestamps_are_microseconds_in_utc(text):
    assert parse_timestamp(text) == 1_704_067_200_000_000


@pytest.mark.parametrize(
    ("value", "kind"),
    [(1, "bigint"), (1 << 63, "decimal(38,0)"), (10**39, "None"), (True, "boolean"), (1.0, "double"), ("x", "string"),
     ("2024-01-01T00:00:00Z", "timestamp"), ("2024-01-01", "string"), ([], "None"), ([1, 1.5], "array<double>"),
     ([1, "x"], "None"), ({}, "None"), ({"a": None, "b": 1}, "struct<b:bigint>"), (None, "None")],
)  # fmt: skip
def test_types_are_inferred(value, kind):
    assert str(infer_type(value)) == kind
