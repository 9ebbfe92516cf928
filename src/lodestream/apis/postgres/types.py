"""PostgreSQL's types: their numbers and names, and which one an Arrow column goes out as."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class PgType:
    """A type as `pg_type` lists it.

    Attributes:
        oid: its number.
        name: its name in `pg_type`.
        size: bytes of a value, -1 when they vary, -2 for a C string.
        category: one letter, as in `pg_type.typcategory`.
        array: number of the type of arrays of it; 0 when there is none.
        element: number of the type of its items, for an array.
        alias: what SQL and `format_type` call it.
        io: stem of its input and output functions.
    """

    oid: int
    name: str
    size: int
    category: str
    array: int = 0
    element: int = 0
    alias: str = ""
    io: str = ""

    @property
    def sql(self) -> str:
        """Its name in SQL."""
        return self.alias or self.name


def _scalar(row: str) -> PgType:
    oid, name, size, category, array, io, *alias = row.split(None, 6)
    return PgType(int(oid), name, int(size), category, int(array), 0, alias[0].strip() if alias else "", io)


_SCALARS = tuple(
    map(
        _scalar,
        """
16 bool 1 B 1000 bool boolean
17 bytea -1 U 1001 bytea
18 char 1 Z 1002 char "char"
19 name 64 S 1003 name
20 int8 8 N 1016 int8 bigint
21 int2 2 N 1005 int2 smallint
22 int2vector -1 A 1006 int2vector
23 int4 4 N 1007 int4 integer
24 regproc 4 N 1008 regproc
25 text -1 S 1009 text
26 oid 4 N 1028 oid
27 tid 6 U 1010 tid
28 xid 4 U 1011 xid
30 oidvector -1 A 1013 oidvector
114 json -1 U 199 json_
142 xml -1 U 143 xml_
700 float4 4 N 1021 float4 real
701 float8 8 N 1022 float8 double precision
705 unknown -2 X 0 unknown
829 macaddr 6 U 1040 macaddr_
869 inet -1 I 1041 inet_
1042 bpchar -1 S 1014 bpchar character
1043 varchar -1 S 1015 varchar character varying
1082 date 4 D 1182 date_
1083 time 8 D 1183 time_ time without time zone
1114 timestamp 8 D 1115 timestamp_ timestamp without time zone
1184 timestamptz 8 D 1185 timestamptz_ timestamp with time zone
1186 interval 16 T 1187 interval_
1266 timetz 12 D 1270 timetz_ time with time zone
1560 bit -1 V 1561 bit_
1700 numeric -1 N 1231 numeric_
2205 regclass 4 N 2210 regclass
2206 regtype 4 N 2211 regtype
2249 record -1 P 2287 record_
2275 cstring -2 P 1263 cstring_
2276 any 4 P 0 any_
2277 anyarray -1 P 0 anyarray_
2278 void 4 P 0 void_
2283 anyelement 4 P 0 anyelement_
2950 uuid 16 U 2951 uuid_
3802 jsonb -1 U 3807 jsonb_
4089 regnamespace 4 N 4090 regnamespace
""".strip().splitlines(),
    )
)

TYPES: dict[int, PgType] = {
    kind.oid: kind
    for scalar in _SCALARS
    for kind in (
        scalar,
        *(
            [PgType(scalar.array, f"_{scalar.name}", -1, "A", 0, scalar.oid, f"{scalar.sql}[]", "array_")]
            if scalar.array
            else []
        ),
    )
}
"""Every type that the catalog lists, by number."""

BY_NAME: dict[str, PgType] = {name: kind for kind in TYPES.values() for name in (kind.sql, kind.name)}
"""Types by each of their names."""

_SYNONYMS = {
    "int": 23, "decimal": 1700, "float": 701, "real": 700, "timestamp": 1114, "timestamptz": 1184, "time": 1083,
    "varchar": 1043, "char": 1042, "bpchar": 1042, "double": 701, "string": 25, "long": 20, "short": 21, "blob": 17,
}  # fmt: skip


def oid_of(name: str) -> int:
    """Number of a type by a name as SQL writes it, such as `varchar(10)` or `int[]`; 0 when there is none."""
    bare, brackets, _ = name.lower().strip().partition("[]")
    bare = " ".join(bare.partition("(")[0].split() + bare.partition(")")[2].split()).removeprefix("pg_catalog.")
    oid: int = _SYNONYMS.get(bare) or (BY_NAME[bare].oid if bare in BY_NAME else 0)
    return int(TYPES[oid].array) if brackets and oid else oid


BOOL, BYTEA, INT8, INT2, INT4, TEXT, OID, JSON = (TYPES[oid] for oid in (16, 17, 20, 21, 23, 25, 26, 114))
FLOAT4, FLOAT8, UNKNOWN, VARCHAR, DATE, TIME = (TYPES[oid] for oid in (700, 701, 705, 1043, 1082, 1083))
TIMESTAMP, TIMESTAMPTZ, INTERVAL, NUMERIC, UUID = (TYPES[oid] for oid in (1114, 1184, 1186, 1700, 2950))

_ARROW = {
    pa.bool_(): BOOL, pa.int8(): INT2, pa.uint8(): INT2, pa.int16(): INT2, pa.uint16(): INT4, pa.int32(): INT4,
    pa.uint32(): OID, pa.int64(): INT8, pa.uint64(): NUMERIC, pa.float16(): FLOAT4, pa.float32(): FLOAT4,
    pa.float64(): FLOAT8, pa.string(): TEXT, pa.large_string(): TEXT, pa.string_view(): TEXT, pa.binary(): BYTEA,
    pa.large_binary(): BYTEA, pa.binary_view(): BYTEA, pa.date32(): DATE, pa.date64(): DATE, pa.null(): TEXT,
    pa.uuid(): UUID, pa.month_day_nano_interval(): INTERVAL,
}  # fmt: skip


def pg_type(kind: pa.DataType) -> PgType:
    """The type that a column of an Arrow type goes out as.

    A list of plain values is an array; every other nested type is `json`. Timestamps are `timestamptz`, because the
    lake keeps points in time. Unsigned 32-bit integers stand for `oid`, which no table of the lake holds.
    """
    if kind in _ARROW:
        return _ARROW[kind]
    if pa.types.is_dictionary(kind):
        return pg_type(kind.value_type)
    if pa.types.is_timestamp(kind):
        return TIMESTAMPTZ
    if pa.types.is_time(kind):
        return TIME
    if pa.types.is_decimal(kind):
        return NUMERIC
    if pa.types.is_fixed_size_binary(kind):
        return BYTEA
    if is_array(kind):
        return TYPES[pg_type(kind.value_type).array]
    if pa.types.is_nested(kind):
        return JSON
    return TEXT


def is_array(kind: pa.DataType) -> bool:
    """Whether an Arrow type is a list whose items are plain values, so that an array can hold them."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    return not pa.types.is_nested(kind.value_type) and not pa.types.is_null(kind.value_type)


def type_modifier(kind: pa.DataType) -> int:
    """What `atttypmod` says of a column: precision and scale of a decimal, else -1."""
    if pa.types.is_decimal(kind):
        return (int(kind.precision) << 16 | int(kind.scale) & 0x7FF) + 4
    return -1
