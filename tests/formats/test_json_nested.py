"""Records of any shape and nesting: the fast forms decode exactly what the exact path decodes."""

import json
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestream.formats._lines import split_lines
from lodestream.formats.json import JsonFormat, JsonSettings
from lodestream.model.types import Column, DataType, Schema, parse_type
from lodestream.native import KERNELS
from lodestream.ports.source import Reading
from tests.native import FORMS, needs_native

LEAVES = [
    "boolean", "tinyint", "smallint", "int", "bigint", "float", "double", "string", "binary", "date", "timestamp",
    "decimal(5,2)", "decimal(38,0)", "decimal(38,38)", "decimal(20,10)",
]  # fmt: skip
GOOD = {
    "boolean": ["true", "false"],
    "tinyint": ["1", "-128", "127"],
    "smallint": ["0", "32767"],
    "int": ["-2147483648", "5"],
    "bigint": ["123456789012345678", "-9223372036854775808", "9223372036854775807", "7", "-0"],
    "float": ["0.1", "1", "-3.4e38", "1e-50"],
    "double": ["0.1", "1.7976931348623157e308", "-0.0", "-0", "5e-324", "1e22", "123456789012345678901", "1E+2", "0e0",
               "0.30000000000000004", "9007199254740993", "2.2250738585072011e-308"],
    "string": ['"x"', '""', r'"\n\u00e9\ud83d\ude00\/"', '"é\U0001f600"', '"seven b"', '"exactly eight"', r'"a\\"'],
    "binary": ['"AAEC"', '"AA=="', '"AAA="', '""', '"+/+/"'],
    "date": ['"2024-02-29"', '"1900-03-01"', '"0001-01-01"'],
    "timestamp": ['"2024-02-29T01:02:03.5Z"', '"1969-12-31 23:59:59.999999+05:30"', '"2000-01-01T00:00:00-0130"'],
    "decimal(5,2)": ["1.25", '"007.5"', "-0.00", "999.99", '"-1"'],
    "decimal(38,0)": ["99999999999999999999999999999999999999", "-1", '"12345678901234567890"'],
    "decimal(38,38)": ["0.12345678901234567890123456789012345678", "0"],
    "decimal(20,10)": ["1234567890.0123456789", "1.5"],
}  # fmt: skip
ODD = [
    "null", "1.0", '"1"', "[]", "{}", "1e3", "-", "01", "+1", r'"\ud800"', '"a\tb"', '"AA"', '"AB=="', "128",
    "1e999",
    "1000.00", "1.005", '"1e2"', '"."', "tru", "nul", "NaN", '"2023-02-29"', '"2024-01-01T24:00:00Z"', '"\\x"',
    '"2024-01-01T00:00:00.1234567Z"', '"2024-01-01T00:00:00.1234560Z"', '"2024-01-01T00:00:00+1:00"', "1.", ".5",
    '"\\u12"', '"open', "9223372036854775808", '{"a":1,"a":2}', "[1,]",
    '{"a":1,}', "[null]", '{"k":null}',
]  # fmt: skip


def random_type(draw, depth):
    kind = draw.random()
    if depth == 0 or kind < 0.55:
        return parse_type(draw.choice(LEAVES))
    if kind < 0.7:
        return DataType("array", element=random_type(draw, depth - 1))
    if kind < 0.8:
        return DataType("map", key=parse_type("string"), element=random_type(draw, depth - 1))
    names = draw.sample(["a", "b", "é", "k", "a b", "_x"], draw.randint(1, 4))
    return DataType("struct", fields=tuple(Column(n, random_type(draw, depth - 1)) for n in names))


def written(draw, kind, odd):
    """Text of a value of the type, or of something else."""
    if draw.random() < odd:
        return draw.choice(ODD)
    space = draw.choice(["", "", "", " ", "\t\r"])
    if kind.name == "array":
        items = [written(draw, kind.element, odd) for _ in range(draw.randint(0, 3))]
        return f"[{space}{(space + ',').join(items)}{space}]"
    if kind.name == "map":
        keys = [json.dumps(f"k{i}é"[: draw.randint(1, 3)], ensure_ascii=draw.random() < 0.2) for i in range(3)]
        pairs = [f"{key}:{written(draw, kind.element, odd)}" for key in keys[: draw.randint(0, 3)]]
        return "{" + ",".join(pairs) + "}"
    if kind.name == "struct":
        return record(draw, kind.fields, odd)
    return draw.choice(GOOD[str(kind)]) if draw.random() > 0.05 else "null"


def record(draw, columns, odd):
    fields = [f'"{c.name}"' + draw.choice([":", " : "]) + written(draw, c.type, odd) for c in columns]
    fields = [field for field in fields if draw.random() > 0.05]
    if draw.random() < 0.1:
        draw.shuffle(fields)
    if draw.random() < odd:
        fields.append(draw.choice(['"a":1', '"new":[1]', fields[0] if fields else '"x"', '"é":null']))
    return "{" + draw.choice([",", ", "]).join(fields) + "}"


def check(seed, kernels, messages):
    draw = random.Random(seed)
    columns = tuple(Column(f"c{i}", random_type(draw, 3), draw.random() < 0.8) for i in range(draw.randint(1, 6)))
    odd = draw.choice([0, 0.002, 0.05])
    lines = [record(draw, columns, odd).encode() for _ in range(draw.choice([1, 40, 120]))]
    for i in range(len(lines)):
        if draw.random() < odd:
            changed = bytearray(lines[i])
            changed[draw.randrange(len(changed))] = draw.choice(b'"\\\x00\xff,{}[]0')
            lines[i] = bytes(changed)
    options = {"timestamps": draw.choice(["iso", "iso", "millis"]), "depth_max": draw.choice([2, 64])}
    reading = Reading(Schema(columns), draw.random() < 0.3, draw.choice(["quarantine", "add", "widen"]), "/")
    found = []
    for fast in (True, False):
        decoder = JsonFormat(JsonSettings(**options), reading, fast=fast, kernels=kernels)
        for _ in range(2):
            if messages:
                positions = np.arange(len(lines), dtype=np.int64)
                found.append(decoder.decode_messages(pa.array(lines, pa.binary()), "u", positions))
            else:
                found.append(decoder.decode(b"\n".join(lines), "u", 0))
    for got in found[:-1]:
        got.rows.validate(full=True)
        assert got.rows.equals(found[-1].rows)
        assert repr(got.rows.to_pylist()) == repr(found[-1].rows.to_pylist())  # tells -0.0 from 0.0
        assert got.rejects.equals(found[-1].rejects)
        assert got.found == found[-1].found


@pytest.mark.parametrize("kernels", FORMS)
@pytest.mark.parametrize("messages", [False, True], ids=["lines", "messages"])
def test_the_fast_form_decodes_what_the_exact_path_decodes(kernels, messages):
    for seed in range(120):
        check(seed, kernels, messages)


@pytest.mark.long
@pytest.mark.parametrize("kernels", FORMS)
@pytest.mark.parametrize("start", range(1000, 21_000, 1000))
def test_the_fast_form_decodes_what_the_exact_path_decodes_on_many_streams(kernels, start):
    for seed in range(start, start + 1000):
        check(seed, kernels, seed % 2 == 0)


@needs_native
@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([b"\n", b"\r\n", b" ", b"\t", b"\r", b"x", b"yz"]), max_size=30).map(b"".join))
def test_lines_are_cut_alike(data):
    block = np.frombuffer(data, np.uint8)
    for portable, native in zip(split_lines(block), KERNELS.split_lines(block), strict=True):
        assert portable.tolist() == np.frombuffer(native, np.int64).tolist()


@pytest.mark.parametrize("kernels", FORMS)
def test_a_map_of_no_text_is_left_to_the_exact_path(kernels):
    schema = Schema((Column("m", parse_type("map<int,int>")), Column("id", parse_type("int"))))
    decoder = JsonFormat(JsonSettings(), Reading(schema, False, "quarantine", "/"), kernels=kernels)
    assert decoder.decode(b'{"id":1}\n' * 50, "u", 0).rows["id"].to_pylist() == [1] * 50
