"""Who comes in, what they see, and when they are shown out."""

import contextlib
import datetime as dt
import hashlib
import socket
import threading
import time

import psycopg
import pytest
from psycopg import errors

from lodestream.app import now_us, open_project
from lodestream.security.keys import KeyStore
from lodestream.testing.pki import Authority
from tests.apis.postgres.conftest import TOKEN, key, say, serving
from tests.apis.postgres.lake import ROWS, write_project

CANARIES = ("globex", "bird", "ann")


def everything(connection, *questions):
    """All that some questions bring out, errors included, as one text."""
    found = []
    for question in questions:
        try:
            cursor = connection.execute(question)
            found.append(repr([column.name for column in cursor.description or ()]) + repr(cursor.fetchall()))
        except psycopg.Error as error:
            found.append(f"{error} {error.diag.message_detail} {error.diag.message_hint}")
    return "\n".join(found)


def test_two_users_see_different_rows(shop):
    question = "select tenant, count(*), min(customer) from gold.orders group by tenant order by tenant"
    with shop.connect("alice") as alice, shop.connect("bob") as bob, shop.connect() as owner:
        assert alice.execute(question).fetchall() == [("acme", ROWS // 2, "***")]
        assert bob.execute(question).fetchall() == [("globex", ROWS // 2, "customer 0")]
        assert len(owner.execute(question).fetchall()) == 2


QUESTIONS = [
    "select * from gold.orders",
    "select * from orders",
    "copy gold.orders to stdout",
    "select * from bronze.secrets",
    "select * from secrets",
    "select * from silver.people",
    "select * from people",
    "select * from gold.orders__quarantine",
    "select * from gold.orders at (version => 1)",
    "select max(tenant), string_agg(distinct tenant, ',') from gold.orders",
    "select 1/(case when tenant = 'globex' then 0 else 1 end) from gold.orders",
    "select tenant::int from gold.orders",
    "select (select min(tenant) from gold.orders where tenant > 'b')",
    "summarize gold.orders",
    "describe gold.orders",
    "select * from pg_class",
    "select * from pg_attribute",
    "select * from pg_tables",
    "select * from pg_description",
    "select * from pg_namespace",
    "select * from information_schema.tables",
    "select * from information_schema.columns",
    "select * from information_schema.schemata",
    "select * from information_schema.table_privileges",
    "select * from information_schema.column_privileges",
    "select * from pg_stat_user_tables",
    "select * from pg_stats",
    "select * from pg_type",
    "select * from pg_settings",
    "select * from pg_stat_activity",
    "select * from pg_roles",
    "select * from pg_user",
    "select * from pg_authid",
    "select 'bronze.secrets'::regclass",
    "select 'secrets'::regclass",
    "select to_regclass('bronze.secrets')",
    "select obj_description(oid) from pg_class",
    "select * from pg_policies",
    "select * from pg_views",
    "select * from _names",
    "select * from _comments",
    "select * from pg_catalog__pg_class",
    "select * from duckdb_tables()",
    "select * from duckdb_columns()",
    "select * from pg_catalog.pg_statio_user_tables",
    "select * from sqlite_master",
    "select * from main.pg_class",
    "select * from system.information_schema.tables",
    "select * from read_parquet('**/*.parquet')",
    "select * from '/etc/passwd'",
    "select * from glob('**')",
    "prepare x as select * from bronze.secrets",
    "declare c cursor with hold for select * from bronze.secrets",
    "set search_path to bronze; select * from secrets",
    "select current_setting('x.y', true)",
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_nobody_sees_what_is_not_theirs(shop, question):
    with shop.connect("alice", autocommit=True) as alice:
        if question.startswith("copy"):
            with alice.cursor().copy(question) as copy:
                told = b"".join(map(bytes, copy)).decode()
        else:
            told = everything(alice, *question.split("; "))
    hidden = [name for name in CANARIES if name in told]
    assert hidden == [], told[:500]
    if "secrets" not in question:
        assert "secrets" not in told
        assert "canary" not in told
    if "people" not in question:
        assert "people" not in told


def test_who_sees_nothing_is_told_nothing(shop):
    with shop.connect("carol", autocommit=True) as carol:
        told = everything(carol, *(question for question in QUESTIONS if not question.startswith("copy")))
        for name in (*CANARIES, "kinds"):
            assert name not in told
        assert carol.execute("select count(*) from pg_class").fetchone() == (0,)
        assert carol.execute("select count(*) from information_schema.columns").fetchone() == (0,)
        with pytest.raises(errors.UndefinedTable):
            carol.execute("select * from gold.orders")


@pytest.mark.parametrize(
    "bomb",
    [
        "select count(*) from pg_type a, pg_type b, pg_type c, pg_type d, pg_type e, pg_type f, pg_type g",
        "select sum(length(x)) from (select string_agg(a.typname || b.typname || c.typname || d.typname, ',') x "
        "from pg_type a, pg_type b, pg_type c, pg_type d, pg_type e)",
        "select len(list(s)) from pg_class, generate_series(1, 100000000000) s",
        "with recursive r as (select 1 x from pg_class union all select x + 1 from r) select max(x) from r",
        "select repeat('x', 1000000000) from pg_class",
        "select array_agg(a) from pg_type a, pg_type b, pg_type c, pg_type d, pg_type e",
        "select lpad('x', 2000000000, 'y') from pg_class",
        "select count(*) from generate_series(1, 1000000000000), pg_class",
    ],
)
def test_bombs_against_the_catalog_go_off_elsewhere(shop, bomb):
    with shop.connect("alice", autocommit=True) as alice:
        alice.execute("set statement_timeout = '2s'")
        with pytest.raises(psycopg.Error) as caught:
            alice.execute(bomb).fetchall()
        assert caught.value.sqlstate in ("57014", "53200", "42501", "42883", "22003", "42000"), caught.value
        assert alice.execute("select count(*) from pg_class").fetchone() == (1,)


@pytest.mark.parametrize(
    "attack",
    [
        "select read_text('/etc/passwd') from pg_class",
        "select * from pg_class, read_csv('/etc/passwd')",
        "copy (select * from pg_class) to '/tmp/x'",
        "select getenv('HOME') from pg_class",
        "select * from pg_class, duckdb_settings()",
        "with x as (copy (select 1) to '/tmp/x') select * from pg_class",
        "select current_setting('secret_directory') from pg_class",
        "select * from pg_class; attach '/tmp/x.db'",
        "install httpfs",
        "load httpfs",
        "pragma database_list",
        "select * from query('select 1'), pg_class",
        "select nextval('x') from pg_class",
        "set enable_external_access = true",
        "create table x as select * from pg_class",
        "select * from pg_read_file('/etc/passwd')",
        "select pg_ls_dir('/')",
        "select lo_import('/etc/passwd')",
        "select pg_sleep(100)",
        "select * from dblink('x')",
        "call pg_reload_conf()",
        "select pg_terminate_backend(pg_backend_pid()) from nothing",
        "create macro m() as 1",
        "export database '/tmp/x'",
        "select write_log('x') from pg_class",
        "select * from pragma_table_info('pg_class')",
        "select * from pg_class at (version => 1)",
    ],
)
def test_the_catalog_answers_questions_and_does_nothing_else(shop, attack):
    with shop.connect("alice", autocommit=True) as alice:
        *before, last = attack.split("; ")
        for part in before:
            alice.execute(part)
        with pytest.raises(psycopg.Error):
            alice.execute(last).fetchall()
        assert alice.execute("select 1").fetchone() == (1,)


def test_a_cancel_needs_the_secret(shop):
    slow = "select count(*) from range(1000000) a, range(1000000) b, range(1000) c"
    with shop.connect() as connection:
        process = connection.info.backend_pid
        failed = []

        def ask():
            try:
                connection.execute(slow)
            except psycopg.Error as error:
                failed.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(1)
        for guess in (0, 1, 0xFFFFFFFF):
            with socket.create_connection(("127.0.0.1", shop.port)) as other:
                other.sendall(b"".join(n.to_bytes(4, "big") for n in (16, 80877102, process, guess)))
                assert other.recv(10) == b""
        assert thread.is_alive()
        begun = time.monotonic()
        connection.cancel_safe()
        thread.join(60)
        assert [error.sqlstate for error in failed] == ["57014"]
        assert time.monotonic() - begun < 20  # at once, but for a busy machine


def test_a_client_that_goes_takes_its_question_with_it(shop):
    slow = "select count(*) from range(1000000) a, range(1000000) b, range(1000) c"
    pool = shop.app.query.pool
    with socket.create_connection(("127.0.0.1", shop.port)):
        from tests.apis.postgres.raw import Raw, message, text

        with Raw(shop.port) as client:
            client.sign_in("dev", TOKEN)
            client.send(message(b"Q", text(slow)))
            until(lambda: pool._running)
    until(lambda: not pool._running)


def until(true, timeout_s=30):
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def lake(tmp_path):
    return write_project(tmp_path / "own")


def test_a_key_that_ends_ends_its_connections(lake):
    app = open_project(str(lake))
    from lodestream.model.policy import Grant, User

    say(app, User("dora"), Grant("dora", "select", "gold"))
    text, other = key(app, "dora"), key(app, "dora")
    app.catalog.close()
    with serving(lake, passwords={"dora": text}) as shop:
        with contextlib.closing(shop.connect("dora", autocommit=True)) as first:
            stays = psycopg.connect(**shop.conninfo("dora") | {"password": other}, autocommit=True)
            busy = shop.connect("dora", autocommit=True)
            failed = []

            def ask():
                try:
                    busy.execute("select count(*) from range(1000000) a, range(1000000) b, range(1000) c")
                except psycopg.Error as error:
                    failed.append(error)

            thread = threading.Thread(target=ask)
            thread.start()
            assert first.execute("select count(*) from gold.orders").fetchone() == (ROWS,)
            KeyStore(app.keys_path).change(text.split("_")[2], revoked_us=now_us())
            begun = time.monotonic()
            until(lambda: _gone(first))
            assert time.monotonic() - begun < 5
            thread.join(20)
            assert len(failed) == 1
            assert stays.execute("select 1").fetchone() == (1,)
            stays.close()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            shop.connect("dora")


def _gone(connection):
    try:
        connection.execute("select 1")
    except psycopg.Error:
        return True
    return False


def test_a_grant_holds_from_the_next_question_on(lake):
    from lodestream.model.policy import Grant, User

    app = open_project(str(lake))
    say(app, User("dora"))
    text = key(app, "dora")
    app.catalog.close()
    with serving(lake, passwords={"dora": text}) as shop, shop.connect("dora", autocommit=True) as dora:
        assert dora.execute("select count(*) from pg_class").fetchone() == (0,)
        say(shop.app, Grant("dora", "select", "gold.orders"))
        until(lambda: dora.execute("select count(*) from pg_class").fetchone() == (1,))
        assert dora.execute("select count(*) from orders").fetchone() == (ROWS,)


def test_a_key_without_the_scope_is_refused(lake):
    app = open_project(str(lake))
    from lodestream.security.keys import ApiKey

    made = ApiKey("", "feeder", "", ("ingest:*",), now_us())
    text = KeyStore(app.keys_path).create("test", made)[0]
    with (
        serving(lake, passwords={"feeder": text}) as shop,
        pytest.raises(psycopg.OperationalError, match=r"scope query:\*"),
    ):
        shop.connect("feeder")


@pytest.fixture
def secured(tmp_path):
    """A project with certificates: the server's, and one of each client."""
    now = dt.datetime.now(dt.UTC)
    authority = Authority(tmp_path / "pki", now)
    server, client, other = authority.issue("server"), authority.issue("erin"), authority.issue("mallory")
    stranger = Authority(tmp_path / "strange", now, "Another authority").issue("erin")
    told = f"tls: {{certificate: '{server.certificate}', key: '{server.key}'"
    return tmp_path, authority, told, client, other, stranger


def test_tls_with_channel_binding(secured):
    tmp_path, authority, told, *_ = secured
    with serving(write_project(tmp_path / "shop", told + "}")) as shop:
        for more in ({"channel_binding": "require"}, {"channel_binding": "disable"}):
            given = {"sslmode": "verify-full", "sslrootcert": str(authority.certificate), "host": "localhost"} | more
            with psycopg.connect(**shop.conninfo() | given) as connection:
                assert connection.pgconn.ssl_in_use
                assert connection.execute("select count(*) from gold.orders").fetchone() == (ROWS,)
        with psycopg.connect(**shop.conninfo() | {"sslmode": "disable"}) as connection:
            assert not connection.pgconn.ssl_in_use


def test_client_certificates(secured):
    tmp_path, authority, told, client, other, stranger = secured
    server = f"{told}, client_ca: '{authority.certificate}'}}, "
    server += "identity: {certificates: {principals: {'subject:CN=erin': erin}}}"
    folder = write_project(tmp_path / "shop", server)
    app = open_project(str(folder))
    from lodestream.model.policy import Grant, User

    say(app, User("erin"), Grant("erin", "select", "gold"))
    app.catalog.close()
    with serving(folder, passwords={"erin": "no password"}) as shop:

        def connect(who, user="erin"):
            files = {"sslcert": str(who.certificate), "sslkey": str(who.key), "sslmode": "require"} if who else {}
            return psycopg.connect(**shop.conninfo("erin") | {"user": user} | files | {"sslmode": "require"})

        with connect(client) as erin:
            assert erin.execute("select current_user, count(*) from gold.orders").fetchone() == ("erin", ROWS)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            connect(other)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            connect(client, "dev")
        for who in (stranger, None):
            with pytest.raises(psycopg.OperationalError):
                connect(who)


def test_nothing_is_believed_that_came_before_tls(secured):
    tmp_path, _, told, *_ = secured
    from tests.apis.postgres.raw import Raw, fields, startup

    with serving(write_project(tmp_path / "shop", told + "}")) as shop, Raw(shop.port) as client:
        client.send(b"".join(n.to_bytes(4, "big") for n in (8, 80877103)) + startup(user="dev", database="shop"))
        assert client.exactly(1) == b"S"
        rest = client.exactly(1000)
        assert fields(rest[5:])["C"] == "08P01"


def test_the_same_work_for_a_name_that_nobody_has(shop):
    from tests.apis.postgres.raw import Raw, startup, text

    salts = []
    for user in ("alice", "nobody", "nobody", "somebody"):
        with Raw(shop.port) as client:
            client.send(startup(user=user, database="shop"))
            client.message()
            first = f"n,,n=,r={hashlib.sha256(user.encode()).hexdigest()}".encode()
            body = text("SCRAM-SHA-256") + len(first).to_bytes(4, "big") + first
            client.send(b"p" + (len(body) + 4).to_bytes(4, "big") + body)
            salts.append(client.message()[1].split(b",s=")[1].split(b",")[0])
    assert salts[1] == salts[2]
    assert len(set(salts)) == 3
