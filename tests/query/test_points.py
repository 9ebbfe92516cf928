"""Rows by key, through the whole read path: with and without a worker, the same answer."""

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest

from lodestream.catalog.audit_table import Wanted
from lodestream.lake.disk import LocalDisk
from lodestream.lake.table import DeltaTable
from lodestream.model.access import Principal
from lodestream.model.policy import Grant, Mask, RowFilter
from lodestream.model.table import TableName
from lodestream.ports.waiting import tried
from lodestream.query.guard import parse
from lodestream.query.keyed import KeyedReads
from lodestream.query.points import point
from lodestream.query.service import OWNER, Budget, QueryService
from tests.catalog.conftest import say
from tests.query.conftest import append, catalog_at, make

COLUMNS = {"id": "bigint", "who": "string", "amount": "decimal(10,2)", "seen_at": "timestamp", "day": "date"}
TABLE = TableName("gold", "t")
ANNA = Principal("anna", attributes={"who": "anna"}, via="test")


@pytest.fixture
def lake(tmp_path):
    root = str(tmp_path / "lake")
    table = make(root, "gold.t", COLUMNS)
    for part in range(2):
        ids = list(range(part * 100, part * 100 + 100))
        rows = {
            "id": ids, "who": ["anna" if n % 2 else "bob" for n in ids], "amount": [Decimal(n) for n in ids],
            "seen_at": [dt.datetime(2024, 5, 1, n % 24, tzinfo=dt.UTC) for n in ids],
            "day": [dt.date(2024, 5, 1 + n % 20) for n in ids],
        }  # fmt: skip
        append(table, pa.table(rows), str(part))
    return root


class Counted(KeyedReads):
    """Knows how many questions it answered."""

    answered = 0

    def find(self, *given, **more):
        found = super().find(*given, **more)
        self.answered += found is not None
        return found


@pytest.fixture
def catalog(tmp_path):
    made = catalog_at(tmp_path / "catalog")
    say(
        made, Grant("anna", "select", "gold.t"), RowFilter("own", (TABLE,), "who = attribute('who')", ()),
        Mask("round", ((TABLE, "amount"),), "floor(amount / 10) * 10", ()),
    )  # fmt: skip
    yield made
    made.close()


@pytest.fixture
def keyed():
    return Counted()


@pytest.fixture
def both(lake, catalog, keyed):
    """The service with and without reads by key."""
    plain = QueryService(LocalDisk(), lake, authority=catalog, threads=1)
    fast = QueryService(LocalDisk(), lake, authority=catalog, threads=1, keyed=keyed)
    yield plain, fast
    plain.close()
    fast.close()


ASKED = [
    ("select * from gold.t where id = $1", [7]),
    ("select * from gold.t where id = 8", []),
    ("select who, id as number from gold.t t where t.id = 7", []),
    ("select amount from gold.t where id = $1 and who = $2", [7, "anna"]),
    ("select id from gold.t where who = 'anna' limit 3", []),
    ("select id from gold.t where who = 'bob'", []),
    ("select id, seen_at from gold.t where day = $1", [dt.date(2024, 5, 2)]),
    ("select id from gold.t where seen_at = $1", [dt.datetime(2024, 5, 1, 7, tzinfo=dt.UTC)]),
    ("select id from gold.t where amount = 7", []),
    ("select id from gold.t where amount = 0", []),
    ("select id from gold.t where id = $1", [123456]),
    ("select id from gold.t where id = $1", [None]),
    ("select ID from gold.t where Id = 7", []),
]


@pytest.mark.parametrize("who", [OWNER, ANNA], ids=["owner", "anna"])
@pytest.mark.parametrize(("text", "values"), ASKED)
def test_the_answer_is_the_same(both, keyed, who, text, values):
    plain, fast = both
    wanted = plain.ask(text, principal=who, parameters=values).table()
    for _ in range(2):
        fast.ask(text, principal=who, parameters=values).table()
        assert keyed.settle()
    found = fast.ask(text, principal=who, parameters=values).table()
    assert found.schema == wanted.schema
    if "limit" in text:
        assert found.num_rows == wanted.num_rows
    else:
        assert sorted(map(str, found.to_pylist())) == sorted(map(str, wanted.to_pylist()))


def test_nothing_hidden_is_found_by_its_key(both, keyed):
    _, fast = both
    for _ in range(4):
        assert fast.ask("select * from gold.t where id = 8", principal=ANNA).table().num_rows == 0
        assert keyed.settle()
    assert keyed.answered
    (row,) = fast.ask("select * from gold.t where id = 17", principal=ANNA).table().to_pylist()
    assert row["amount"] == 10


def test_a_masked_column_is_compared_as_it_is_seen(both, keyed):
    _, fast = both
    for _ in range(3):
        assert fast.ask("select id from gold.t where amount = 17", principal=ANNA).table().num_rows == 0
    assert not keyed.answered


def test_new_commits_are_seen_at_once(both, keyed, lake):
    _, fast = both
    for _ in range(3):
        fast.ask("select * from gold.t where id = 777", principal=OWNER).table()
        keyed.settle()
    from lodestream.lake.layout import table_path

    table = DeltaTable.open(LocalDisk(), table_path(lake, TABLE))
    append(table, pa.table({"id": [777], "who": ["new"]}), "new")
    answer = fast.ask("select who from gold.t where id = 777", principal=OWNER)
    assert answer.table()["who"].to_pylist() == ["new"]
    assert answer.pins == {"gold.t": 3}
    older = fast.ask("select who from gold.t where id = 777", principal=OWNER, as_of={TABLE: 2})
    assert older.table().num_rows == 0


def test_the_answer_is_cut_at_its_budget(both, keyed):
    _, fast = both
    for _ in range(3):
        answer = fast.ask("select id from gold.t where who = 'bob'", principal=OWNER, budget=Budget(rows_max=5))
        assert answer.table().num_rows == 5
        assert answer.cut
        keyed.settle()


MORE = [
    "select * from gold.t where id = 1 or id = 2",
    "select * from gold.t where id > 1",
    "select * from gold.t where id = 1 order by id",
    "select distinct id from gold.t where id = 1",
    "select id + 1 from gold.t where id = 1",
    "select count(*) from gold.t where id = 1",
    "select * from gold.t where id = 1 and id = 2",
    "select * exclude (id) from gold.t where id = 1",
    "select id from gold.t where id = 1 limit 1 offset 1",
    "select id from gold.t a, gold.t b where id = 1",
    "select id from gold.t where id + 0 = 1",
    "select id from (select * from gold.t) where id = 1",
    "select t from gold.t t where id = 1 group by all",
    "select id from gold.t where id = 1 qualify true",
    "select id as who from gold.t where who = '1'",
    "select id, id from gold.t where who = '1'",
    "select id from gold.t tablesample 10% where id = 1",
    "with t as (select 1) select id from gold.t where id = 1",
    "select id from gold.t as x(a, b) where a = 1",
    "select id from gold.t where not id = 1",
    "select id from gold.t where id = 1 union select 2",
]


@pytest.mark.parametrize("text", MORE)
def test_what_is_more_than_a_key_takes_a_worker(text):
    assert point(parse(text), []) is None


def test_at_once_or_not_at_all(both, keyed, catalog):
    """What would have to wait leaves nothing behind, so that it can be asked again on another thread."""
    plain, fast = both
    text = "select id from gold.t where id = $1"

    def asked(service, id_):
        found = tried(lambda: service.ask(text, principal=OWNER, parameters=[id_]))
        return None if found is None else found.table().to_pylist()

    def recorded():
        catalog._journal.flush()
        return len(catalog._journal.records(Wanted(action="query", limit=1000)))

    assert asked(fast, 1) is None
    for id_ in range(3):
        fast.ask(text, principal=OWNER, parameters=[id_]).table()
        assert keyed.settle()
    before = recorded()
    assert asked(fast, 7) == [{"id": 7}]
    assert recorded() == before + 1
    assert asked(plain, 7) is None  # it takes a worker
    assert recorded() == before + 1
    found = tried(lambda: fast.ask("select id from gold.t where who = 'bob'", principal=OWNER))
    assert found is None  # its index is not there, and the rows would be many
