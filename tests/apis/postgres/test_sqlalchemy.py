"""SQLAlchemy: reflection of what is there, and questions in its own language."""

import datetime as dt
from decimal import Decimal

import pytest
import sqlalchemy as sa

from tests.apis.postgres.lake import KINDS, ORDERS


@pytest.fixture
def engine(shop):
    url = sa.URL.create("postgresql+psycopg", "dev", shop.passwords["dev"], "127.0.0.1", shop.port, "shop")
    made = sa.create_engine(url)
    yield made
    made.dispose()


def test_reflection(engine):
    found = sa.inspect(engine)
    assert found.get_schema_names() == ["bronze", "gold", "information_schema", "silver"]
    assert sorted(found.get_table_names(schema="gold")) == ["kinds", "orders"]
    assert found.default_schema_name == "gold"
    assert found.has_table("orders", schema="gold")
    assert not found.has_table("nothing", schema="gold")
    columns = found.get_columns("kinds", schema="gold")
    assert [column["name"] for column in columns] == list(KINDS)
    assert {column["name"]: str(column["type"]) for column in columns}["money"] == "NUMERIC(38, 10)"
    for get in (found.get_foreign_keys, found.get_indexes, found.get_unique_constraints, found.get_check_constraints):
        assert get("orders", schema="gold") == []
    assert found.get_pk_constraint("orders", schema="gold")["constrained_columns"] == []
    assert found.get_table_comment("kinds", schema="gold") == {"text": None}
    assert (found.get_view_names(), found.get_sequence_names(), found.get_materialized_view_names()) == ([], [], [])
    assert found.get_enums() == []


def test_a_whole_schema_is_reflected(engine):
    metadata = sa.MetaData()
    metadata.reflect(engine, schema="gold")
    assert sorted(metadata.tables) == ["gold.kinds", "gold.orders"]
    assert list(metadata.tables["gold.orders"].columns.keys()) == list(ORDERS)


def test_a_question_in_its_language(engine):
    orders = sa.Table("orders", sa.MetaData(), schema="gold", autoload_with=engine)
    since = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    wanted = (
        sa.select(orders.c.tenant, sa.func.count(), sa.func.sum(orders.c.amount))
        .where(orders.c.id > 5, orders.c.customer.like("c%"), orders.c.ordered_at > since)
        .group_by(orders.c.tenant)
        .order_by(orders.c.tenant)
        .limit(5)
    )
    several = sa.select(orders.c.id).where(orders.c.id.in_([1, 2, 9_999])).order_by(orders.c.id.desc())
    with engine.connect() as connection:
        assert connection.execute(wanted).all() == [
            ("acme", 1247, Decimal("390622.75")), ("globex", 1198, Decimal("374998.50")),
        ]  # fmt: skip
        assert connection.execute(several).scalars().all() == [2, 1]
        streamed = connection.execution_options(yield_per=100).execute(sa.select(orders.c.id))
        assert sum(len(part) for part in streamed.partitions()) == 2500
