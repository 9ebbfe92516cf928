"""The functions of `pg_catalog` that clients call about relations, as macros over the tables of the listing."""

from __future__ import annotations

import re

# The macros read tables that only they know: number `_o` and name `_n` of types, roles, relations, schemas; comments.
_NULL_TEXT = """
pg_get_expr 2,3
pg_get_constraintdef 1,2
pg_get_indexdef 1,2,3
pg_get_viewdef 1,2
pg_get_triggerdef 1,2
pg_get_ruledef 1,2
pg_get_functiondef 1
pg_get_partkeydef 1
pg_get_partition_constraintdef 1
pg_get_statisticsobjdef 1
pg_get_statisticsobjdef_columns 1
pg_get_serial_sequence 2
pg_get_function_sqlbody 1
pg_tablespace_location 1
pg_get_replica_identity_index 1
shobj_description 2
pg_identify_object 3
pg_sequence_last_value 1
pg_get_function_arg_default 2
pg_relation_filepath 1
"""
_EMPTY_TEXT = """
pg_get_function_arguments 1
pg_get_function_identity_arguments 1
pg_get_function_result 1
"""
_TRUE = """
pg_table_is_visible 1
pg_type_is_visible 1
pg_function_is_visible 1
pg_operator_is_visible 1
pg_opclass_is_visible 1
pg_opfamily_is_visible 1
pg_collation_is_visible 1
pg_conversion_is_visible 1
pg_ts_config_is_visible 1
pg_ts_dict_is_visible 1
pg_ts_parser_is_visible 1
pg_ts_template_is_visible 1
pg_statistics_obj_is_visible 1
has_table_privilege 2,3
has_schema_privilege 2,3
has_database_privilege 2,3
has_column_privilege 3,4
has_any_column_privilege 2,3
has_function_privilege 2,3
has_type_privilege 2,3
has_sequence_privilege 2,3
has_tablespace_privilege 2,3
has_language_privilege 2,3
has_server_privilege 2,3
pg_has_role 2,3
"""
_FALSE = """
pg_is_other_temp_schema 1
pg_relation_is_publishable 1
pg_relation_is_updatable 2
pg_column_is_updatable 3
pg_index_column_has_property 3
pg_index_has_property 2
pg_indexam_has_property 2
pg_is_wal_replay_paused 0
row_security_active 1
"""
_ZERO = """
pg_relation_size 1,2
pg_total_relation_size 1
pg_table_size 1
pg_indexes_size 1
pg_database_size 1
pg_tablespace_size 1
pg_my_temp_schema 0
pg_stat_get_numscans 1
pg_stat_get_live_tuples 1
pg_stat_get_dead_tuples 1
pg_column_size 1
"""

_WRITTEN = """
CREATE MACRO format_type(a, b) AS CASE WHEN a IS NULL THEN NULL WHEN a = 1700 AND b > 4  THEN 'numeric(' || ((b - 4)
 >> 16)::VARCHAR || ',' || ((b - 4) & 65535)::VARCHAR || ')'  ELSE coalesce((SELECT _types._n FROM _types WHERE
 _types._o = a), '???') END;
CREATE MACRO regtype_name(a) AS (SELECT _types._n FROM _types WHERE _types._o = a);
CREATE MACRO regclass_name(a) AS coalesce((SELECT _names._n FROM _names WHERE _names._o = a), a::VARCHAR);
CREATE MACRO regnamespace_name(a) AS coalesce((SELECT _schemas._n FROM _schemas WHERE _schemas._o = a), a::VARCHAR);
CREATE MACRO to_regclass(a) AS coalesce(TRY_CAST(a AS UINTEGER),
 (SELECT min(_names._o) FROM _names WHERE _names._n = lower(replace(a, '"', '')) OR
 _names._short = lower(replace(a, '"', ''))));
CREATE MACRO to_regtype(a) AS coalesce(TRY_CAST(a AS UINTEGER),
 (SELECT min(_types._o) FROM _types WHERE _types._n = lower(a) OR _types._short =
 lower(a)));
CREATE MACRO to_regnamespace(a) AS coalesce(TRY_CAST(a AS UINTEGER),
 (SELECT min(_schemas._o) FROM _schemas WHERE _schemas._n = lower(a)));
CREATE MACRO pg_get_userbyid(a) AS coalesce((SELECT _roles._n FROM _roles WHERE _roles._o = a), 'unknown (OID=' ||
 a::VARCHAR || ')');
CREATE MACRO obj_description(a) AS (SELECT min(_comments._d) FROM _comments WHERE _comments._o = a AND _comments._s
 = 0), (a, b) AS (SELECT min(_comments._d) FROM _comments WHERE _comments._o = a AND _comments._s = 0 AND b =
 'pg_class');
CREATE MACRO col_description(a, b) AS (SELECT min(_comments._d) FROM _comments WHERE _comments._o = a AND
 _comments._s = b);
CREATE MACRO pg_encoding_to_char(a) AS 'UTF8';
CREATE MACRO pg_char_to_encoding(a) AS 6;
CREATE MACRO pg_size_pretty(a) AS a::VARCHAR || ' bytes';
CREATE MACRO pg_client_encoding() AS 'UTF8';
CREATE MACRO pg_postmaster_start_time() AS now();
CREATE MACRO pg_conf_load_time() AS now();
CREATE MACRO pg_blocking_pids(a) AS []::INTEGER[];
CREATE MACRO pg_cancel_backend(a) AS false;
CREATE MACRO pg_terminate_backend(a) AS false;
CREATE MACRO quote_ident(a) AS CASE WHEN regexp_full_match(a, '[a-z_][a-z0-9_]*') THEN a ELSE '"' || replace(a, '"',
 '""') || '"' END;
CREATE MACRO quote_literal(a) AS '''' || replace(a::VARCHAR, '''', '''''') || '''';
CREATE MACRO quote_nullable(a) AS coalesce('''' || replace(a::VARCHAR, '''', '''''') || '''', 'NULL');
CREATE MACRO array_upper(a, b) AS CASE WHEN b = 1 AND len(a) > 0 THEN len(a) END;
CREATE MACRO array_lower(a, b) AS CASE WHEN b = 1 AND len(a) > 0 THEN 1 END;
CREATE MACRO _pg_expandarray(a) AS unnest(list_zip(a, range(1, len(a) + 1)::INTEGER[])::STRUCT(x SMALLINT, n
 INTEGER)[]);
CREATE MACRO generate_subscripts(a, b) AS unnest(range(1, coalesce(len(a), 0) + 1)::INTEGER[]);
CREATE MACRO _series(a, b) AS unnest(range(a, b + 1)), (a, b, c) AS unnest(range(a, b + sign(c)::BIGINT, c));
CREATE MACRO _series(a, b) AS TABLE SELECT unnest(range(a, b + 1)) AS generate_series;
CREATE MACRO _setting(a) AS (SELECT min(pg_catalog__pg_settings.setting) FROM pg_catalog__pg_settings
 WHERE pg_catalog__pg_settings.name = a), (a, b) AS (SELECT min(pg_catalog__pg_settings.setting)
 FROM pg_catalog__pg_settings WHERE pg_catalog__pg_settings.name = a);
CREATE MACRO aclexplode(a) AS NULL;
CREATE MACRO pg_get_keywords() AS TABLE SELECT 'select' AS word, 'R' AS catcode, false AS barelabel, 'reserved' AS
 catdesc, 'requires AS' AS baredesc WHERE false;
CREATE MACRO pg_options_to_table(a) AS TABLE SELECT '' AS option_name, '' AS option_value WHERE false;
CREATE MACRO pg_partition_ancestors(a) AS TABLE SELECT 0::UINTEGER AS relid WHERE false;
CREATE MACRO pg_partition_tree(a) AS TABLE SELECT 0::UINTEGER AS relid, 0::UINTEGER AS parentrelid, true AS isleaf,
 0 AS level WHERE false;
CREATE MACRO pg_show_all_settings() AS TABLE SELECT '' AS name, '' AS setting WHERE false;
"""


def _constants(listed: str, value: str) -> list[str]:
    made = []
    for line in listed.strip().splitlines():
        name, counts = line.split()
        forms = ", ".join(f"({', '.join('abcdef'[: int(count)])}) AS {value}" for count in counts.split(","))
        made.append(f"CREATE MACRO {name}{forms}")
    return made


SETUP: tuple[str, ...] = (
    *(statement.strip() for statement in _WRITTEN.strip().split(";\n") if statement.strip().rstrip(";")),
    *_constants(_NULL_TEXT, "NULL::VARCHAR"),
    *_constants(_EMPTY_TEXT, "''"),
    *_constants(_TRUE, "true"),
    *_constants(_FALSE, "false"),
    *_constants(_ZERO, "0::BIGINT"),
)
"""Statements that make the macros."""

NAMES = frozenset(
    match[1] for statement in SETUP if (match := re.match(r"CREATE MACRO (\w+)\s*\(", statement)) is not None
)
"""Every function that only the catalogs have."""
