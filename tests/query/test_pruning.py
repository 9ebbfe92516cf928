"""Files that are left out hold no row of the answer, whoever wrote the statistics and whatever is asked."""

import datetime as dt
import json
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest

from lodestream.errors import ConfigError
from lodestream.lake.actions import AddFile
from lodestream.lake.bounds import bounds_of
from lodestream.lake.disk import LocalDisk
from lodestream.lake.statistics import statistics
from lodestream.model.access import Principal, TableAccess
from lodestream.model.policy import Grant, Mask, RowFilter
from lodestream.model.table import TableName
from lodestream.model.types import BIGINT, Column, Schema, parse_type
from lodestream.query import reading
from lodestream.query.conditions import Condition
from lodestream.query.guard import parse
from lodestream.query.occurrences import occurrences
from lodestream.query.pruning import Pruner, alternatives
from lodestream.query.service import OWNER, QueryService
from tests.catalog.conftest import say
from tests.query.conftest import CLOCK_US, append, catalog_at, make, schema_of

COLUMNS = {
    "id": "bigint", "part": "int", "name": "string", "amount": "decimal(20,3)", "score": "double", "small": "float",
    "day": "date", "seen": "timestamp", "good": "boolean",
}  # fmt: skip
TYPES = [pa.int64(), pa.int32(), pa.string(), pa.decimal128(20, 3), pa.float64(), pa.float32(), pa.date32(),
         pa.timestamp("us", tz="UTC"), pa.bool_()]  # fmt: skip
LONG = "a-name-that-is-longer-than-what-the-log-keeps-"
BEGINNINGS = (LONG, LONG[:32] + chr(0x10FFFF) * 2, "", "n")
ANNA = Principal("anna", groups=frozenset(), attributes={}, via="test")


def moment(rng, base):
    return dt.datetime(2024, 5, 1, tzinfo=dt.UTC) + dt.timedelta(hours=base, microseconds=rng.randrange(4_000))


def rows_of(rng: random.Random, count: int, part: int | None) -> pa.Table:
    """Rows of one file, near each other in every column."""
    base, missing = rng.randrange(40), rng.choice([0.0, 0.0, 0.2, 1.0])

    def maybe(value):
        return None if rng.random() < missing else value

    odd = [float("nan")] if rng.random() < 0.5 else []
    found = [
        {
            "id": base * 10 + rng.randrange(10), "part": part,
            "name": maybe(rng.choice(BEGINNINGS) + f"{base:03}{rng.choice(['', chr(0x10FFFF) * 2, 'é', 'z'])}"),
            "amount": maybe(Decimal(rng.randrange(base * 10**15, base * 10**15 + 10**4)) / 1000),
            "score": maybe(rng.choice([base + 0.1, base + 0.5, -0.0, *odd])), "small": maybe(base + 0.7),
            "day": maybe(dt.date(2024, 1, 1) + dt.timedelta(days=base + rng.randrange(2))),
            "seen": maybe(moment(rng, base)), "good": maybe(rng.random() < 0.5),
        }
        for _ in range(count)
    ]  # fmt: skip
    return pa.Table.from_pylist(found, pa.schema(list(zip(COLUMNS, TYPES, strict=True))))


def as_spark(rows: pa.Table) -> str:
    """Statistics as Spark writes them: times in milliseconds, floats as short as they read, decimals exact."""
    low, high, nulls = {}, {}, {}
    for name in rows.column_names:
        values = [one for one in rows[name].to_pylist() if one is not None]
        nulls[name] = rows.num_rows - len(values)
        if not values or name in ("good", "part"):
            continue
        ordered = sorted(values, key=lambda one: (one != one, one))
        for told, value in ((low, ordered[0]), (high, ordered[-1])):
            told[name] = spark_form(name, value, top=told is high)
    body = {"numRecords": rows.num_rows, "minValues": low, "maxValues": high, "nullCount": nulls}
    text = json.dumps(body, default=lambda value: f"<{value}>")
    for value in (*low.values(), *high.values()):
        if isinstance(value, Decimal):
            text = text.replace(f'"<{value}>"', str(value))
    return text


def spark_form(name, value, *, top):
    if name == "seen":
        return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03}Z"
    if name == "day":
        return value.isoformat()
    if name == "small":
        return float(f"{value:.6g}") if value == value else "NaN"
    if name == "score" and value != value:
        return "NaN"
    if isinstance(value, str) and len(value) > 32:
        return value[:32] + (chr(0x10FFFF) if top else "")
    return value


def as_delta_rs(rows: pa.Table) -> str:
    """Statistics in which NaN does not count, and decimals are binary numbers."""
    told = json.loads(as_spark(rows))
    for name in ("score", "small"):
        values = [one for one in rows[name].to_pylist() if one is not None and one == one]
        for key, choose in (("minValues", min), ("maxValues", max)):
            told[key].pop(name, None)
            if values:
                told[key][name] = choose(values)
    return json.dumps(told)


def some(rows: pa.Table) -> str:
    """Statistics of the first columns only."""
    told = json.loads(statistics(rows.select(["id", "name"])))
    return json.dumps(told)


WRITERS = [statistics, as_spark, as_spark, as_delta_rs, as_delta_rs, as_delta_rs, some,
           lambda rows: json.dumps({"numRecords": rows.num_rows}),
           lambda rows: None, lambda rows: "{broken"]  # fmt: skip


def literal(column: str, found: object) -> str:
    """A value of a row as a question has it."""
    if isinstance(found, float):
        return f"{Decimal(found):f}" if found == found else "'nan'::double"
    if column == "seen":
        return f"timestamp '{found:%Y-%m-%d %H:%M:%S.%f}'"
    return str(found).lower() if column in ("id", "part", "amount", "good") else f"'{found}'"


def value(rng: random.Random, column: str, rows: pa.Table | None = None) -> str:
    if rows is not None and rng.random() < 0.7:
        found = rng.choice(rows[column].to_pylist())
        if found is not None:
            return literal(column, found)
    base = rng.randrange(40)
    forms = {
        "id": [f"{base * 10}", f"{base * 10}.5", "-1"], "part": [str(rng.randrange(4))],
        "name": [f"'{LONG}{base:03}'", f"'n{base:03}z'", f"'{LONG[:32]}'", "''", f"'{base:03}'"],
        "amount": [f"{base * 10**12}.007", f"{base * 10**12}"], "score": [f"{base}.5", f"{base}", "0", "'nan'::double"],
        "small": [f"{base}", f"{base}.75", f"{base}.7"],
        "day": [f"date '{dt.date(2024, 1, 1) + dt.timedelta(days=base)}'",
                f"'{dt.date(2024, 1, 1) + dt.timedelta(days=base)}'"],
        "seen": [f"timestamp '2024-05-0{1 + base % 3} 0{base % 10}:00:00.00{base % 4}5'", f"'2024-05-0{1 + base % 3}'",
               f"date '2024-05-0{1 + base % 3}'"],
        "good": ["true", "false"],
    }  # fmt: skip
    return rng.choice(forms[column])


def condition(rng: random.Random, rows: pa.Table | None = None, alias: str = "", depth: int = 0) -> str:
    if depth < 2 and rng.random() < 0.5:
        text = rng.choice([" and ", " and ", " and ", " or "]).join(
            condition(rng, rows, alias, depth + 1) for _ in range(2)
        )
        return f"not ({text})" if rng.random() < 0.1 else f"({text})"
    column = rng.choice(list(COLUMNS))
    name, kind = f"{alias}{column}", rng.random()
    if kind < 0.12:
        return f"{name} is {rng.choice(['', 'not '])}null"
    if kind < 0.24:
        return f"{name} in ({value(rng, column, rows)}, {value(rng, column, rows)})"
    if kind < 0.34:
        return f"{name} between {value(rng, column, rows)} and {value(rng, column, rows)}"
    sides = [name, value(rng, column, rows)]
    if rng.random() < 0.2:
        sides.reverse()
    return f"{sides[0]} {rng.choice(['=', '=', '<>', '<', '<=', '>', '>='])} {sides[1]}"


def left_out(seed: int, rounds: int) -> int:
    """Compare with what DuckDB finds in every file; how many files were left out."""
    rng, schema, count = random.Random(seed), schema_of(COLUMNS), 0
    whole = TableAccess(tuple((name, None) for name in COLUMNS))
    database = duckdb.connect()
    database.execute("set timezone = 'UTC'")
    files, tables = {}, []
    for number in range(12):
        part = rng.choice([None, 0, 1, 2])
        rows = rows_of(rng, 5, part)
        path = f"{number}"
        tables.append(rows)
        stats = rng.choice(WRITERS)(rows.drop_columns(["part"]))
        files[path] = AddFile(path, {"part": None if part is None else str(part)}, 1, stats=stats)
        database.register(f"rows{number}", rows)
        database.execute(f"create table f{number} as select * replace (seen::timestamp as seen) from rows{number}")
    snapshot = Snapshot(schema, files)
    pruner = Pruner()
    for _ in range(rounds):
        where = condition(rng, rng.choice(tables))
        try:
            hits = {path for path in files if database.sql(f"select 1 from f{path} where {where} limit 1").fetchall()}
        except duckdb.Error:
            continue
        places = occurrences(parse(f"select count(*) from gold.t where {where}"), [])
        asked = alternatives(places, ("gold", "t"), {("gold", "t"): schema}, whole)
        adds = pruner.kept(snapshot, asked)
        kept = {add.path for add in adds} if adds is not None else set(files)
        assert hits <= kept, (seed, where, [files[path].stats for path in hits - kept])
        count += len(files) - len(kept)
    return count


class Snapshot:
    """What the pruner looks at of one."""

    def __init__(self, schema, files):
        self.metadata = type("Metadata", (), {"schema": schema, "id": "one"})
        self.files = files


@pytest.mark.parametrize("seed", range(4))
def test_no_file_with_a_hit_is_left_out(seed):
    assert left_out(seed, 80) > 40


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 200))
def test_no_file_with_a_hit_is_left_out_at_length(seed):
    assert left_out(seed, 500) > 300


def test_many_threads_ask_of_versions_that_differ(monkeypatch):
    """Each version has other files, so what is known of those that are gone is let go of all the time."""
    schema, pruner = Schema((Column("id", BIGINT),)), Pruner()
    versions = [
        Snapshot(schema, {f"{n}-{i}": AddFile(f"{n}-{i}", {}, 1, stats=None) for i in range(1_000)}) for n in range(8)
    ]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            for _ in range(10):
                found = list(pool.map(lambda one: pruner.kept(one, [[Condition("id", "=", 1)]]), versions * 4))
                assert [len(adds) for adds in found] == [1_000] * len(found)
    finally:
        sys.setswitchinterval(interval)


def query(rng: random.Random) -> str:
    """One over two tables, in forms of all kinds."""
    a, b, plain = condition(rng, None, "a."), condition(rng, None, "b."), condition(rng)
    columns, one, number = ", ".join(rng.sample(list(COLUMNS), 3)), rng.choice(list(COLUMNS)), rng.randrange(400)
    join = rng.choice(["join", "left join", "right join", "full join"])
    return rng.choice(
        [
            f"select * from gold.t where {plain}",
            f"select count(*) n, sum(amount) s from gold.t a where {a}",
            f"select {columns} from gold.t where {plain} order by all limit 7",
            f"select * from (select {columns}, id from gold.t) a where a.id >= {number} and {plain}",
            f"select * from (select * from gold.t a) where {plain}",
            f"select id, (select count(*) from (select id x from gold.t) where x = 7 and {plain}) n from gold.u",
            f"select a.id, b.id o from gold.t a {join} gold.u b on a.id = b.id where {a} and {b}",
            f"select a.id, b.id o from gold.t a {join} gold.u b on a.part = b.part where {a}",
            f"select * from gold.t a {rng.choice(['semi', 'anti'])} join gold.u b on a.part = b.part where {a}",
            f"select id from gold.t where part in (select part from gold.u b where {b}) and {plain}",
            f"select a.id from gold.t a join gold.t b using (id) where {a} and {b}",
            f"select a.id from gold.t a join gold.u b using (id) where id > {number}",
            f"with w as (select * from gold.t where {plain}) select x.id from w x, gold.u b where {b}",
            f"select a.id, b.id o from gold.t a asof join gold.u b on a.id >= b.id where {b}",
            f"select id from gold.t where {plain} union all select id from gold.u b where {b}",
            f"select x from gold.t a(x, y, z) where x > {number}",
            f"select id, (select count(*) from (select id from gold.t) s where part = {number % 3}) n from gold.u",
            f"select a.id from gold.t a left join gold.u b on a.part = b.part where b.{one} is null",
            f"select a.id, b.id o from gold.t a asof join gold.u b on a.id >= b.id where b.id < {number}",
            f"select -id as part, name from gold.t where part = {number % 4}",
            f"select * from gold.t a where exists (select 1 from gold.u b where b.part = a.part and {a})",
        ]
    )  # fmt: skip


def two_tables(root: str, rng: random.Random) -> None:
    for name, partitions in (("gold.t", ("part",)), ("gold.u", ())):
        table = make(root, name, COLUMNS, partitions)
        for number in range(8):
            rows = rows_of(rng, 4, rng.choice([None, 0, 1, 2]))
            (add,) = table.stage(rows, name=str(number)).adds
            told = rng.choice([statistics, as_spark, statistics])(rows.drop_columns(list(partitions)))
            table.commit(adds=[replace(add, stats=told)], clock_us=CLOCK_US)


def answers(service, text, principal):
    try:
        with service.ask(text, principal=principal) as answer:
            rows = answer.table()
            return sorted(map(str, rows.to_pylist())), sum(out for _, out in answer.files.values()), answer.files
    except ConfigError as error:
        return error.message.splitlines()[0], 0, {}


def compare(seed: int, tmp_path, monkeypatch, rounds: int) -> int:
    rng, root = random.Random(seed), str(tmp_path / f"lake{seed}")
    two_tables(root, rng)
    catalog = catalog_at(tmp_path / f"catalog{seed}")
    filters = [RowFilter("f", (TableName("gold", "t"),), rng.choice(["part = 1", "day > date '2024-01-20'"]), ())]
    masks = [Mask("m", ((TableName("gold", "u"), "name"),), "'***'", ())]
    say(catalog, Grant("anna", "select", "gold.t"), Grant("anna", "select", "gold.u"), *filters, *masks)
    service, count = QueryService(LocalDisk(), root, authority=catalog, threads=1), 0
    try:
        for _ in range(rounds):
            text, who = query(rng), rng.choice([OWNER, OWNER, ANNA])
            monkeypatch.setattr(reading, "_WORTH", 10**9)
            wanted, none, _ = answers(service, text, who)
            assert not none
            monkeypatch.setattr(reading, "_WORTH", 1)
            found, out, files = answers(service, text, who)
            assert found == wanted, (seed, text, who.name)
            assert who is OWNER or not files
            count += out
    finally:
        service.close()
        catalog.close()
    return count


@pytest.mark.parametrize("seed", range(3))
def test_answers_are_those_over_all_files(tmp_path, monkeypatch, seed):
    assert compare(seed, tmp_path, monkeypatch, 40) > 5


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 140))
def test_answers_are_those_over_all_files_at_length(tmp_path, monkeypatch, seed):
    assert compare(seed, tmp_path, monkeypatch, 400) > 100


def test_nan_is_greater_than_every_number(tmp_path):
    table = make(str(tmp_path), "gold.n", {"x": "double", "y": "float"})
    values = [1.0, float("nan"), 2.0]
    append(table, pa.table({"x": values, "y": pa.array(values, pa.float32())}), "1")
    service = QueryService(LocalDisk(), str(tmp_path), threads=1)
    try:
        for where, count in (("< 5", 2), ("> 5", 1), ("= 'nan'", 1), ("> 1", 2), ("<> 1", 2)):
            text = f"select count(*) n from gold.n where x {where} and y {where}"
            assert service.table(text).to_pylist() == [{"n": count}], where
    finally:
        service.close()


def bounds(kind: str, low: object, high: object, **more: object):
    stats = {"numRecords": 2, "minValues": {"c": low}, "maxValues": {"c": high}, "nullCount": {"c": 0}} | more
    return bounds_of(AddFile("x", stats=json.dumps(stats)), Column("c", parse_type(kind)))


def test_what_the_log_says_is_taken_with_what_writers_cut_off():
    second = dt.datetime(2024, 1, 1, 0, 0, 1)
    at = bounds("timestamp", "2024-01-01T00:00:01.000Z", "2024-01-01T00:00:01.000Z")
    assert at.may_reach(second.replace(microsecond=999), equal=True), "cut to milliseconds"
    assert not at.may_reach(second.replace(microsecond=2000), equal=True)
    zoned = bounds("timestamp", "2024-01-01T02:00:01.000+02:00", "2024-01-01T02:00:01.000+02:00")
    assert zoned == at
    text = bounds("string", "a" * 32, "a" * 32 + chr(0x10FFFF))
    assert text.may_be("a" * 32 + chr(0x10FFFF) * 9)
    assert not text.may_be("ab")
    assert bounds("double", 1.0, 2.0).may_reach(9.0, equal=False), "NaN is greater"
    assert not bounds("double", 1.0, 2.0).may_go_below(0.5, equal=True)
    rounded = bounds("decimal(20,3)", 39000000000000.01, 39000000000000.01)
    assert rounded.may_be(Decimal("39000000000000.013")), "kept as a binary number"
    assert not rounded.may_be(Decimal(39000000000001))
    assert bounds("bigint", None, None, nullCount={"c": 2}).only_nulls
    assert bounds("bigint", "1", True) == bounds("bigint", None, None), "not of the column's kind"
    assert bounds("date", "2024-13-01", "soon").may_be(dt.date(2030, 1, 1))
