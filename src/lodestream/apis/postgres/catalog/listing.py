"""Lists what one person may see, as rows of the system catalogs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import pyarrow as pa

from lodestream.apis.postgres import types
from lodestream.apis.postgres.catalog.columns import RELATIONS, table
from lodestream.apis.postgres.catalog.functions import NAMES, SETUP
from lodestream.apis.postgres.catalog.information import information
from lodestream.apis.postgres.variables import Variables
from lodestream.model.arrow import to_arrow_type
from lodestream.model.table import LAYERS, TableName
from lodestream.model.types import Schema
from lodestream.query.guard import Relations
from lodestream.query.service import Given

_PG_CATALOG, _INFORMATION = 11, 13000
_SCHEMAS = {"pg_catalog": _PG_CATALOG, "information_schema": _INFORMATION} | {
    layer: 14_000 + number for number, layer in enumerate(LAYERS)
}
_OWNER, _READER, _DATABASE = 10, 16_000, 16_001
_FIRST_TABLE = 20_000
_KNOWN_CLASSES = {
    "pg_class": 1259, "pg_type": 1247, "pg_proc": 1255, "pg_attribute": 1249, "pg_namespace": 2615, "pg_rewrite": 2618,
    "pg_constraint": 2606, "pg_database": 1262, "pg_authid": 1260, "pg_attrdef": 2604, "pg_trigger": 2620,
    "pg_language": 2612, "pg_extension": 3079, "pg_tablespace": 1213, "pg_am": 2601, "pg_operator": 2617,
    "pg_event_trigger": 3466, "pg_collation": 3456, "pg_policy": 3256, "pg_publication": 6104,
}  # fmt: skip
_CLASSES = {
    name.partition(".")[2]: _KNOWN_CLASSES.get(name.partition(".")[2], 12_000 + place)
    for place, name in enumerate(RELATIONS)
    if name.startswith("pg_catalog.")
}
_BTREE, _HEAP = 403, 2
_PREFERRED = frozenset({"bool", "text", "float8", "oid", "timestamptz", "interval", "inet", "bit"})


@dataclass(frozen=True, slots=True)
class Listed:
    """A table that somebody may see, with the columns that they see of it."""

    name: TableName
    oid: int
    schema: Schema
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """The system catalogs as one person sees them.

    Attributes:
        made_of: what it was made of.
        tables: `layer.name` of each table.
        given: relations and functions, for the query service.
        numbered: the same where `pg_type` names its functions by number, for clients that join them to `pg_proc`.
        schemas: columns of each relation by the name it stands under.
        oids: what names stand for, by the type they are cast to.
    """

    made_of: tuple[tuple[TableName, Schema, str], ...]
    tables: tuple[str, ...]
    given: Given
    numbered: Given
    schemas: Mapping[str, pa.Schema]
    oids: Mapping[str, Mapping[str, int]]


STANDS = {name: name.replace(".", "__") for name in RELATIONS}
"""The name that each relation stands under where questions about it are answered."""

FUNCTIONS = NAMES


def oid_of(name: TableName, taken: set[int]) -> int:
    """The number of a table: the same in every process and for everybody, and no other table's."""
    digest = int.from_bytes(hashlib.sha256(str(name).encode()).digest()[:8], "big")
    found = _FIRST_TABLE + digest % 0x7FFF0000
    while found in taken:
        found += 1
    taken.add(found)
    return found


Table: TypeAlias = tuple[TableName, Schema, str]
"""A table, the columns that are seen of it, and what it is for."""


def commented(tables: Sequence[Table], comments: Mapping[str, str]) -> list[Table]:
    """Tables and their columns with what is said of them."""
    made = []
    for name, schema, _ in tables:
        columns = (replace(column, comment=comments.get(f"{name}.{column.name}", column.comment)) for column in schema)
        made.append((name, Schema(tuple(columns)), comments.get(str(name), "")))
    return made


def listing(tables: Sequence[Table], user: str, database: str, *, owner: bool) -> Listing:
    """The catalogs of somebody who sees these tables and columns.

    Args:
        tables: names, with the columns that they see, and what they are for.
        user: their name.
        database: name of the project.
        owner: whether nothing binds them.
    """
    taken: set[int] = set()
    ordered = sorted(tables, key=lambda one: str(one[0]))
    listed = [Listed(name, oid_of(name, taken), schema, comment) for name, schema, comment in ordered]
    role = _OWNER if owner else _READER
    rows = dict(_pg_catalog(listed, user, role, owner=owner, database=database))
    made = {name: table(name, rows.get(name, ())) for name in RELATIONS if name.startswith("pg_catalog.")}
    made |= information([(one.name, one.schema) for one in listed], user, database)
    lookups = _lookups(listed, user, role)
    standing = {STANDS[name]: found for name, found in made.items()}
    relations = Relations(frozenset(standing), NAMES)
    numbered = standing | {STANDS["pg_catalog.pg_type"]: _numbered(made["pg_catalog.pg_type"])}
    return Listing(
        tuple(tables),
        tuple(str(one.name) for one in listed),
        Given.of(relations, standing | lookups, SETUP),
        Given.of(relations, numbered | lookups, SETUP),
        {name: found.schema for name, found in standing.items()},
        _oids(listed),
    )


def _oids(listed: Sequence[Listed]) -> dict[str, dict[str, int]]:
    classes = dict(_CLASSES)
    for one in listed:
        classes[str(one.name)] = one.oid
        classes.setdefault(one.name.name, one.oid)
    kinds = {kind.sql: kind.oid for kind in types.TYPES.values()} | {k.name: k.oid for k in types.TYPES.values()}
    return {"regclass": classes, "regtype": kinds, "regnamespace": dict(_SCHEMAS), "regproc": _procedure_oids()}


def _lookups(listed: Sequence[Listed], user: str, role: int) -> dict[str, pa.Table]:
    kinds = list(types.TYPES.values())
    relations = [(one.oid, str(one.name), one.name.name) for one in listed]
    relations += [(oid, name, name) for name, oid in _CLASSES.items()]
    comments = [
        (one.oid, number, column.comment)
        for one in listed
        for number, column in enumerate(one.schema, 1)
        if column.comment
    ] + [(one.oid, 0, one.comment) for one in listed if one.comment]

    def pairs(rows: Sequence[Sequence[Any]], *names: str) -> pa.Table:
        letters = {"_o": pa.uint32(), "_s": pa.int32()}
        return pa.table(
            [
                pa.array([row[place] for row in rows], letters.get(name, pa.string()))
                for place, name in enumerate(names)
            ],
            names=list(names),
        )

    return {
        "_types": pairs([(kind.oid, kind.sql, kind.name) for kind in kinds], "_o", "_n", "_short"),
        "_roles": pairs([(role, user)] + ([] if role == _OWNER else [(_OWNER, "owner")]), "_o", "_n"),
        "_names": pairs(relations, "_o", "_n", "_short"),
        "_schemas": pairs([(oid, name) for name, oid in _SCHEMAS.items()], "_o", "_n"),
        "_comments": pairs(comments, "_o", "_s", "_d"),
    }


def _pg_catalog(
    listed: Sequence[Listed], user: str, role: int, *, owner: bool, database: str
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    schemas = {one.name.layer for one in listed} | {"pg_catalog", "information_schema"}
    yield (
        "pg_catalog.pg_namespace",
        [{"oid": oid, "nspname": name, "nspowner": _OWNER} for name, oid in _SCHEMAS.items() if name in schemas],
    )
    yield "pg_catalog.pg_class", [_class(one) for one in listed]
    yield "pg_catalog.pg_attribute", [row for one in listed for row in _attributes(one)]
    yield "pg_catalog.pg_type", [_type(kind) for kind in types.TYPES.values()]
    yield "pg_catalog.pg_proc", list(_procedures())
    yield "pg_catalog.pg_database", [
        {
            "oid": _DATABASE, "datname": database, "datdba": _OWNER, "encoding": 6, "datlocprovider": "c",
            "datallowconn": True, "datconnlimit": -1, "dattablespace": 1663, "datcollate": "C", "datctype": "C",
        }
    ]  # fmt: skip
    one_role = {"rolname": user, "rolinherit": True, "rolcanlogin": True, "rolconnlimit": -1, "rolpassword": "********"}
    yield "pg_catalog.pg_roles", [one_role | {"oid": role}]
    yield "pg_catalog.pg_authid", []
    yield "pg_catalog.pg_user", [{"usename": user, "usesysid": role, "passwd": "********"}]
    variables = Variables(user, lambda _name, _value: None)
    yield "pg_catalog.pg_settings", [
        {
            "name": name, "setting": value, "category": "Lodestream", "short_desc": "", "context": "user",
            "vartype": "string", "source": "default", "boot_val": value, "reset_val": value,
        }
        for name, value in variables.all()
    ]  # fmt: skip
    yield (
        "pg_catalog.pg_description",
        [
            {"objoid": one.oid, "classoid": _CLASSES["pg_class"], "objsubid": number, "description": column.comment}
            for one in listed
            for number, column in enumerate(one.schema, 1)
            if column.comment
        ]
        + [
            {"objoid": one.oid, "classoid": _CLASSES["pg_class"], "objsubid": 0, "description": one.comment}
            for one in listed
            if one.comment
        ],
    )
    yield (
        "pg_catalog.pg_tables",
        [{"schemaname": one.name.layer, "tablename": one.name.name, "tableowner": "owner"} for one in listed],
    )
    statistics = [{"relid": one.oid, "schemaname": one.name.layer, "relname": one.name.name} for one in listed]
    yield "pg_catalog.pg_stat_user_tables", statistics
    yield "pg_catalog.pg_stat_all_tables", statistics
    yield (
        "pg_catalog.pg_am",
        [
            {"oid": _HEAP, "amname": "heap", "amhandler": "heap_tableam_handler", "amtype": "t"},
            {"oid": _BTREE, "amname": "btree", "amhandler": "bthandler", "amtype": "i"},
        ],
    )
    yield "pg_catalog.pg_tablespace", [{"oid": 1663, "spcname": "pg_default", "spcowner": _OWNER}]
    yield "pg_catalog.pg_language", [{"oid": 12, "lanname": "internal", "lanowner": _OWNER}]
    yield (
        "pg_catalog.pg_collation",
        [
            {"oid": 100, "collname": "default", "collnamespace": _PG_CATALOG, "collowner": _OWNER, "collprovider": "d"}
            | {"collisdeterministic": True, "collencoding": -1}
        ],
    )
    yield "pg_catalog.pg_range", []


def _class(one: Listed) -> dict[str, Any]:
    return {
        "oid": one.oid, "relname": one.name.name, "relnamespace": _SCHEMAS[one.name.layer], "relowner": _OWNER,
        "relam": _HEAP, "relfilenode": one.oid, "reltuples": -1.0, "relpersistence": "p", "relkind": "r",
        "relnatts": len(one.schema), "relispopulated": True, "relreplident": "d",
    }  # fmt: skip


def _attributes(one: Listed) -> Iterator[dict[str, Any]]:
    for number, column in enumerate(one.schema, 1):
        arrow = to_arrow_type(column.type)
        kind = types.pg_type(arrow)
        yield {
            "attrelid": one.oid, "attname": column.name, "atttypid": kind.oid, "attstattarget": -1, "attlen": kind.size,
            "attnum": number, "attndims": int(kind.category == "A"), "attcacheoff": -1,
            "atttypmod": types.type_modifier(arrow), "attbyval": 0 < kind.size <= 8, "attalign": _alignment(kind),
            "attstorage": "p" if kind.size > 0 else "x", "attcompression": "", "attnotnull": not column.nullable,
            "attidentity": "", "attgenerated": "", "attislocal": True,
            "attcollation": 100 if kind.category == "S" else 0,
        }  # fmt: skip


def _type(kind: types.PgType) -> dict[str, Any]:
    stem = kind.io
    pseudo = kind.category == "P"
    return {
        "oid": kind.oid, "typname": kind.name, "typnamespace": _PG_CATALOG, "typowner": _OWNER, "typlen": kind.size,
        "typbyval": 0 < kind.size <= 8, "typtype": "p" if pseudo else "b", "typcategory": kind.category,
        "typispreferred": kind.name in _PREFERRED, "typisdefined": True, "typdelim": ",",
        "typsubscript": "array_subscript_handler" if kind.category == "A" else "-", "typelem": kind.element,
        "typarray": kind.array, "typinput": f"{stem}in", "typoutput": f"{stem}out", "typreceive": f"{stem}recv",
        "typsend": f"{stem}send", "typmodin": "-", "typmodout": "-", "typanalyze": "-", "typalign": _alignment(kind),
        "typstorage": "p" if kind.size > 0 else "x", "typtypmod": -1,
        "typcollation": 100 if kind.category == "S" else 0,
    }  # fmt: skip


def _alignment(kind: types.PgType) -> str:
    return {1: "c", 2: "s", 8: "d"}.get(kind.size, "i")


_SUFFIXES = ("in", "out", "recv", "send")


def _procedures() -> Iterator[dict[str, Any]]:
    for name, oid in _procedure_oids().items():
        yield {
            "oid": oid, "proname": name, "pronamespace": _PG_CATALOG, "proowner": _OWNER, "prolang": 12, "procost": 1.0,
            "prokind": "f", "proisstrict": True, "provolatile": "i", "proparallel": "s", "pronargs": 1,
            "prorettype": types.TEXT.oid, "proargtypes": [types.TEXT.oid], "prosrc": name, "prosupport": "-",
        }  # fmt: skip


def _procedure_oids() -> dict[str, int]:
    stems = list(dict.fromkeys(kind.io for kind in types.TYPES.values()))
    return {
        f"{stem}{suffix}": 5_000 + 4 * place + at
        for place, stem in enumerate(stems)
        for at, suffix in enumerate(_SUFFIXES)
    }


def _numbered(found: pa.Table) -> pa.Table:
    """`pg_type` with the numbers of its functions in place of their names."""
    oids = _procedure_oids()
    for name in ("typinput", "typoutput", "typreceive", "typsend", "typmodin", "typmodout", "typanalyze"):
        place = found.schema.get_field_index(name)
        values = [oids.get(text, 0) for text in found.column(name).to_pylist()]
        found = found.set_column(place, name, pa.array(values, pa.uint32()))
    return found
