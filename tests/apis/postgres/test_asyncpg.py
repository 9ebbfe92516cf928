"""asyncpg, which speaks the binary protocol alone and prepares everything."""

import asyncio
import datetime as dt
import io
from decimal import Decimal

import asyncpg
import pytest

from tests.apis.postgres.lake import MOMENT, ROWS


def run(shop, work, user="dev"):
    """What `work` gives with a connection."""

    async def inside():
        told = shop.conninfo(user)
        told["database"] = told.pop("dbname")
        connection = await asyncpg.connect(**told)
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(inside())


def test_every_type_comes_back(shop):
    row = run(shop, lambda connection: connection.fetchrow("select * from gold.kinds where n = $1", 1))
    assert tuple(row) == (
        1, True, 1, 2, 3, 4, 1.5, 2.25, Decimal("12345.6789"), "plain", b"\x00\xff", dt.date(2024, 5, 1), MOMENT,
        [1, None, 3], ["a b", "NULL", None, 'x"y\\'], '{"lat": 1.5, "name": "x"}', '{"k": "v"}',
    )  # fmt: skip


def test_parameters_get_the_types_of_their_columns(shop):
    async def work(connection):
        statement = await connection.prepare(
            "select id from gold.orders "
            "where ordered_at < $1 and amount > $2 and customer = $3 and id = any($4) limit $5"
        )
        kinds = [kind.name for kind in statement.get_parameters()]
        rows = await statement.fetch(MOMENT + dt.timedelta(days=1), Decimal("1.5"), "customer 9", [9, 10], 5)
        return kinds, [tuple(row) for row in rows]

    assert run(shop, work) == (["timestamptz", "numeric", "text", "int8[]", "int8"], [(9,)])


def test_cast_parameters(shop):
    row = run(
        shop,
        lambda connection: connection.fetchrow("select $1::text || 'x', $2::date, $3::int4[]", "a", MOMENT.date(), [1]),
    )
    assert tuple(row) == ("ax", MOMENT.date(), [1])


def test_cursors_and_statements_used_again(shop):
    async def work(connection):
        async with connection.transaction():
            cursor = await connection.cursor("select id from gold.orders order by id")
            first = await cursor.fetch(5)
            await cursor.forward(10)
            rest = [row["id"] async for row in connection.cursor("select id from gold.orders", prefetch=100)]
        statement = await connection.prepare("select id + $1 from gold.orders where id = $2")
        again = [await statement.fetchval(1, n) for n in range(1, 8)]
        return [row["id"] for row in first], len(rest), again

    assert run(shop, work) == ([1, 2, 3, 4, 5], ROWS, list(range(2, 9)))


def test_copy_out(shop):
    async def work(connection):
        target = io.BytesIO()
        told = await connection.copy_from_table(
            "people", schema_name="silver", output=target, format="csv", header=True
        )
        return told, target.getvalue()

    assert run(shop, work) == ("COPY 1", b"id,name\n1,ann\n")


def test_types_are_introspected(shop):
    async def work(connection):
        await connection.set_type_codec("json", encoder=str, decoder=len, schema="pg_catalog")
        return await connection.fetchval("select tags from gold.kinds where n = 1")

    assert run(shop, work) == len('{"k": "v"}')


def test_an_error_leaves_the_connection_good(shop):
    async def work(connection):
        with pytest.raises(asyncpg.UndefinedColumnError):
            await connection.fetch("select nothing from gold.orders where id = $1", 1)
        async with connection.transaction():
            with pytest.raises(asyncpg.UndefinedTableError):
                await connection.fetch("select * from gold.nothing")
            with pytest.raises(asyncpg.InFailedSQLTransactionError):
                await connection.fetch("select 1")
        await connection.reset()
        return await connection.fetchval("select 1")

    assert run(shop, work) == 1
