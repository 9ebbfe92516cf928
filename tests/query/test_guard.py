import pytest

from lodestream.errors import AccessError, ConfigError, LodestreamError
from lodestream.query.functions import ALLOWED, SIZED
from lodestream.query.guard import TEXT_BYTES_MAX, Reference, parse

ASKS = """
select a+1, upper(b) from silver.orders o where x in (select 1) group by all
with r as materialized (select 1) select * from r
with recursive r as (select 1 as a union all select a+1 from r where a<5) select * from r
with a as (select 1), b as (select * from a) select * from b union by name select * from a
from silver.orders
values (1)
describe silver.orders
summarize silver.orders
select * from (values (1)) t
select * from bronze.t tablesample 10%
select sum(a) over (partition by a order by b rows between 1 preceding and current row) from bronze.t
select distinct on (a) a from bronze.t limit 10%
select a::int, [x for x in l], case when a then b end, interval 1 day, {'k':1}, l[1:2], try_cast(a as int) from bronze.t
select list_transform(l, lambda x: x+1), columns('a.*'), * exclude(a), a is distinct from b from bronze.t
select * from bronze.a asof join bronze.b on a.x>=b.x
select (select 1) from bronze.t, lateral (select 2)
select a, count(*) filter (where b>1), count(distinct a) from silver.t group by grouping sets ((a),()) having count(*)>1
select a from silver.t qualify row_number() over () = 1 order by all desc nulls last
select a from silver.t except select 1 intersect select 2
select extract(year from a), current_timestamp, coalesce(a,b), nullif(a,1), a at time zone 'UTC' from silver.t
select * from range(10)
select lpad(x, 10, ' ') from silver.t
select row->>'$.a', list_contains(reasons, 'late') from silver.t__quarantine
""".strip().splitlines()

REFUSED = """
with r as (copy (select 1) to 'x.csv') select 1
with r as (delete from silver.t returning *) select * from r
with r as (insert into silver.t values (1) returning *) select * from r
with r as (update silver.t set a = 1 returning *) select * from r
select * from (with r as (delete from silver.t returning *) select * from r)
select 1; select 2
show tables
explain select 1
select * from 'x.parquet'
select * from read_parquet('x')
select * from query('select 1')
select * from query_table(['silver.t'])
select * from glob('*')
select * from duckdb_views()
select * from sqlite_master
select * from information_schema.tables
select * from pg_catalog.pg_class
select * from memory.silver.t
with sqlite_master as (select * from sqlite_master) select * from sqlite_master
with a as (select * from sqlite_master), sqlite_master as (select 1) select * from a
select getenv('HOME')
select main.getenv('HOME')
select list_transform([1], lambda x: getenv('HOME'))
select sum(1) over (order by getenv('HOME'))
select 1 order by getenv('HOME')
select 1 limit len(getenv('HOME'))
select current_setting('threads')
select repeat('x', 1000000000)
select len(range(300000000))
select range(a) from silver.t
select lpad('x', 1000000000, 'y')
select stats(a) from silver.t
select nextval('x')
select write_log('x')
select sleep_ms(1000)
select json_execute_serialized_sql('x')
select $name
delete from a
attach 'x'
set threads=1
copy silver.t to 'x'
call pragma_version()
pragma version
install httpfs
create table x as select 1
select * from silver.t at (timestamp => now())
""".strip().splitlines()


@pytest.mark.parametrize("text", ASKS)
def test_what_only_asks_passes(text):
    parse(text)


@pytest.mark.parametrize("text", REFUSED)
def test_what_does_more_is_refused(text):
    with pytest.raises(LodestreamError) as refused:
        parse(text)
    assert isinstance(refused.value, AccessError | ConfigError)


def test_a_statement_that_writes_is_an_access_error():
    with pytest.raises(AccessError, match="copy_query"):
        parse("with r as (copy (select 1) to 'x.csv') select 1")


@pytest.mark.parametrize(
    "text", ["selec 1", "from", "select (", "", "   ", "select 'ab", "\x00", "select * into x from silver.t"]
)
def test_what_is_not_sql_is_a_config_error(text):
    with pytest.raises(LodestreamError):
        parse(text)


def test_tables_are_found_everywhere_and_in_lower_case():
    found = parse(
        "with a as (select * from Silver.Orders) select (select max(x) from gold.m) from a join bronze.b on true"
    )
    assert [str(t) for t in found.tables] == ["bronze.b", "gold.m", "silver.orders"]


def test_versions_become_part_of_the_name():
    found = parse("select * from silver.t n join silver.t at (version => 3) using (id)")
    assert found.tables == (Reference("silver", "t"), Reference("silver", "t", 3))
    assert "t@3" in found.text


def test_a_query_has_a_longest_text_and_a_deepest_nesting():
    with pytest.raises(ConfigError, match="too long"):
        parse("select '" + "x" * TEXT_BYTES_MAX + "'")
    with pytest.raises(LodestreamError):
        parse("select " + "(" * 2000 + "1" + ")" * 2000)


def test_nothing_dangerous_is_on_the_allowlist():
    words = ("read_", "glob", "pragma", "duckdb_", "getenv", "setting", "query", "secret", "write", "sleep", "nextval")
    assert not [name for name in ALLOWED for word in words if word in name]
    assert not ALLOWED & {"repeat", "stats", "error", "list_resize", "array_resize", "getvariable", *SIZED}
