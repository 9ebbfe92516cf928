"""The rows of `information_schema`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from lodestream.apis.postgres import types
from lodestream.apis.postgres.catalog.columns import RELATIONS, table
from lodestream.model.arrow import to_arrow_type
from lodestream.model.table import TableName
from lodestream.model.types import Schema

_PRECISION = {21: 16, 23: 32, 20: 64, 700: 24, 701: 53}


def information(listed: Sequence[tuple[TableName, Schema]], user: str, database: str) -> dict[str, pa.Table]:
    """Every relation of `information_schema`, by its full name.

    Args:
        listed: tables with the columns that are seen of them.
        user: who sees them.
        database: name of the project.
    """
    layers = sorted({name.layer for name, _ in listed} | {"information_schema", "pg_catalog"})
    grants = [
        {"grantor": "owner", "grantee": user, "table_catalog": database, "table_schema": name.layer,
         "table_name": name.name, "privilege_type": "SELECT", "is_grantable": "NO", "with_hierarchy": "YES"}
        for name, _ in listed
    ]  # fmt: skip
    rows: dict[str, list[dict[str, Any]]] = {
        "information_schema_catalog_name": [{"catalog_name": database}],
        "schemata": [{"catalog_name": database, "schema_name": name, "schema_owner": "owner"} for name in layers],
        "tables": [
            {"table_catalog": database, "table_schema": name.layer, "table_name": name.name,
             "table_type": "BASE TABLE", "is_insertable_into": "NO", "is_typed": "NO"}
            for name, _ in listed
        ],
        "columns": [row for name, schema in listed for row in _columns(name, schema, database)],
        "enabled_roles": [{"role_name": user}],
        "table_privileges": grants,
        "role_table_grants": grants,
        "column_privileges": [
            {key: value for key, value in grant.items() if key != "with_hierarchy"} | {"column_name": column.name}
            for grant, (_, schema) in zip(grants, listed, strict=True)
            for column in schema
        ],
        "character_sets": [{"character_set_name": "UTF8", "character_repertoire": "UCS", "form_of_use": "UTF8"}],
    }  # fmt: skip
    return {
        name: table(name, rows.get(name.partition(".")[2], ()))
        for name in RELATIONS
        if name.startswith("information_schema.")
    }


def _columns(name: TableName, schema: Schema, database: str) -> Iterator[dict[str, Any]]:
    for number, column in enumerate(schema, 1):
        arrow = to_arrow_type(column.type)
        kind = types.pg_type(arrow)
        row = {
            "table_catalog": database, "table_schema": name.layer, "table_name": name.name, "column_name": column.name,
            "ordinal_position": number, "column_default": None, "is_nullable": "YES" if column.nullable else "NO",
            "data_type": "ARRAY" if kind.category == "A" else kind.sql, "udt_catalog": database,
            "udt_schema": "pg_catalog", "udt_name": kind.name, "dtd_identifier": str(number),
            "is_self_referencing": "NO", "is_identity": "NO", "identity_cycle": "NO", "is_generated": "NEVER",
            "is_updatable": "NO", "character_maximum_length": None, "character_octet_length": None,
            "numeric_precision": _PRECISION.get(kind.oid), "numeric_precision_radix": None, "numeric_scale": None,
            "datetime_precision": None, "interval_precision": None, "maximum_cardinality": None,
        }  # fmt: skip
        if kind is types.NUMERIC and pa.types.is_decimal(arrow):
            row |= {"numeric_precision": arrow.precision, "numeric_precision_radix": 10, "numeric_scale": arrow.scale}
        elif kind.oid in _PRECISION:
            row["numeric_precision_radix"] = 2
            row["numeric_scale"] = 0 if kind.oid in (20, 21, 23) else None
        elif kind in (types.TIMESTAMPTZ, types.TIMESTAMP, types.TIME):
            row["datetime_precision"] = 6
        elif kind is types.DATE:
            row["datetime_precision"] = 0
        elif kind is types.TEXT:
            row["character_octet_length"] = 1 << 30
        yield row
