"""Bad and odd JSON records, each with what must become of it: the row's values or its reasons."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from lodestream.model.types import Column, Schema, parse_type

SCHEMA = Schema(
    tuple(
        Column(name, parse_type(kind), nullable)
        for name, kind, nullable in [
            ("id", "bigint", True), ("small", "smallint", True), ("name", "string", True), ("price", "double", True),
            ("money", "decimal(10,2)", True), ("at", "timestamp", True), ("day", "date", True), ("ok", "boolean", True),
            ("tags", "array<int>", True), ("geo", "struct<lat:double,label:string>", True),
            ("map", "map<string,int>", True), ("blob", "binary", True), ("thin", "float", True),
        ]
    )
)  # fmt: skip


def row(**values: object) -> dict[str, object]:
    return {column.name: values.get(column.name) for column in SCHEMA}


def _at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=ZoneInfo("UTC"))  # type: ignore[misc]


DEEP = b'{"id":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
LONG = b'{"id":' + b"9" * 5_000_000 + b"}"

RECORDS: list[tuple[str, bytes, dict[str, object] | list[str]]] = [
    # torn and malformed
    ("torn in a value", b'{"id":1,"name":"ab', ["parse:json"]),
    ("torn in a key", b'{"id":1,"na', ["parse:json"]),
    ("torn after a colon", b'{"id":', ["parse:json"]),
    ("tail of a record", b'me":"x"}', ["parse:json"]),
    ("trailing garbage", b'{"id":1} x', ["parse:json"]),
    ("two records in one line", b'{"id":1}{"id":2}', ["parse:json"]),
    ("trailing comma", b'{"id":1,}', ["parse:json"]),
    ("missing comma", b'{"id":1 "name":"x"}', ["parse:json"]),
    ("single quotes", b"{'id':1}", ["parse:json"]),
    ("comment", b'{"id":1 /* x */}', ["parse:json"]),
    ("unquoted key", b"{id:1}", ["parse:json"]),
    ("nan", b'{"price":NaN}', ["parse:json"]),
    ("infinity", b'{"price":Infinity}', ["parse:json"]),
    ("minus infinity", b'{"price":-Infinity}', ["parse:json"]),
    ("leading zero", b'{"id":01}', ["parse:json"]),
    ("plus sign", b'{"id":+1}', ["parse:json"]),
    ("bare point", b'{"price":.5}', ["parse:json"]),
    ("nothing after the point", b'{"price":5.}', ["parse:json"]),
    ("two points", b'{"price":1.2.3}', ["parse:json"]),
    ("minus alone", b'{"id":-}', ["parse:json"]),
    ("minus inside", b'{"id":1-2}', ["parse:json"]),
    ("hexadecimal", b'{"id":0x1F}', ["parse:json"]),
    ("python true", b'{"ok":True}', ["parse:json"]),
    ("control byte in text", b'{"name":"a\x01b"}', ["parse:json"]),
    ("tab in text", b'{"name":"a\tb"}', ["parse:json"]),
    ("nul byte in text", b'{"name":"a\x00b"}', ["parse:json"]),
    ("nul byte outside", b'{"id":1}\x00', ["parse:json"]),
    ("bad escape", b'{"name":"\\x41"}', ["parse:json"]),
    ("byte order mark inside", b'\xef\xbb\xbf{"id":1}', ["parse:json"]),
    ("binary", bytes(range(128, 160)), ["parse:utf8"]),
    ("invalid utf-8", b'{"name":"\xff"}', ["parse:utf8"]),
    ("cut utf-8", b'{"name":"\xc3"}', ["parse:utf8"]),
    ("overlong utf-8", b'{"name":"\xc0\xaf"}', ["parse:utf8"]),
    ("surrogate as utf-8", b'{"name":"\xed\xa0\x80"}', ["parse:utf8"]),
    ("invalid utf-8 in a key", b'{"\xff":1}', ["parse:utf8"]),
    ("lone surrogate escape", b'{"name":"\\ud800"}', ["parse:name:utf8"]),
    ("an array", b"[1]", ["parse:object"]),
    ("a number", b"1", ["parse:object"]),
    ("a text", b'"x"', ["parse:object"]),
    ("null", b"null", ["parse:object"]),
    ("duplicate key", b'{"id":1,"id":2}', ["parse:duplicate_key"]),
    ("duplicate key, same value", b'{"id":1,"id":1}', ["parse:duplicate_key"]),
    ("duplicate key by escape", b'{"id":1,"\\u0069d":2}', ["parse:duplicate_key"]),
    ("duplicate key inside", b'{"geo":{"lat":1.0,"lat":2.0}}', ["parse:duplicate_key"]),
    ("deep", DEEP, ["parse:depth"]),
    ("65 deep", b'{"id":' + b"[" * 64 + b"]" * 64 + b"}", ["parse:depth"]),
    ("open brackets only", b"[" * 100_000, ["parse:depth"]),
    ("brackets in text are not deep", b'{"name":"' + b"[" * 100 + b'"}', row(name="[" * 100)),
    # wrong types
    ("text for a number", b'{"id":"1"}', ["parse:id:type"]),
    ("fraction for a whole number", b'{"id":1.5}', ["parse:id:type"]),
    ("fraction that is whole", b'{"id":1.0}', ["parse:id:type"]),
    ("exponent for a whole number", b'{"id":1e3}', ["parse:id:type"]),
    ("true for a number", b'{"id":true}', ["parse:id:type"]),
    ("object for a number", b'{"id":{}}', ["parse:id:type"]),
    ("number for text", b'{"name":5}', ["parse:name:type"]),
    ("true for text", b'{"name":true}', ["parse:name:type"]),
    ("object for text", b'{"name":{"a":1}}', ["parse:name:type"]),
    ("text for a double", b'{"price":"1.5"}', ["parse:price:type"]),
    ("number for a truth", b'{"ok":1}', ["parse:ok:type"]),
    ("text for a truth", b'{"ok":"true"}', ["parse:ok:type"]),
    ("number for a timestamp", b'{"at":1700000000}', ["parse:at:type"]),
    ("number for an array", b'{"tags":1}', ["parse:tags:type"]),
    ("text in an array", b'{"tags":[1,"2"]}', ["parse:tags:type"]),
    ("number for a struct", b'{"geo":1}', ["parse:geo:type"]),
    ("wrong type in a struct", b'{"geo":{"lat":"1"}}', ["parse:geo.lat:type"]),
    ("two wrong columns", b'{"id":"1","name":2}', ["parse:id:type", "parse:name:type"]),
    # ranges
    ("bigint's end", b'{"id":9223372036854775807}', row(id=(1 << 63) - 1)),
    ("past bigint's end", b'{"id":9223372036854775808}', ["parse:id:range"]),
    ("bigint's start", b'{"id":-9223372036854775808}', row(id=-(1 << 63))),
    ("five million digits", LONG, ["parse:id:range"]),
    ("past smallint's end", b'{"small":32768}', ["parse:small:range"]),
    ("1e400", b'{"price":1e400}', ["parse:price:range"]),
    ("400 digits as a double", b'{"price":' + b"9" * 400 + b"}", ["parse:price:range"]),
    ("1e-400 is zero", b'{"price":1e-400}', row(price=0.0)),
    ("past float's end", b'{"thin":1e39}', ["parse:thin:range"]),
    ("minus zero, whole", b'{"id":-0}', row(id=0)),
    ("minus zero", b'{"price":-0.0}', row(price=-0.0)),
    ("2^53+1 stays exact", b'{"id":9007199254740993}', row(id=9007199254740993)),
    ("money is exact", b'{"money":12345678.91}', row(money=Decimal("12345678.91"))),
    ("money as text is exact", b'{"money":"0.10"}', row(money=Decimal("0.10"))),
    ("money with too many cents", b'{"money":0.105}', ["parse:money:range"]),
    ("money too big", b'{"money":123456789.00}', ["parse:money:range"]),
    ("money with an exponent", b'{"money":1.5e2}', row(money=Decimal("150.00"))),
    ("money as odd text", b'{"money":"1e2"}', ["parse:money:type"]),
    # time
    ("utc", b'{"at":"2024-02-29T23:59:59.123456Z"}', row(at=_at(2024, 2, 29, 23, 59, 59, 123456))),
    ("offset", b'{"at":"2024-01-01T00:00:00+02:00"}', row(at=_at(2023, 12, 31, 22))),
    ("no zone is utc", b'{"at":"2024-01-01 00:00:00"}', row(at=_at(2024, 1, 1))),
    ("no such day", b'{"at":"2023-02-29T00:00:00Z"}', ["parse:at:format"]),
    ("leap second", b'{"at":"2016-12-31T23:59:60Z"}', ["parse:at:format"]),
    ("hour 24", b'{"at":"2024-01-01T24:00:00Z"}', ["parse:at:format"]),
    ("year 0", b'{"at":"0000-01-01T00:00:00Z"}', ["parse:at:format"]),
    ("a date is no timestamp", b'{"at":"2024-01-01"}', ["parse:at:format"]),
    ("nanoseconds", b'{"at":"2024-01-01T00:00:00.123456789Z"}', ["parse:at:precision"]),
    ("nanoseconds of zero", b'{"at":"2024-01-01T00:00:00.123456000Z"}', row(at=_at(2024, 1, 1, 0, 0, 0, 123456))),
    ("wide digits", '{"at":"２024-01-01T00:00:00Z"}'.encode(), ["parse:at:format"]),
    ("empty timestamp", b'{"at":""}', ["parse:at:format"]),
    ("date", b'{"day":"1969-12-31"}', row(day=date(1969, 12, 31))),
    ("short date", b'{"day":"2024-1-1"}', ["parse:day:format"]),
    # good oddities
    ("an empty object", b"{}", row()),
    ("spaces", b' { "id" : 1 , "name" : "x" } ', row(id=1, name="x")),
    ("null values", b'{"id":null,"name":null}', row()),
    ("escapes", b'{"name":"\\u00e9\\n\\"\\/"}', row(name='é\n"/')),
    ("an escaped nul", b'{"name":"a\\u0000b"}', row(name="a\0b")),
    ("a surrogate pair", b'{"name":"\\ud83d\\ude00"}', row(name="😀")),
    ("emoji", '{"name":"😀"}'.encode(), row(name="😀")),
    ("empty text", b'{"name":""}', row(name="")),
    ("nested", b'{"geo":{"lat":1,"label":"x"},"tags":[1,null],"map":{"a":1}}',
     row(geo={"lat": 1.0, "label": "x"}, tags=[1, None], map=[("a", 1)])),
    ("base64", b'{"blob":"AQI="}', row(blob=b"\x01\x02")),
    ("not base64", b'{"blob":"AQ"}', ["parse:blob:format"]),
    # names
    ("unknown key", b'{"id":1,"new":2}', ["drift:new"]),
    ("reserved name", b'{"id":1,"_source":"x"}', ["drift:_source"]),
    ("other case", b'{"ID":1}', ["drift:ID"]),
    ("proto", b'{"__proto__":{}}', ["drift:__proto__"]),
    ("dotted", b'{"geo.lat":1}', ["drift:geo.lat"]),
    ("empty key", b'{"":1}', ["drift:"]),
    ("emoji key", '{"😀":1}'.encode(), ["drift:😀"]),
]  # fmt: skip
