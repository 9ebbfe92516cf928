"""The protocol byte for byte: whole exchanges, and what is no protocol at all."""

import socket
import struct
import time

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.apis.postgres.conftest import TOKEN, serving
from tests.apis.postgres.lake import write_project
from tests.apis.postgres.raw import Raw, fields, message, startup, text

SYNC = message(b"S")
READY = (b"Z", b"I")


def parse(query, name="", *types):
    return message(b"P", text(name, query) + struct.pack(f">H{len(types)}I", len(types), *types))


def bind(*values, portal="", name="", formats=(), results=()):
    told = (
        text(portal, name) + struct.pack(f">H{len(formats)}H", len(formats), *formats) + struct.pack(">H", len(values))
    )
    for value in values:
        told += struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value
    return message(b"B", told + struct.pack(f">H{len(results)}H", len(results), *results))


def execute(rows=0, portal=""):
    return message(b"E", text(portal) + struct.pack(">i", rows))


def describe(kind, name=""):
    return message(b"D", kind + text(name))


@pytest.fixture
def client(shop):
    with Raw(shop.port) as made:
        assert made.sign_in("dev", TOKEN)[-1] == READY
        yield made


def row(*values):
    told = struct.pack(">H", len(values))
    for value in values:
        told += struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value
    return b"D", told


def test_what_is_told_at_the_start(shop):
    with Raw(shop.port) as client:
        told = client.sign_in("dev", TOKEN, application_name="some", DateStyle="German", TimeZone="Asia/Tokyo")
    assert [tag for tag, _ in told][:2] == [b"R", b"R"]
    settings = {}
    for tag, body in told:
        if tag == b"S":
            name, value, _ = body.decode().split("\0")
            settings[name] = value
    assert settings["server_version"].startswith("15.0")
    assert (settings["client_encoding"], settings["TimeZone"], settings["application_name"]) == ("UTF8", "UTC", "some")
    assert (settings["DateStyle"], settings["default_transaction_read_only"]) == ("ISO, MDY", "on")
    assert [tag for tag, _ in told][-2:] == [b"K", b"Z"]


def test_a_simple_question(client):
    client.send(
        message(b"Q", text("select id, customer, paid from gold.orders where id in (3, 50) order by id; show timezone"))
    )
    columns = b"".join(
        name + b"\0" + struct.pack(">IHIhih", 0, 0, oid, size, -1, 0)
        for name, oid, size in ((b"id", 20, 8), (b"customer", 25, -1), (b"paid", 16, 1))
    )
    zone = struct.pack(">H", 1) + b"TimeZone\0" + struct.pack(">IHIhih", 0, 0, 25, -1, -1, 0)
    assert client.until(b"Z") == [
        (b"T", struct.pack(">H", 3) + columns), row(b"3", b"customer 3", b"t"), row(b"50", None, b"f"),
        (b"C", b"SELECT 2\0"), (b"T", zone), row(b"UTC"), (b"C", b"SHOW\0"), READY,
    ]  # fmt: skip


def test_an_extended_question_in_binary(client):
    client.send(
        parse("select id, amount from gold.orders where id = $1") + describe(b"S")
        + bind(b"7", results=[1]) + describe(b"P") + execute() + SYNC
    )  # fmt: skip
    formats = [
        b"id\0" + struct.pack(">IHIhi", 0, 0, 20, 8, -1),
        b"amount\0" + struct.pack(">IHIhi", 0, 0, 1700, -1, (12 << 16 | 2) + 4),
    ]
    assert client.until(b"Z") == [
        (b"1", b""), (b"t", struct.pack(">HI", 1, 20)),
        (b"T", struct.pack(">H", 2) + b"".join(one + b"\0\0" for one in formats)), (b"2", b""),
        (b"T", struct.pack(">H", 2) + b"".join(one + b"\0\1" for one in formats)),
        row(struct.pack(">q", 7), struct.pack(">HhHHHH", 2, 0, 0, 2, 1, 7500)), (b"C", b"SELECT 1\0"), READY,
    ]  # fmt: skip


def test_a_portal_in_portions(client):
    client.send(
        message(b"Q", text("begin")) + parse("select id from gold.orders order by id limit 5") + bind(portal="p")
    )
    client.send(execute(2, "p") + execute(2, "p") + execute(2, "p") + execute(2, "p") + SYNC)
    assert client.until(b"Z") == [(b"C", b"BEGIN\0"), (b"Z", b"T")]
    assert client.until(b"Z") == [
        (b"1", b""), (b"2", b""), row(b"1"), row(b"2"), (b"s", b""), row(b"3"), row(b"4"), (b"s", b""), row(b"5"),
        (b"C", b"SELECT 1\0"), (b"C", b"SELECT 0\0"), (b"Z", b"T"),
    ]  # fmt: skip
    client.send(message(b"Q", text("commit")) + execute(1, "p") + SYNC)
    assert client.until(b"Z") == [(b"C", b"COMMIT\0"), READY]
    assert fields(client.until(b"Z")[0][1])["C"] == "34000"


def test_after_an_error_all_is_skipped_until_sync(client):
    client.send(
        parse("select nothing from gold.orders") + bind() + execute() + parse("select 1") + bind() + execute() + SYNC
    )
    told = client.until(b"Z")
    assert [tag for tag, _ in told] == [b"1", b"2", b"E", b"Z"]
    assert fields(told[2][1])["C"] == "42703"
    client.send(parse("select 1") + bind() + execute() + SYNC)
    assert [tag for tag, _ in client.until(b"Z")] == [b"1", b"2", b"D", b"C", b"Z"]


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (parse("select 1; select 2"), "42601"), (parse("select $1::int") + bind(b"1", b"2"), "08P01"),
        (parse("select $1::int") + bind(b"x"), "22P02"),
        (parse("select $1::int8", "", 20) + bind(b"123", formats=[1]), "22P03"),
        (bind(name="nothing"), "26000"), (execute(portal="nothing"), "34000"), (describe(b"S", "nothing"), "26000"),
        (describe(b"X"), "08P01"), (parse("select 1", "twice") + parse("select 2", "twice"), "42P05"),
        (parse("insert into gold.orders values (1)"), "25006"), (message(b"F", b""), "0A000"),
        (parse("select 1") + bind(results=[7]), "08P01"),
        (parse("select 'a', 1") + bind(results=[0, 1, 0]) + execute(), "08P01"),
        (message(b"B", b"\0\0\0\5"), "08P01"), (message(b"P", b"no end"), "08P01"),
        (message(b"Q", text("select '")), "42601"),
        (message(b"Q", b"select '\xff'\0"), "22021"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered(client, sent, code):
    client.send(sent + SYNC)
    told = client.until(b"E")
    assert fields(told[-1][1])["C"] == code
    client.until(b"Z")
    if sent[:1] == b"Q":
        client.until(b"Z")
    client.send(message(b"Q", text("select 1")))
    assert [tag for tag, _ in client.until(b"Z")] == [b"T", b"D", b"C", b"Z"]


def test_empty_statements(client):
    client.send(message(b"Q", text(" ; -- nothing")) + parse("") + describe(b"S") + bind() + execute() + SYNC)
    assert client.until(b"Z") == [(b"I", b""), READY]
    assert client.until(b"Z") == [(b"1", b""), (b"t", b"\0\0"), (b"n", b""), (b"2", b""), (b"I", b""), READY]


def test_encryption_is_refused_where_there_is_none(shop):
    with Raw(shop.port) as client:
        client.send(struct.pack(">II", 8, 80877104) + struct.pack(">II", 8, 80877103))
        assert client.exactly(2) == b"NN"
        assert client.sign_in("dev", TOKEN)[-1] == READY


def test_newer_protocols_are_talked_down(shop):
    with Raw(shop.port) as client:
        client.send(startup(0x30002, user="dev", database="shop", **{"_pq_.some": "1"}))
        assert client.message() == (b"v", struct.pack(">II", 0x30000, 1) + b"_pq_.some\0")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (struct.pack(">I", 4), "08P01"), (struct.pack(">I", 1 << 30), "08P01"), (startup(0x20000, user="dev"), "0A000"),
        (startup(database="shop"), "28000"), (struct.pack(">II", 12, 0x30000) + b"user", "08P01"),
        (startup(user="dev", replication="database"), "0A000"), (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "08P01"),
        (struct.pack(">II", 8, 80877103) * 2, "08P01"), (struct.pack(">II", 12, 80877102) + b"xxxx", "08P01"),
    ],
)  # fmt: skip
def test_a_start_that_is_none(shop, sent, code):
    with Raw(shop.port) as client:
        client.send(sent)
        told = client.exactly(100_000)
        body = told[told.index(b"E") :] if b"E" in told else told
        assert fields(body[5:])["C"] == code


def test_messages_before_signing_in_are_refused(shop):
    with Raw(shop.port) as client:
        client.send(startup(user="dev", database="shop") + message(b"Q", text("select 1")))
        told = client.until()
        assert [tag for tag, _ in told] == [b"R", b"E"]


def test_a_message_that_is_too_large_ends_the_connection(client):
    client.send(b"Q" + struct.pack(">I", (1 << 20) + 1))
    told = client.until()
    assert fields(told[-1][1])["C"] == "54000"


def test_an_unknown_message_ends_the_connection(client):
    client.send(message(b"z"))
    assert fields(client.until()[-1][1])["C"] == "08P01"


def test_what_is_held_for_paused_cursors_is_bounded(shop):
    with shop.connect() as connection:
        for number in range(4):
            connection.execute(
                f"declare c{number} cursor for select a.id, lpad('x', 500, 'y') from gold.orders a, range(8)"
            )
        server = next(iter(shop.server._connections.values()))[1]
        held = [portal.rows.held_bytes for portal in server.session.portals.values() if portal.rows is not None]
        assert len(held) == 4
        assert sum(held) < 48 << 20
        assert connection.execute("fetch 2 from c3").rowcount == 2
        several = "; ".join(f"declare c{number} cursor for select 1" for number in range(4, 110))
        with pytest.raises(psycopg.errors.InsufficientResources):
            connection.execute(several)


TAGS = st.sampled_from([b"Q", b"P", b"B", b"D", b"E", b"C", b"S", b"H", b"F", b"d", b"c", b"f", b"p"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.tuples(TAGS, st.binary(max_size=60)), max_size=8), cut=st.integers(0, 20))
def test_any_messages_leave_the_server_well(shop, pieces, cut):
    data = b"".join(message(tag, body) for tag, body in pieces)
    with Raw(shop.port) as client:
        client.sign_in("dev", TOKEN)
        client.send(data[: len(data) - cut])
        client.socket.shutdown(socket.SHUT_WR)
        for tag, body in client.until():
            assert tag in b"123CDEINSTZnsth"
            assert tag != b"E" or fields(body)["C"] != "XX000"
    alive(shop)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_any_bytes_leave_the_server_well(shop, data):
    with Raw(shop.port) as client:
        client.send(data)
        client.socket.shutdown(socket.SHUT_WR)
        client.exactly(10_000)
    alive(shop)


def alive(shop):
    with Raw(shop.port) as client:
        client.send(struct.pack(">II", 8, 80877103))
        assert client.exactly(1) == b"N"


def test_those_who_dawdle_are_sent_away(tmp_path):
    folder = write_project(tmp_path / "slow")
    with serving(folder, login_time="1 second", idle_time="2 seconds", connections_max=3) as shop:
        with Raw(shop.port) as first, Raw(shop.port) as second, Raw(shop.port) as third:
            first.send(b"\0\0")
            second.send(startup(user="dev", database="shop"))
            third.send(struct.pack(">I", 100))
            time.sleep(0.3)
            with Raw(shop.port) as late:
                assert fields(late.until()[-1][1])["C"] == "53300"
            for one in (first, second, third):
                assert fields(one.until()[-1][1])["C"] == "57014"
        with Raw(shop.port) as idle:
            assert idle.sign_in("dev", TOKEN)[-1] == READY
            assert fields(idle.until()[-1][1])["C"] == "57P05"


def test_a_client_that_does_not_read_holds_nobody_up(shop):
    with Raw(shop.port) as slow, Raw(shop.port) as other:
        slow.sign_in("dev", TOKEN)
        slow.send(message(b"Q", text("select a.id, a.customer from gold.orders a, gold.orders b")))
        other.sign_in("dev", TOKEN)
        other.send(message(b"Q", text("select 1")))
        assert [tag for tag, _ in other.until(b"Z")] == [b"T", b"D", b"C", b"Z"]
        assert slow.message()[0] == b"T"
