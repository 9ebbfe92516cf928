"""Random lines of mostly good records: what a fast path must not get wrong."""

from __future__ import annotations

import random

from lodestream.model.types import Column, Schema, parse_type

_VALUES: dict[str, tuple[str, bool, list[str], list[str]]] = {
    "a": ("bigint", True, ["1", "-5", "0", "-0", "123456789012345678", "9223372036854775807", "null"],
          ['"1"', "1.0", "01", "1e3", "9223372036854775808", "-", "--1", "1-2", "true", "+1", " 1", "0x1F"]),
    "b": ("string", True, ['""', '"x"', '"héllo"', '"' + "long " * 30 + '"', '"{,}"'],
          ["5", "null", r'"a\"b"', r'"\ud800"', '"\t"', "[1]"]),
    "c": ("double", True, ["1.5", "-0.0", "0", "3", "123456.789", "5e-3", "null"],
          ["NaN", "1e400", ".5", "1.", "01.5", "-", "1..5", "1.-5", "Infinity", "1.5.5", '"1"', "1-5", "inf"]),
    "d": ("decimal(10,2)", True, ["1.5", "0", "12345678.12", "-0.01", "1.500", "null"],
          ["123456789.1", "1.005", '"1.25"', "1e2", "1.", "-.5", "99999999999999999999"]),
    "t": ("timestamp", True, ['"2024-02-29T23:59:59Z"', '"2024-01-01T00:00:00.123Z"', '"2024-01-01 00:00:00"', "12"],
          ['"2023-02-29T00:00:00Z"', '"2024-01-01"', '"2024-01-01T24:00:00Z"', '"0000-01-01T00:00:00Z"', '""', "1.5",
           '"2024-01-01T00:00:60Z"', '"2024-01-01T00:00:00.1234567Z"', '"2024-01-01T00:00:00.1234560Z"', "null",
           '"2024-13-01T00:00:00Z"', '"0001-01-01T00:00:00+01:00"', '"2024-01-01T00:00:00-0130"', "99999999999999999"]),
    "k": ("date", True, ['"2024-02-29"', '"1969-12-31"'],
          ['"2023-02-29"', '"2024-1-1"', '"0000-01-01"', '"0001-01-01"', '"9999-12-31"', "null", '""']),
    "o": ("boolean", True, ["true", "false", "null"], ["True", "1", '"true"']),
    "s": ("struct<x:int,y:string,z:struct<w:date>>", True, ['{"x":1,"y":"q","z":{"w":"2024-01-01"}}'],
          ["null", "{}", '{"x":1}', '{"x":"1"}', '{"x":1,"x":2}', '{"z":null}', '{"y":"q","zz":1}', "5", "[]"]),
    "f": ("float", True, ["1.5", "0.1"], ["1e39", "3.4028236e38", "1e400"]),
    "i": ("smallint", True, ["1", "-32768"], ["32768", "-32769"]),
    "n": ("string", False, ['"n"'], ["null"]),
    "l": ("array<int>", True, ["null"], ["[1,2]", "[1.5]", "[]"]),
}  # fmt: skip


def messy_schema() -> Schema:
    return Schema(tuple(Column(name, parse_type(kind), null) for name, (kind, null, _, _) in _VALUES.items()))


def messy_lines(chance: random.Random, count: int) -> bytes:
    data = b"".join(_line(chance) + chance.choice([b"\n", b"\n", b"\r\n"]) for _ in range(count))
    data = chance.choice([b"", b"\xef\xbb\xbf"]) + data
    return data if chance.random() < 0.5 else data[:-1]


def _line(chance: random.Random) -> bytes:
    names = list(_VALUES)
    if chance.random() < 0.05:
        names.remove(chance.choice(names))
    if chance.random() < 0.03:
        chance.shuffle(names)
    fields = []
    for name in names:
        _, _, good, bad = _VALUES[name]
        fields.append(f'"{name}":{chance.choice(bad if chance.random() < 0.015 else good)}')
    line = ("{" + (",", ", ")[chance.random() < 0.05].join(fields) + "}").encode()
    if chance.random() < 0.03:
        changed = bytearray(line)
        for _ in range(chance.choice([1, 1, 2])):
            changed[chance.randrange(len(changed))] = chance.choice([34, 92, 0, 255, 13, 44, 125, 123, 65, 195])
        line = bytes(changed)
    if chance.random() < 0.01:
        line += chance.choice([b" ", b"x", b"{}", b",", b"\r"])
    if chance.random() < 0.01:
        line = line[: chance.randrange(len(line))]
    return line if chance.random() < 0.99 else chance.choice([b"", b" ", b"[]", b"{}", b"null", b'"a"'])
