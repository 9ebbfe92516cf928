-- One attempt a line to get out of a query. {lake} is the lake's folder, {file} a data file, {out} a file that must not appear.
-- files
SELECT * FROM read_parquet('{file}')
SELECT * FROM read_parquet(['{file}'])
SELECT * FROM parquet_scan('{file}')
SELECT * FROM '{file}'
SELECT * FROM "{file}"
FROM '{lake}/gold/sales/*.parquet'
SELECT * FROM read_csv('/etc/passwd')
SELECT * FROM read_csv_auto('/etc/passwd')
SELECT * FROM sniff_csv('/etc/passwd')
SELECT * FROM read_text('{lake}/_lodestream/access/keys.json')
SELECT * FROM read_blob('{file}')
SELECT * FROM read_json('/proc/self/environ')
SELECT * FROM read_json_auto('{lake}/gold/sales/_delta_log/*.json')
SELECT * FROM read_json_objects('{lake}/gold/sales/_delta_log/*.json')
SELECT * FROM read_ndjson('{lake}/gold/sales/_delta_log/*.json')
SELECT * FROM read_ndjson_auto('{lake}/gold/sales/_delta_log/*.json')
SELECT * FROM read_ndjson_objects('{lake}/gold/sales/_delta_log/*.json')
SELECT * FROM glob('{lake}/**')
SELECT * FROM parquet_metadata('{file}')
SELECT * FROM parquet_schema('{file}')
SELECT * FROM parquet_file_metadata('{file}')
SELECT * FROM parquet_kv_metadata('{file}')
SELECT * FROM parquet_bloom_probe('{file}', 'id', 1)
SELECT * FROM arrow_scan(1, 2, 3)
SELECT * FROM arrow_scan_dumb(1, 2, 3)
SELECT * FROM pandas_scan(1)
SELECT * FROM python_map_function()
SELECT * FROM seq_scan('sales')
SELECT * FROM delta_scan('{lake}/gold/sales')
SELECT * FROM iceberg_scan('{lake}/gold/sales')
SELECT * FROM sqlite_scan('{lake}/_lodestream/access/catalog.db', 'entries')
SELECT * FROM postgres_scan('host=127.0.0.1', 'public', 't')
SELECT * FROM 'http://127.0.0.1/x.csv'
SELECT * FROM 's3://bucket/x.parquet'
SELECT * FROM read_csv('https://example.org/x.csv')
SELECT (SELECT content FROM read_text('/etc/passwd'))
SELECT * FROM gold.sales WHERE id IN (SELECT length(content) FROM read_text('/etc/passwd'))
SELECT * FROM gold.sales, LATERAL (SELECT * FROM glob('/*'))
WITH x AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM x
WITH RECURSIVE x AS (SELECT 1 AS a UNION ALL SELECT a FROM x, glob('/*')) SELECT * FROM x
SELECT * FROM gold.sales ORDER BY (SELECT max(file) FROM glob('/*'))
SELECT getenv('HOME')
SELECT current_setting('secret_directory')
SELECT * FROM file_row_number
SELECT file_exists('/etc/passwd')
SELECT file_size('/etc/passwd')
-- writes
COPY gold.sales TO '{out}'
COPY (SELECT 1) TO '{out}'
COPY gold.sales FROM '{file}'
COPY (SELECT 1) TO '/dev/stdout'
WITH r AS (COPY (SELECT 1) TO '{out}') SELECT 1
WITH r AS (INSERT INTO gold.sales VALUES (1) RETURNING *) SELECT * FROM r
WITH r AS (DELETE FROM gold.sales RETURNING *) SELECT * FROM r
WITH r AS (UPDATE gold.sales SET id = 1 RETURNING *) SELECT * FROM r
SELECT * FROM (COPY (SELECT 1) TO '{out}')
SELECT * FROM (DELETE FROM gold.sales RETURNING *)
INSERT INTO gold.sales VALUES (1)
INSERT INTO gold.sales SELECT * FROM silver.secret
UPDATE gold.sales SET email = 'x'
DELETE FROM gold.sales
TRUNCATE gold.sales
MERGE INTO gold.sales USING silver.secret s ON true WHEN MATCHED THEN DELETE
CREATE TABLE x AS SELECT 1
CREATE TEMP TABLE x AS SELECT * FROM silver.secret
CREATE VIEW gold.v AS SELECT 1
CREATE OR REPLACE VIEW gold.sales AS SELECT * FROM silver.secret
CREATE MACRO f(a) AS a
CREATE MACRO t() AS TABLE SELECT * FROM read_text('/etc/passwd')
CREATE FUNCTION f(a) AS a
CREATE SCHEMA x
CREATE SEQUENCE s
CREATE INDEX i ON gold.sales (id)
CREATE TYPE m AS ENUM ('a')
CREATE SECRET (TYPE s3)
DROP VIEW gold.sales
DROP TABLE gold.sales
ALTER TABLE gold.sales RENAME TO x
EXPORT DATABASE '{out}'
IMPORT DATABASE '{lake}'
VACUUM
CHECKPOINT
FORCE CHECKPOINT
ANALYZE
-- settings and sessions
SET enable_external_access = true
SET memory_limit = '100GB'
SET threads = 64
SET lock_configuration = false
SET VARIABLE a = 1
SET search_path = 'silver'
SET python_enable_replacements = true
RESET ALL
PRAGMA version
PRAGMA database_list
PRAGMA show_tables
PRAGMA enable_profiling
PRAGMA table_info('sales')
PRAGMA storage_info('sales')
CALL pragma_version()
CALL duckdb_settings()
USE silver
ATTACH ':memory:' AS x
ATTACH '{lake}/_lodestream/access/catalog.db' (TYPE sqlite)
DETACH memory
INSTALL httpfs
LOAD httpfs
FORCE INSTALL httpfs
LOAD '{lake}/x.duckdb_extension'
BEGIN
COMMIT
ROLLBACK
PREPARE p AS SELECT 1
EXECUTE p
DEALLOCATE p
EXPLAIN SELECT * FROM silver.secret
EXPLAIN ANALYZE SELECT * FROM silver.secret
SHOW TABLES
SHOW ALL TABLES
SHOW DATABASES
DESCRIBE
SHOW silver.secret
SUMMARIZE silver.secret
DESCRIBE silver.secret
-- more than one statement, and comments
SELECT 1; SELECT * FROM silver.secret
SELECT 1; COPY (SELECT 1) TO '{out}'
SELECT 1;;DROP VIEW gold.sales
SELECT 1 /* ; */ ; SELECT * FROM silver.secret
/* SELECT */ COPY (SELECT 1) TO '{out}'
-- what the engine knows of itself
SELECT * FROM duckdb_views()
SELECT * FROM duckdb_tables()
SELECT * FROM duckdb_columns()
SELECT * FROM duckdb_settings()
SELECT * FROM duckdb_functions()
SELECT * FROM duckdb_secrets()
SELECT * FROM duckdb_variables()
SELECT * FROM duckdb_temporary_files()
SELECT * FROM duckdb_memory()
SELECT * FROM duckdb_logs
SELECT * FROM duckdb_prepared_statements()
SELECT * FROM duckdb_databases()
SELECT * FROM duckdb_extensions()
SELECT * FROM information_schema.tables
SELECT * FROM information_schema.columns
SELECT * FROM pg_catalog.pg_class
SELECT * FROM pg_catalog.pg_views
SELECT * FROM pg_tables
SELECT * FROM sqlite_master
SELECT * FROM sqlite_schema
SELECT * FROM main.sqlite_master
SELECT * FROM system.information_schema.tables
SELECT * FROM temp.information_schema.tables
SELECT * FROM pragma_table_info('gold.sales')
SELECT * FROM pragma_storage_info('sales')
SELECT * FROM pragma_database_size()
SELECT * FROM pragma_show('sales')
SELECT * FROM which_secret('a', 'b')
SELECT stats(email) FROM gold.sales
SELECT * FROM query('SELECT * FROM silver.secret')
SELECT * FROM query_table('silver.secret')
SELECT * FROM query_table(['gold.sales', 'silver.secret'])
SELECT json_execute_serialized_sql(json_serialize_sql('SELECT * FROM silver.secret'))
SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT * FROM silver.secret'))
SELECT json_serialize_plan('SELECT * FROM silver.secret')
SELECT nextval('s')
SELECT currval('s')
SELECT txid_current()
SELECT version()
SELECT current_query()
SELECT current_database()
SELECT current_schemas(true)
SELECT pg_get_viewdef(1)
SELECT getvariable('a')
SELECT write_log('x')
SELECT error('x')
SELECT sleep_ms(10)
SELECT in_search_path('a', 'b')
SELECT add_parquet_key('a', 'b')
SELECT create_sort_key(email, 'ASC') FROM gold.sales
SELECT vector_type(email) FROM gold.sales
SELECT main.read_text('/etc/passwd')
SELECT system.main.getenv('HOME')
SELECT pg_catalog.pg_get_viewdef(1)
SELECT "getenv"('HOME')
SELECT GETENV('HOME')
SELECT * FROM "read_text"('/etc/passwd')
SELECT * FROM ReAd_TeXt('/etc/passwd')
SELECT 'x'.getenv()
SELECT '/etc/passwd'.read_text()
SELECT list_transform(['/etc/passwd'], x -> getenv(x))
SELECT list_aggregate(['/etc/passwd'], 'getenv')
SELECT [getenv(x) FOR x IN ['HOME']]
SELECT apply(['HOME'], lambda x: getenv(x))
SELECT count(*) FILTER (WHERE getenv('HOME') = '/root') FROM gold.sales
SELECT * FROM gold.sales QUALIFY getenv('HOME') = '/root'
SELECT * FROM gold.sales GROUP BY ALL HAVING getenv('HOME') = '/root'
SELECT * FROM gold.sales LIMIT (SELECT length(getenv('HOME')))
SELECT CASE WHEN true THEN getenv('HOME') END
SELECT COALESCE(NULL, getenv('HOME'))
SELECT * REPLACE (getenv('HOME') AS email) FROM gold.sales
SELECT COLUMNS(c -> getenv(c) = '') FROM gold.sales
SELECT sum(id) OVER (ORDER BY getenv('HOME')) FROM gold.sales
SELECT DISTINCT ON (getenv('HOME')) id FROM gold.sales
SELECT CAST(getenv('HOME') AS INTEGER)
VALUES (getenv('HOME'))
PIVOT gold.sales ON getenv('HOME') USING count(*)
SELECT * FROM range(getenv('HOME')::INT)
-- tables that the caller has no grant on, by every name they may have
SELECT * FROM silver.secret
SELECT * FROM SILVER.SECRET
SELECT * FROM "silver"."secret"
SELECT * FROM "Silver"."Secret"
SELECT * FROM shop.silver.secret
SELECT * FROM memory.silver.secret
SELECT * FROM silver.secret AT (VERSION => 1)
SELECT * FROM silver."secret@1"
SELECT * FROM gold."sales@1"
SELECT * FROM silver.secret__quarantine
SELECT * FROM gold.sales__quarantine
SELECT * FROM gold.sales__quarantine AT (VERSION => 1)
SELECT * FROM gold."sales__quarantine"
SELECT * FROM bronze.sales
SELECT * FROM secret
SELECT * FROM main.secret
SELECT * FROM _rows0
SELECT * FROM main._rows0
SELECT * FROM temp._rows0
SELECT * FROM gold.sales s JOIN silver.secret t ON true
SELECT * FROM gold.sales WHERE EXISTS (SELECT 1 FROM silver.secret)
SELECT (SELECT count(*) FROM silver.secret)
SELECT * FROM gold.sales UNION ALL SELECT * FROM silver.secret
SELECT * FROM gold.sales EXCEPT SELECT * FROM silver.secret
WITH sales AS (SELECT * FROM silver.secret) SELECT * FROM sales
WITH "silver.secret" AS (SELECT 1) SELECT * FROM silver.secret
WITH secret AS (SELECT 1) SELECT * FROM silver.secret
SELECT * FROM gold.sales POSITIONAL JOIN silver.secret
SELECT * FROM gold.sales ASOF JOIN silver.secret t ON gold.sales.id >= t.id
SELECT * FROM (FROM silver.secret)
FROM silver.secret SELECT *
TABLE silver.secret
SELECT * FROM gold.sales SEMI JOIN silver.secret USING (id)
SELECT * FROM gold.sales ANTI JOIN silver.secret USING (id)
UNPIVOT silver.secret ON COLUMNS(*)
PIVOT silver.secret ON id
SELECT x.id FROM gold.sales x, LATERAL (SELECT * FROM silver.secret WHERE id = x.id)
SELECT silver.secret.id FROM gold.sales
SELECT * FROM gold.sales TABLESAMPLE 10% JOIN silver.secret USING (id)
SELECT * FROM '../silver/secret'
SELECT * FROM gold."../silver/secret"
SELECT * FROM gold."sales; DROP"
SELECT * FROM gold.sales AT (TIMESTAMP => '2020-01-01')
SELECT * FROM gold.sales AT (VERSION => (SELECT 1))
SELECT * FROM gold.sales AT (VERSION => -1)
SELECT * FROM gold.sales AT (VERSION => 999999999999)
-- sizes
SELECT repeat('x', 1000000000)
SELECT lpad('x', 2000000000, 'y')
SELECT rpad('x', 2000000000, 'y')
SELECT range(100000000000)
SELECT generate_series(1, 100000000000)
SELECT * FROM range(1, (SELECT 100000000000))
SELECT list_resize([1], 1000000000)
SELECT array_resize([1], 1000000000)
SELECT bitstring('1', 1000000000)
SELECT setseed(0.5)
SELECT $name
