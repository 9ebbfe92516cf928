"""What the function rows ask Spark: small input tables with the edge cases of a type; `.txt` holds the expressions."""

from __future__ import annotations

import datetime as dt
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

from tools.function_compose import expressions

INF, NAN = float("inf"), float("nan")
EPOCH = dt.date(1970, 1, 1)


def _days(*texts: str) -> list[dt.date]:
    return [dt.date.fromisoformat(text) for text in texts]


def _times(*texts: str) -> list[dt.datetime]:
    return [dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC) for text in texts]


def _cross(left: list[Any], right: list[Any]) -> list[list[Any]]:
    return [[a, b] for a in left for b in right]


def _zip(*columns: list[Any]) -> list[list[Any]]:
    """Rows that walk through each column at its own length, so that values meet in changing pairs."""
    length = max(len(column) for column in columns)
    return [[column[i % len(column)] for column in columns] for i in range(length)]


I_MAX, L_MAX = 2**31 - 1, 2**63 - 1
INTS = [None, 0, 1, -1, 2, 7, -7, 3, -3, I_MAX, -I_MAX - 1]
LONGS = [None, 0, 1, -1, 7, -7, L_MAX, -L_MAX - 1, 2**53 + 1, I_MAX + 1]
DOUBLES = [
    None,
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1.5,
    2.5,
    -1.5,
    -2.5,
    0.1,
    1.005,
    2.675,
    1e-7,
    1e20,
    -1e20,
    1e308,
    5e-324,
    INF,
    -INF,
    NAN,
    9.223372036854775807e18,
    2147483647.5,
    -2147483648.5,
    123456789.12345679,
    1e15 + 0.3,
]
MONEY = [
    None,
    Decimal("0.00"),
    Decimal("0.01"),
    Decimal("-0.01"),
    Decimal("1.00"),
    Decimal("-1.50"),
    Decimal("2.25"),
    Decimal("99.99"),
    Decimal("9999999999.99"),
    Decimal("-9999999999.99"),
    Decimal("3.14"),
]
RATES = [
    None,
    Decimal("0.0000"),
    Decimal("0.0001"),
    Decimal("1.0000"),
    Decimal("-2.5000"),
    Decimal("3.3333"),
    Decimal("0.0005"),
    Decimal("999999.9999"),
    Decimal("7.0000"),
]
WIDE = [
    None,
    Decimal("0.00"),
    Decimal("9" * 36 + ".99"),
    Decimal("-" + "9" * 36 + ".99"),
    Decimal("1.05"),
    Decimal("-2.50"),
]
TEXTS = [
    None,
    "",
    " ",
    "a",
    "abc",
    "ABC",
    "Hello World",
    "  padded  ",
    "\ttab\n",
    "aXbXc",
    "a,b,,c,",
    "naïve café",
    "ÀÉÎ",
    "straße",
    "ǰŉ",
    "İstanbul",
    "ΑΣ ΟΔΥΣΣΕΥΣ",
    "e\u0301te\u0301",
    "👩‍👩‍👧 fam",
    "🇩🇪",
    "日本語テキスト",
    "x\u00a0y",
    "100%",
    "a_b",
    "back\\slash",
    "quote's",
    "aaa",
    "ab\nab",
    "Z",
    "z",
    "0123456789",
    "a.b.c",
    "ﬁx",
    "line\r\n",
]
PARTS = ["a", "", "X", "b", None, ",", "abc", " ", "é", "s", "👧", "World", "%", ".", "aa", "\n"]
NUMERALS = [
    None,
    "",
    " ",
    "0",
    "1",
    "-1",
    "+1",
    " 42 ",
    "\t7\n",
    "007",
    "1.5",
    "1.",
    ".5",
    "-.5",
    "1e3",
    "1E-2",
    "1e400",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "9223372036854775807",
    "9223372036854775808",
    "abc",
    "1a",
    "1_000",
    "0x1F",
    "1,000",
    "--1",
    "1 2",
    "NaN",
    "nan",
    "Infinity",
    "-inf",
    "+Infinity",
    "infinit",
    "1d",
    "1.5f",
    "2D",
    "1L",
    "0.005",
    "0.015",
    "-0.015",
    "99999999999.99",
    "12345678901234567890.12",
    "\u00a01",
    "-0",
    "1.23456789012345678901",
    "4.9e-324",
    "2.4e-324",
    "1e-400",
    "e5",
    "-",
    "+",
    ".",
    "0.1e1",
    "00.10",
]
WORDS = [
    None,
    "",
    "true",
    "TRUE",
    " t ",
    "y",
    "Yes",
    "1",
    "false",
    "f",
    "N",
    "no",
    "0",
    "maybe",
    "2",
    "on",
    "off",
    "tru",
    "\ttrue\n",
    "01",
]
DATE_TEXTS = [
    None,
    "",
    "2024-02-29",
    "2023-02-29",
    "2024-2-9",
    " 2024-01-31 ",
    "2024",
    "2024-03",
    "2024-13-01",
    "2024-00-10",
    "2024-01-32",
    "2024-01-01T10:00:00",
    "2024-01-01 junk",
    "0001-01-01",
    "9999-12-31",
    "0000-01-01",
    "24-01-01",
    "2024/01/01",
    "20240101",
    "2024-01-01Z",
    "2024-1",
    "epoch",
    "today",
    "infinity",
    "2024-01-",
    "2024-01-1x",
    "\t2024-05-06\n",
]
TIME_TEXTS = [
    None,
    "",
    "2024-02-29 12:34:56",
    "2024-02-29T12:34:56",
    "2024-02-29 12:34:56.789",
    "2024-02-29 12:34:56.123456789",
    "2024-02-29 12:34",
    "2024-02-29 1:2:3",
    "2024-02-29",
    "2024-02",
    "2024",
    "2024-02-29 24:00:00",
    "2024-02-29 23:60:00",
    "2024-02-29 23:59:60",
    "2023-02-29 00:00:00",
    "2024-02-29 12:34:56Z",
    "2024-02-29 12:34:56+01:00",
    "2024-02-29 12:34:56 +05:30",
    "2024-02-29 12:34:56-18:00",
    "2024-02-29 12:34:56+19:00",
    "2024-02-29 12:34:56 UTC",
    "2024-02-29T12:34:56.5Z",
    "  2024-02-29 00:00:00  ",
    "0001-01-01 00:00:00",
    "9999-12-31 23:59:59.999999",
    "abc",
    "2024-02-29 12:34:56.",
    "2024-02-29 12:34:56x",
    "2024-02-29  12:34:56",
    "2024-02-29 12:34:56+1:00",
    "2024-02-29T",
    "2024-02-29 ",
]
DATES = [
    None,
    *_days(
        "1970-01-01",
        "1969-12-31",
        "2024-02-29",
        "2023-02-28",
        "2024-01-31",
        "2024-12-31",
        "2023-01-01",
        "2000-02-29",
        "1900-03-01",
        "0001-01-01",
        "9999-12-31",
        "2021-01-03",
        "2020-12-31",
        "1582-10-15",
        "2024-03-31",
        "2026-01-01",
    ),
]
TIMES = [
    None,
    *_times(
        "1970-01-01T00:00:00",
        "1969-12-31T23:59:59.999999",
        "2024-02-29T12:34:56.789012",
        "2024-12-31T23:59:59",
        "0001-01-01T00:00:00",
        "9999-12-31T23:59:59.999999",
        "2000-01-01T00:00:00",
        "1969-07-20T20:17:40.5",
        "2021-01-03T06:07:08.000001",
        "1582-10-15T00:00:00",
        "2024-03-31T01:59:59",
        "1900-02-28T23:00:00.1",
    ),
]
FLAGS = [None, True, False]

_random = random.Random(20260423)


def _chance(values: list[Any], share: float = 0.08) -> Any:
    return None if _random.random() < share else _random.choice(values)


def _random_text() -> str:
    alphabet = "abcXYZ 0189,._-%\\'\"\n\téßΣσİ👧e\u0301日\u200d"
    return "".join(_random.choice(alphabet) for _ in range(_random.randrange(0, 9)))


def _random_double() -> float:
    kind = _random.random()
    if kind < 0.5:
        return round(_random.uniform(-1000, 1000), _random.randrange(0, 6))
    return _random.uniform(-1, 1) * 10 ** _random.randrange(-12, 25)


def _random_row() -> list[Any]:
    day = EPOCH + dt.timedelta(days=_random.randrange(-50_000, 50_000))
    time = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=_random.randrange(-(2**51), 2**52))
    small = _random.random() < 0.7
    return [
        _chance([_random.randrange(-20, 20) if small else _random.randrange(-(2**31), 2**31)]),
        _chance([_random.randrange(-20, 20) if small else _random.randrange(-(2**63), 2**63)]),
        _chance([_random_double()]),
        _chance(
            [
                Decimal(
                    _random.randrange(-(10**12) + 1, 10**12) if not small else _random.randrange(-5000, 5000)
                ).scaleb(-2)
            ]
        ),
        _chance([_random_text()]),
        _chance([_random_text()[:2]]),
        _chance([day]),
        _chance([time]),
        _chance([True, False]),
    ]


DOMAINS: dict[str, tuple[list[tuple[str, str]], list[list[Any]]]] = {
    "ints": ([("a", "int"), ("b", "int")], _cross(INTS, INTS)),
    "longs": ([("a", "bigint"), ("b", "bigint")], _cross(LONGS, LONGS)),
    "smalls": (
        [("a", "tinyint"), ("b", "smallint"), ("i", "int"), ("f", "float")],
        _zip(
            [None, 0, 1, -1, 127, -128, 7],
            [None, 1, 32767, -32768, 0, 5],
            [1, None, 100, -200, 40000, 2**31 - 1, 0, -1, -129, 128, 32768],
            [1.5, None, -2.5, 1e10, INF, NAN, 0.1, -0.0, 3e38, 127.9, -128.9, 16777216.0, 2147483648.0],
        ),
    ),
    "doubles": (
        [("x", "double"), ("y", "double")],
        [
            *_zip(DOUBLES, [*DOUBLES[3:], 3.0, -3.0, 0.0]),
            [0.0, 0.0],
            [-0.0, 0.0],
            [NAN, NAN],
            [INF, NAN],
            [1.0, 0.0],
            [NAN, 0.0],
            [2.0, 10.0],
            [2.0, 0.5],
            [-8.0, 3.0],
            [-8.0, 0.5],
            [None, 0.0],
            [5.5, 2.0],
            [-5.5, 2.0],
            [5.5, -2.0],
            [INF, 2.0],
            [5.0, INF],
            [0.285, 1.0],
            [1.115, 1.0],
            [-1.005, 2.0],
            [0.5, 0.0],
            [4.35, 1.0],
            [1e16, 1.0],
        ],
    ),
    "decimals": ([("m", "decimal(12,2)"), ("n", "decimal(10,4)")], _cross(MONEY, RATES)),
    "wide": (
        [("w", "decimal(38,2)"), ("v", "decimal(38,2)"), ("z", "decimal(20,0)")],
        _zip(
            WIDE,
            WIDE[1:] + WIDE[2:4],
            [
                None,
                Decimal(0),
                Decimal(99999999999999999999),
                Decimal(-5),
                Decimal(9223372036854775807),
                Decimal(9223372036854775808),
                Decimal(-9223372036854775808),
            ],
        ),
    ),
    "mixed": (
        [
            ("i", "int"),
            ("l", "bigint"),
            ("x", "double"),
            ("m", "decimal(12,2)"),
            ("s", "string"),
            ("d", "date"),
            ("t", "timestamp"),
            ("p", "boolean"),
        ],
        _zip(INTS, LONGS[:8], DOUBLES, MONEY, TEXTS, DATES, TIMES, FLAGS),
    ),
    "flags": ([("p", "boolean"), ("q", "boolean")], _cross(FLAGS, FLAGS)),
    "texts": (
        [("s", "string"), ("u", "string"), ("n", "int")],
        [
            *_zip(TEXTS, [*PARTS, "lo"], [0, 1, 2, 3, -1, -2, 5, 100, -100, None, I_MAX, -I_MAX - 1, 4]),
            ["abc", "", 1],
            ["", "", 1],
            ["a,b", ",", 2],
            ["👧x", "x", 2],
        ],
    ),
    "numerals": ([("s", "string")], [[text] for text in NUMERALS]),
    "words": ([("s", "string")], [[text] for text in WORDS]),
    "date_texts": ([("s", "string")], [[text] for text in DATE_TEXTS]),
    "time_texts": ([("s", "string")], [[text] for text in TIME_TEXTS]),
    "dates": (
        [("d", "date"), ("e", "date"), ("n", "int")],
        _zip(DATES, DATES[3:] + DATES[:4], [0, 1, -1, 12, 13, -13, None, 31, 365, -1200, 100_000]),
    ),
    "times": ([("t", "timestamp"), ("u", "timestamp")], _zip(TIMES, TIMES[2:] + TIMES[:3])),
    "numbers_to_times": (
        [("l", "bigint"), ("i", "int")],
        _zip(
            [
                None,
                0,
                1,
                -1,
                1_700_000_000,
                -62135596800,
                253402300799,
                1_700_000_000_123_456,
                L_MAX - 1,
                -L_MAX - 1,
                9223372036854,
                9223372036855,
            ],
            [0, None, 19_000, -719162, 2932896, -1],
        ),
    ),
    "day_parts": (
        [("y", "int"), ("m", "int"), ("d", "int")],
        [
            [2024, 2, 29],
            [2023, 2, 29],
            [None, 1, 1],
            [2024, None, 1],
            [2024, 1, None],
            [2024, 0, 1],
            [2024, 13, 1],
            [2024, 4, 31],
            [1, 1, 1],
            [9999, 12, 31],
            [0, 1, 1],
            [2000, 2, 29],
            [1900, 2, 29],
            [-1, 1, 1],
            [2024, 12, 0],
        ],
    ),
    "arrays": (
        [("a", "array<int>"), ("b", "array<string>"), ("i", "int"), ("s", "string")],
        _zip(
            [None, [], [1], [1, 2, 3], [None], [3, None, 1], [7, 7]],
            [["a", "b"], None, [], [None, "x"], ["a", None, "a"], ["", "é"], ["a"], ["b", "a"]],
            [0, 1, 2, 3, -1, -3, 4, -4, None, I_MAX],
            ["a", "x", None, "", "é"],
        )
        + [[[1, 2, 3], ["a"], i, "a"] for i in (1, 3, -3, -1, 0, 2, None)],
    ),
    "nested": (
        [
            ("a", "array<int>"),
            ("c", "array<int>"),
            ("b", "array<string>"),
            ("m", "map<string,int>"),
            ("w", "map<string,int>"),
            ("q", "struct<c:int,v:string>"),
            ("z", "array<struct<k:string,n:int>>"),
            ("r", "array<array<int>>"),
            ("i", "int"),
            ("s", "string"),
        ],
        _zip(
            [None, [], [1], [1, 2, 3], [None], [3, None, 1], [7, 7], [I_MAX, 1], [5, 3, 5, None, 3, None, 1]],
            [[1, 2], [None], None, [], [2, None], [3, 3, 1], [7]],
            [["a", "b"], None, [], [None, "x"], ["a", None, "a"], ["", "é", "z"], ["b", "a"]],
            [None, [], [("a", 1)], [("b", 2), ("a", None)], [("é", -1), ("", 0), ("c", I_MAX)]],
            [[("z", 9)], [], [("a", 5)], None, [("k", None), ("l", 1)], [("b", 1)]],
            [{"c": 1, "v": "x"}, None, {"c": None, "v": None}, {"c": -5, "v": "é"}],
            [
                [{"k": "a", "n": 1}, {"k": "b", "n": None}],
                None,
                [],
                [{"k": "a", "n": 1}, None],
                [{"k": None, "n": 1}],
                [{"k": "a", "n": 1}, {"k": "a", "n": 2}],
                [{"k": "", "n": 0}],
            ],
            [[[1], [2, 3]], None, [], [[1], None], [[], [None]], [[]]],
            [0, 1, 2, 3, -1, -3, 4, None, I_MAX],
            ["a", "b", None, "", "é", "a,b", "k:v"],
        ),
    ),
    "spans": (
        [("i", "int"), ("j", "int"), ("k", "int"), ("l", "bigint")],
        _zip(
            [None, 0, 1, 5, -3, 10],
            [3, 0, None, 5, 2, 90, -7],
            [1, 2, -1, 0, None, 3, -2, I_MAX],
            [0, 1, None, L_MAX - 2, L_MAX - 1, -L_MAX - 1, 4],
        ),
    ),
    "pairs_text": (
        [("s", "string")],
        [
            [x]
            for x in (
                None,
                "",
                "a:1",
                "a:1,b:2",
                "a:1,a:2",
                "a",
                "a:",
                ":1",
                "a:1:2,é:ü",
                ",",
                "a=1;b=2",
                "a:1,",
                "b:2,a:1",
            )
        ],
    ),
    "json_texts": (
        [("s", "string")],
        [
            [x]
            for x in (
                None,
                "",
                " ",
                "{}",
                "[]",
                "null",
                "1",
                '"a"',
                '{"a": 1}',
                '{"a": "x", "b": {"c": [1, 2, {"d": null}]}}',
                '{"a": 1.5}',
                '{"a": "👧"}',
                '{"a": 1.50, "b": -0.25}',
                '{"a": true, "b": false}',
                '{"a": null}',
                '{"a": [1, "x", null, {"b": 2}]}',
                '{"a": {"b": "é", "n": "\\u00e9\\n\\t\\"q\\" \\/ \\u0001"}}',
                "[1, 2, 3]",
                '[[1], {"a": 2}]',
                '[{"a": 1}, {"a": 2}]',
                '{"a": 1',
                '{"a": 1,}',
                "[1, 2,]",
                "[1, 2",
                '{"a" 1}',
                "{a: 1}",
                "abc",
                '{"a": NaN}',
                "[1 2]",
                '{"a": 12345678901234567890123}',
                ' {"a" : 7 } ',
                '{"A": 1}',
                '{"a": ""}',
                '{"a": "12"}',
                '{"": 1}',
                '{"a b": 1, "a": 3}',
                '{"a": 0.001}',
                '{"a": 123456.789}',
                '{"a":-5}',
                '{"a": 1e2}',
                '{"b": {"c": []}}',
                '{"b": {"c": {}}}',
                '{"b": [1]}',
                '{"a": 01}',
                "tru",
                "[,]",
                "{,}",
            )
        ],
    ),
    "bytes": (
        [("y", "binary"), ("s", "string")],
        _zip(
            [None, b"", b"abc", "é👧".encode(), b"\xff", b"\xc3\x28", b"\x00\x01", b"\xed\xa0\x80"],
            ["616263", "zz", "F", "", None, "c3A9", "0x", " 61", "é"],
        ),
    ),
    "clocks": (
        [
            ("y", "int"),
            ("m", "int"),
            ("d", "int"),
            ("h", "int"),
            ("n", "int"),
            ("s", "decimal(8,6)"),
            ("t", "timestamp"),
            ("u", "timestamp"),
            ("l", "bigint"),
        ],
        _zip(
            [2024, 2023, None, 1, 9999, 2024, 0, -1],
            [2, 12, 1, 13, 6, None, 2],
            [29, 31, 1, 30, 0],
            [0, 23, 24, 12, None, -1],
            [0, 59, 60, 30],
            [
                Decimal("0.000000"),
                Decimal("59.999999"),
                Decimal("60.000000"),
                Decimal("60.000001"),
                None,
                Decimal("1.500000"),
                Decimal("-1.000000"),
            ],
            [
                *TIMES,
                *_times(
                    "2024-01-31T10:00:00", "2024-02-29T09:59:59.999999", "2024-02-29T10:00:00", "2023-03-31T00:00:00"
                ),
            ],
            [
                *TIMES[4:],
                *_times("2024-02-29T09:00:00", "2024-01-31T10:00:00", "2025-02-28T10:00:00", "2023-01-30T23:00:00"),
                *TIMES[:4],
            ],
            [0, 1, -1, None, 13, -25, 100_000, 1_700_000_000, -62135596801, 253402300800, L_MAX, -L_MAX - 1],
        )
        + [
            [2024, 2, 29, h, n, Decimal(str(x)), TIMES[3], TIMES[4], 7]
            for h, n, x in ((0, 0, "0"), (23, 59, "60"), (23, 59, "59.5"), (0, 0, "60.5"))
        ],
    ),
    "patterned": (
        [("s", "string")],
        [
            [x]
            for x in (
                None,
                "",
                "2024-02-29",
                "2023-02-29",
                "29/02/2024",
                "29.02.2024",
                "2024-2-9",
                "20240229",
                "2024-02-29 12:34:56",
                "2024-02-29T12:34:56",
                "2024-02-29 12:34:56.789",
                "2024-02-29 12:34:56.123456",
                "12:34",
                "2024",
                " 2024-02-29",
                "2024-02-29 ",
                "2024-13-01",
                "2024-02-29 24:00:00",
                "2024-02-29 12:60:00",
                "9/2/2024",
                "09/02/2024",
                "2/29/2024",
                "0001-01-01",
                "0000-01-01",
                "9999-12-31",
                "02024-02-29",
                "2024-02-29 1:2:3",
                "abc",
                "2024-04-31",
                "2024-02-29 00:00:00",
            )
        ],
    ),
    "random": (
        [
            ("i", "int"),
            ("l", "bigint"),
            ("x", "double"),
            ("m", "decimal(12,2)"),
            ("s", "string"),
            ("u", "string"),
            ("d", "date"),
            ("t", "timestamp"),
            ("p", "boolean"),
        ],
        [_random_row() for _ in range(120)],
    ),
}

DOMAINS["composed"] = (
    [
        ("i", "int"),
        ("j", "int"),
        ("l", "bigint"),
        ("x", "double"),
        ("m", "decimal(12,2)"),
        ("s", "string"),
        ("u", "string"),
        ("d", "date"),
        ("t", "timestamp"),
        ("p", "boolean"),
        ("a", "array<int>"),
        ("b", "array<string>"),
        ("w", "map<string,int>"),
    ],
    _zip(
        [3, 0, None, -2, 12, 1, 7, -20, 25],
        [1, 5, -4, None, 2, 0, 9],
        [0, 4, None, -9, 1_000_000, 77, -1, 5_000_000_000],
        [1.5, -0.25, None, 100.75, 0.0, NAN, -3.0, 2.5, INF, 1e9, 12.125],
        [Decimal("1.25"), Decimal("-3.50"), None, Decimal("0.00"), Decimal("99.99"), Decimal("2.05")],
        ["abc", "a,b", "", None, "Hello X", "12", "ÀÉß", "k=1;z=22", "👧a", "  pad ", "2024-02-29"],
        ["a", "X", None, "b", ",", "é", "7"],
        [*DATES[1:8], None, *DATES[12:17]],
        [*TIMES[1:5], None, *TIMES[7:10], *TIMES[11:]],
        FLAGS,
        [[1, 2, 3], [], None, [None, 5], [7, 7, -1], [0], [4, None, 4]],
        [["a", "b"], None, ["x"], [], [None, "é"], ["b", "a", "b"]],
        [[("a", 1)], [], None, [("k", 2), ("a", None)], [("b", -5), ("é", 0)]],
    )[:11]
    + [
        [1, 2, 3, 0.5, Decimal("7.00"), "plain", "n", DATES[3], TIMES[3], True, [1], ["a"], [("a", 1)]]
        for _ in range(1)
    ],
)

GROUPS: tuple[list[tuple[str, str]], list[list[Any]]] = (
    [
        ("g", "string"),
        ("i", "int"),
        ("l", "bigint"),
        ("x", "double"),
        ("m", "decimal(12,2)"),
        ("s", "string"),
        ("d", "date"),
        ("t", "timestamp"),
        ("p", "boolean"),
    ],
    [
        [
            "plain",
            _random.randrange(-1000, 1000),
            _random.randrange(-(2**40), 2**40),
            _random_double(),
            Decimal(_random.randrange(-99999, 99999)).scaleb(-2),
            *_random_row()[4:5],
            *_random_row()[6:],
        ]
        for _ in range(40)
    ]
    + [["nulls", None, None, None, None, None, None, None, None] for _ in range(3)]
    + [["one", 7, 8, 0.5, Decimal("1.25"), "é", DATES[3], TIMES[3], True]]
    + [["big", I_MAX, L_MAX, 1e308, Decimal("9999999999.99"), "z", DATES[11], TIMES[6], False] for _ in range(3)]
    + [
        ["signed", -1, L_MAX, -0.0, Decimal("-0.01"), "", DATES[10], TIMES[5], None],
        ["signed", 1, -5, NAN, Decimal("0.02"), "a", None, None, True],
        ["signed", 0, None, INF, Decimal("0.02"), "Z", DATES[1], TIMES[2], False],
    ]
    + [
        ["thirds", 1, 1, 1.0, Decimal("0.01"), "a", None, None, True],
        ["thirds", 0, 1, 1.0, Decimal("0.00"), "a", None, None, True],
        ["thirds", 0, 0, 0.0, Decimal("0.00"), "b", None, None, True],
    ],
)

QUERY_TABLES: dict[str, tuple[list[tuple[str, str]], list[list[Any]]]] = {
    "silver.flights": (
        [("id", "int"), ("carrier", "string"), ("delay", "int"), ("cost", "decimal(12,2)"), ("miles", "double")],
        [
            [1, "AA", 10, Decimal("1.50"), 100.0],
            [2, "AA", 20, Decimal("2.25"), 250.5],
            [3, "BB", 0, Decimal("7.00"), None],
            [4, None, 5, Decimal("8.00"), 10.0],
            [5, "CC", None, None, 77.0],
            [6, "AA", 10, Decimal("1.50"), 1.0],
            [7, "BB", -4, Decimal("0.01"), 3.5],
            [8, "DD", 30, Decimal("100.00"), 0.0],
        ],
    ),
    "silver.carriers": (
        [("carrier", "string"), ("name", "string"), ("rank", "bigint")],
        [["AA", "American", 1], ["BB", "Blue", 2], ["EE", "Echo", None], [None, "Nobody", 9], ["BB", "Bleu", 3]],
    ),
}


def read_cases() -> dict[str, list[str]]:
    """The expressions of `function_cases.txt` by input table, and the composed ones.

    `aggregates` and `queries` are two of the tables.
    """
    cases: dict[str, list[str]] = {}
    name = ""
    for line in Path(__file__).with_suffix(".txt").read_text("utf-8").splitlines():
        if line.startswith("[") and line.endswith("]"):
            name = line[1:-1]
        elif line and not line.startswith("#"):
            cases.setdefault(name, []).append(line.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\"))
    cases["composed"] = expressions(seed=20261127, count=220)
    return cases
