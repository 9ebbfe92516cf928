"""Columns of the relations of `pg_catalog` and `information_schema`, as PostgreSQL 15 has them.

A column is its name and a letter: `o` oid, `h` smallint, `i` integer, `l` bigint, `f` real, `b` boolean, `t` text, `z`
timestamp; a star after it makes an array of it. What is too long for a line goes on, indented, on the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

_LETTERS = {
    "o": pa.uint32(), "h": pa.int16(), "i": pa.int32(), "l": pa.int64(), "f": pa.float32(), "b": pa.bool_(),
    "t": pa.string(), "z": pa.timestamp("us"),
}  # fmt: skip
_NOTHING: Mapping[str, Any] = {"o": 0, "h": 0, "i": 0, "l": 0, "f": 0.0, "b": False}

PG_CATALOG = """
pg_namespace oid:o nspname:t nspowner:o nspacl:t*
pg_class oid:o relname:t relnamespace:o reltype:o reloftype:o relowner:o relam:o relfilenode:o reltablespace:o
  relpages:i reltuples:f relallvisible:i reltoastrelid:o relhasindex:b relisshared:b relpersistence:t relkind:t
  relnatts:h relchecks:h relhasrules:b relhastriggers:b relhassubclass:b relrowsecurity:b relforcerowsecurity:b
  relispopulated:b relreplident:t relispartition:b relrewrite:o relfrozenxid:o relminmxid:o relacl:t* reloptions:t*
  relpartbound:t relhasoids:b
pg_attribute attrelid:o attname:t atttypid:o attstattarget:i attlen:h attnum:h attndims:i attcacheoff:i atttypmod:i
  attbyval:b attalign:t attstorage:t attcompression:t attnotnull:b atthasdef:b atthasmissing:b attidentity:t
  attgenerated:t attisdropped:b attislocal:b attinhcount:i attcollation:o attacl:t* attoptions:t* attfdwoptions:t*
  attmissingval:t
pg_type oid:o typname:t typnamespace:o typowner:o typlen:h typbyval:b typtype:t typcategory:t typispreferred:b
  typisdefined:b typdelim:t typrelid:o typsubscript:t typelem:o typarray:o typinput:t typoutput:t typreceive:t
  typsend:t typmodin:t typmodout:t typanalyze:t typalign:t typstorage:t typnotnull:b typbasetype:o typtypmod:i
  typndims:i typcollation:o typdefaultbin:t typdefault:t typacl:t*
pg_proc oid:o proname:t pronamespace:o proowner:o prolang:o procost:f prorows:f provariadic:o prosupport:t prokind:t
  prosecdef:b proleakproof:b proisstrict:b proretset:b provolatile:t proparallel:t pronargs:h pronargdefaults:h
  prorettype:o proargtypes:o* proallargtypes:o* proargmodes:t* proargnames:t* proargdefaults:t protrftypes:o*
  prosrc:t probin:t prosqlbody:t proconfig:t* proacl:t* proisagg:b proiswindow:b
pg_database oid:o datname:t datdba:o encoding:i datlocprovider:t datistemplate:b datallowconn:b datconnlimit:i
  datfrozenxid:o datminmxid:o dattablespace:o datcollate:t datctype:t daticulocale:t datcollversion:t datacl:t*
pg_roles rolname:t rolsuper:b rolinherit:b rolcreaterole:b rolcreatedb:b rolcanlogin:b rolreplication:b
  rolconnlimit:i rolpassword:t rolvaliduntil:z rolbypassrls:b rolconfig:t* oid:o
pg_authid oid:o rolname:t rolsuper:b rolinherit:b rolcreaterole:b rolcreatedb:b rolcanlogin:b rolreplication:b
  rolbypassrls:b rolconnlimit:i rolpassword:t rolvaliduntil:z
pg_user usename:t usesysid:o usecreatedb:b usesuper:b userepl:b usebypassrls:b passwd:t valuntil:z useconfig:t*
pg_group groname:t grosysid:o grolist:o*
pg_auth_members roleid:o member:o grantor:o admin_option:b
pg_db_role_setting setdatabase:o setrole:o setconfig:t*
pg_settings name:t setting:t unit:t category:t short_desc:t extra_desc:t context:t vartype:t source:t min_val:t
  max_val:t enumvals:t* boot_val:t reset_val:t sourcefile:t sourceline:i pending_restart:b
pg_description objoid:o classoid:o objsubid:i description:t
pg_shdescription objoid:o classoid:o description:t
pg_tables schemaname:t tablename:t tableowner:t tablespace:t hasindexes:b hasrules:b hastriggers:b rowsecurity:b
pg_views schemaname:t viewname:t viewowner:t definition:t
pg_matviews schemaname:t matviewname:t matviewowner:t tablespace:t hasindexes:b ispopulated:b definition:t
pg_indexes schemaname:t tablename:t indexname:t tablespace:t indexdef:t
pg_sequences schemaname:t sequencename:t sequenceowner:t data_type:t start_value:l min_value:l max_value:l
  increment_by:l cycle:b cache_size:l last_value:l
pg_stats schemaname:t tablename:t attname:t inherited:b null_frac:f avg_width:i n_distinct:f
pg_index indexrelid:o indrelid:o indnatts:h indnkeyatts:h indisunique:b indnullsnotdistinct:b indisprimary:b
  indisexclusion:b indimmediate:b indisclustered:b indisvalid:b indcheckxmin:b indisready:b indislive:b
  indisreplident:b indkey:h* indcollation:o* indclass:o* indoption:h* indexprs:t indpred:t
pg_constraint oid:o conname:t connamespace:o contype:t condeferrable:b condeferred:b convalidated:b conrelid:o
  contypid:o conindid:o conparentid:o confrelid:o confupdtype:t confdeltype:t confmatchtype:t conislocal:b
  coninhcount:i connoinherit:b conkey:h* confkey:h* conpfeqop:o* conppeqop:o* conffeqop:o* confdelsetcols:h*
  conexclop:o* conbin:t
pg_attrdef oid:o adrelid:o adnum:h adbin:t adsrc:t
pg_inherits inhrelid:o inhparent:o inhseqno:i inhdetachpending:b
pg_trigger oid:o tgrelid:o tgparentid:o tgname:t tgfoid:o tgtype:h tgenabled:t tgisinternal:b tgconstrrelid:o
  tgconstrindid:o tgconstraint:o tgdeferrable:b tginitdeferred:b tgnargs:h tgattr:h* tgargs:t tgqual:t tgoldtable:t
  tgnewtable:t
pg_rewrite oid:o rulename:t ev_class:o ev_type:t ev_enabled:t is_instead:b ev_qual:t ev_action:t
pg_rules schemaname:t tablename:t rulename:t definition:t
pg_depend classid:o objid:o objsubid:i refclassid:o refobjid:o refobjsubid:i deptype:t
pg_shdepend dbid:o classid:o objid:o objsubid:i refclassid:o refobjid:o deptype:t
pg_enum oid:o enumtypid:o enumsortorder:f enumlabel:t
pg_range rngtypid:o rngsubtype:o rngmultitypid:o rngcollation:o rngsubopc:o rngcanonical:t rngsubdiff:t
pg_collation oid:o collname:t collnamespace:o collowner:o collprovider:t collisdeterministic:b collencoding:i
  collcollate:t collctype:t colliculocale:t collversion:t
pg_am oid:o amname:t amhandler:t amtype:t
pg_amop oid:o amopfamily:o amoplefttype:o amoprighttype:o amopstrategy:h amoppurpose:t amopopr:o amopmethod:o
  amopsortfamily:o
pg_amproc oid:o amprocfamily:o amproclefttype:o amprocrighttype:o amprocnum:h amproc:t
pg_tablespace oid:o spcname:t spcowner:o spcacl:t* spcoptions:t*
pg_extension oid:o extname:t extowner:o extnamespace:o extrelocatable:b extversion:t extconfig:o* extcondition:t*
pg_available_extensions name:t default_version:t installed_version:t comment:t
pg_foreign_server oid:o srvname:t srvowner:o srvfdw:o srvtype:t srvversion:t srvacl:t* srvoptions:t*
pg_foreign_table ftrelid:o ftserver:o ftoptions:t*
pg_foreign_data_wrapper oid:o fdwname:t fdwowner:o fdwhandler:o fdwvalidator:o fdwacl:t* fdwoptions:t*
pg_user_mapping oid:o umuser:o umserver:o umoptions:t*
pg_user_mappings umid:o srvid:o srvname:t umuser:o usename:t umoptions:t*
pg_policy oid:o polname:t polrelid:o polcmd:t polpermissive:b polroles:o* polqual:t polwithcheck:t
pg_policies schemaname:t tablename:t policyname:t permissive:t roles:t* cmd:t qual:t with_check:t
pg_publication oid:o pubname:t pubowner:o puballtables:b pubinsert:b pubupdate:b pubdelete:b pubtruncate:b
  pubviaroot:b
pg_publication_rel oid:o prpubid:o prrelid:o prqual:t prattrs:h*
pg_publication_namespace oid:o pnpubid:o pnnspid:o
pg_publication_tables pubname:t schemaname:t tablename:t attnames:t* rowfilter:t
pg_subscription oid:o subdbid:o subname:t subowner:o subenabled:b subconninfo:t subslotname:t subsynccommit:t
  subpublications:t*
pg_statistic_ext oid:o stxrelid:o stxname:t stxnamespace:o stxowner:o stxstattarget:i stxkeys:h* stxkind:t* stxexprs:t
pg_sequence seqrelid:o seqtypid:o seqstart:l seqincrement:l seqmax:l seqmin:l seqcache:l seqcycle:b
pg_aggregate aggfnoid:o aggkind:t aggnumdirectargs:h aggtransfn:t aggfinalfn:t aggtranstype:o aggsortop:o agginitval:t
pg_operator oid:o oprname:t oprnamespace:o oprowner:o oprkind:t oprcanmerge:b oprcanhash:b oprleft:o oprright:o
  oprresult:o oprcom:o oprnegate:o oprcode:t oprrest:t oprjoin:t
pg_opclass oid:o opcmethod:o opcname:t opcnamespace:o opcowner:o opcfamily:o opcintype:o opcdefault:b opckeytype:o
pg_opfamily oid:o opfmethod:o opfname:t opfnamespace:o opfowner:o
pg_language oid:o lanname:t lanowner:o lanispl:b lanpltrusted:b lanplcallfoid:o laninline:o lanvalidator:o lanacl:t*
pg_cast oid:o castsource:o casttarget:o castfunc:o castcontext:t castmethod:t
pg_conversion oid:o conname:t connamespace:o conowner:o conforencoding:i contoencoding:i conproc:t condefault:b
pg_event_trigger oid:o evtname:t evtevent:t evtowner:o evtfoid:o evtenabled:t evttags:t*
pg_partitioned_table partrelid:o partstrat:t partnatts:h partdefid:o partattrs:h* partclass:o* partcollation:o*
  partexprs:t
pg_default_acl oid:o defaclrole:o defaclnamespace:o defaclobjtype:t defaclacl:t*
pg_init_privs objoid:o classoid:o objsubid:i privtype:t initprivs:t*
pg_seclabel objoid:o classoid:o objsubid:i provider:t label:t
pg_shseclabel objoid:o classoid:o provider:t label:t
pg_seclabels objoid:o classoid:o objsubid:i objtype:t objnamespace:o objname:t provider:t label:t
pg_largeobject_metadata oid:o lomowner:o lomacl:t*
pg_transform oid:o trftype:o trflang:o trffromsql:t trftosql:t
pg_ts_config oid:o cfgname:t cfgnamespace:o cfgowner:o cfgparser:o
pg_ts_dict oid:o dictname:t dictnamespace:o dictowner:o dicttemplate:o dictinitoption:t
pg_ts_parser oid:o prsname:t prsnamespace:o
pg_ts_template oid:o tmplname:t tmplnamespace:o
pg_timezone_names name:t abbrev:t utc_offset:t is_dst:b
pg_timezone_abbrevs abbrev:t utc_offset:t is_dst:b
pg_locks locktype:t database:o relation:o page:i pid:i mode:t granted:b
pg_cursors name:t statement:t is_holdable:b is_binary:b is_scrollable:b creation_time:z
pg_prepared_statements name:t statement:t prepare_time:z parameter_types:t* from_sql:b
pg_prepared_xacts transaction:o gid:t prepared:z owner:t database:t
pg_stat_activity datid:o datname:t pid:i leader_pid:i usesysid:o usename:t application_name:t client_addr:t
  client_hostname:t client_port:i backend_start:z xact_start:z query_start:z state_change:z wait_event_type:t
  wait_event:t state:t backend_xid:o backend_xmin:o query_id:l query:t backend_type:t
pg_stat_database datid:o datname:t numbackends:i xact_commit:l xact_rollback:l blks_read:l blks_hit:l tup_returned:l
  tup_fetched:l
pg_stat_user_tables relid:o schemaname:t relname:t seq_scan:l seq_tup_read:l idx_scan:l n_tup_ins:l n_tup_upd:l
  n_tup_del:l n_live_tup:l n_dead_tup:l last_vacuum:z last_analyze:z
pg_stat_all_tables relid:o schemaname:t relname:t seq_scan:l seq_tup_read:l idx_scan:l n_tup_ins:l n_tup_upd:l
  n_tup_del:l n_live_tup:l n_dead_tup:l last_vacuum:z last_analyze:z
pg_statio_user_tables relid:o schemaname:t relname:t heap_blks_read:l heap_blks_hit:l
pg_stat_replication pid:i usesysid:o usename:t application_name:t client_addr:t state:t sync_state:t
pg_replication_slots slot_name:t plugin:t slot_type:t datoid:o database:t temporary:b active:b
pg_stat_ssl pid:i ssl:b version:t cipher:t bits:i client_dn:t client_serial:t issuer_dn:t
pg_stat_gssapi pid:i gss_authenticated:b principal:t encrypted:b
"""

INFORMATION_SCHEMA = """
information_schema_catalog_name catalog_name:t
schemata catalog_name:t schema_name:t schema_owner:t default_character_set_catalog:t default_character_set_schema:t
  default_character_set_name:t sql_path:t
tables table_catalog:t table_schema:t table_name:t table_type:t self_referencing_column_name:t
  reference_generation:t user_defined_type_catalog:t user_defined_type_schema:t user_defined_type_name:t
  is_insertable_into:t is_typed:t commit_action:t
columns table_catalog:t table_schema:t table_name:t column_name:t ordinal_position:i column_default:t is_nullable:t
  data_type:t character_maximum_length:i character_octet_length:i numeric_precision:i numeric_precision_radix:i
  numeric_scale:i datetime_precision:i interval_type:t interval_precision:i character_set_catalog:t
  character_set_schema:t character_set_name:t collation_catalog:t collation_schema:t collation_name:t
  domain_catalog:t domain_schema:t domain_name:t udt_catalog:t udt_schema:t udt_name:t scope_catalog:t
  scope_schema:t scope_name:t maximum_cardinality:i dtd_identifier:t is_self_referencing:t is_identity:t
  identity_generation:t identity_start:t identity_increment:t identity_maximum:t identity_minimum:t identity_cycle:t
  is_generated:t generation_expression:t is_updatable:t
element_types object_catalog:t object_schema:t object_name:t object_type:t collection_type_identifier:t data_type:t
  udt_catalog:t udt_schema:t udt_name:t dtd_identifier:t
views table_catalog:t table_schema:t table_name:t view_definition:t check_option:t is_updatable:t
  is_insertable_into:t is_trigger_updatable:t is_trigger_deletable:t is_trigger_insertable_into:t
table_constraints constraint_catalog:t constraint_schema:t constraint_name:t table_catalog:t table_schema:t
  table_name:t constraint_type:t is_deferrable:t initially_deferred:t enforced:t nulls_distinct:t
key_column_usage constraint_catalog:t constraint_schema:t constraint_name:t table_catalog:t table_schema:t
  table_name:t column_name:t ordinal_position:i position_in_unique_constraint:i
constraint_column_usage table_catalog:t table_schema:t table_name:t column_name:t constraint_catalog:t
  constraint_schema:t constraint_name:t
constraint_table_usage table_catalog:t table_schema:t table_name:t constraint_catalog:t constraint_schema:t
  constraint_name:t
referential_constraints constraint_catalog:t constraint_schema:t constraint_name:t unique_constraint_catalog:t
  unique_constraint_schema:t unique_constraint_name:t match_option:t update_rule:t delete_rule:t
check_constraints constraint_catalog:t constraint_schema:t constraint_name:t check_clause:t
routines specific_catalog:t specific_schema:t specific_name:t routine_catalog:t routine_schema:t routine_name:t
  routine_type:t data_type:t type_udt_name:t routine_body:t routine_definition:t external_language:t
  is_deterministic:t
parameters specific_catalog:t specific_schema:t specific_name:t ordinal_position:i parameter_mode:t is_result:t
  as_locator:t parameter_name:t data_type:t udt_name:t parameter_default:t
sequences sequence_catalog:t sequence_schema:t sequence_name:t data_type:t numeric_precision:i start_value:t
  minimum_value:t maximum_value:t increment:t cycle_option:t
triggers trigger_catalog:t trigger_schema:t trigger_name:t event_manipulation:t event_object_catalog:t
  event_object_schema:t event_object_table:t action_statement:t action_timing:t
domains domain_catalog:t domain_schema:t domain_name:t data_type:t udt_name:t domain_default:t
domain_constraints constraint_catalog:t constraint_schema:t constraint_name:t domain_catalog:t domain_schema:t
  domain_name:t is_deferrable:t initially_deferred:t
view_table_usage view_catalog:t view_schema:t view_name:t table_catalog:t table_schema:t table_name:t
character_sets character_set_catalog:t character_set_schema:t character_set_name:t character_repertoire:t
  form_of_use:t default_collate_catalog:t default_collate_schema:t default_collate_name:t
collations collation_catalog:t collation_schema:t collation_name:t pad_attribute:t
enabled_roles role_name:t
applicable_roles grantee:t role_name:t is_grantable:t
table_privileges grantor:t grantee:t table_catalog:t table_schema:t table_name:t privilege_type:t is_grantable:t
  with_hierarchy:t
role_table_grants grantor:t grantee:t table_catalog:t table_schema:t table_name:t privilege_type:t is_grantable:t
  with_hierarchy:t
column_privileges grantor:t grantee:t table_catalog:t table_schema:t table_name:t column_name:t privilege_type:t
  is_grantable:t
foreign_tables foreign_table_catalog:t foreign_table_schema:t foreign_table_name:t foreign_server_catalog:t
  foreign_server_name:t
sql_implementation_info implementation_info_id:t implementation_info_name:t integer_value:i character_value:t
  comments:t
"""


def _relations(schema: str, text: str) -> dict[str, list[tuple[str, str]]]:
    found = {}
    for line in text.replace("\n  ", " ").strip().splitlines():
        name, *columns = line.split()
        found[f"{schema}.{name}"] = [(column.partition(":")[0], column.partition(":")[2]) for column in columns]
    return found


RELATIONS = _relations("pg_catalog", PG_CATALOG) | _relations("information_schema", INFORMATION_SCHEMA)
"""Columns of each relation, by its full name."""


def table(relation: str, rows: Iterable[Mapping[str, Any]] = ()) -> pa.Table:
    """A relation with these rows; columns that a row does not have are zero, false or null."""
    given = list(rows)
    arrays, fields = [], []
    for name, letters in RELATIONS[relation]:
        kind = _LETTERS[letters[0]]
        kind = pa.list_(kind) if letters.endswith("*") else kind
        nothing = _NOTHING.get(letters)
        arrays.append(pa.array([row.get(name, nothing) for row in given], kind))
        fields.append(pa.field(name, kind))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))
