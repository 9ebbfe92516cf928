"""One server for a folder of tests, with its owner, two people of different tenants, and one who sees nothing."""

import contextlib
import threading
from dataclasses import dataclass

import pytest

from lodestream.apis.postgres.server import Place, bind
from lodestream.app import App, now_us, open_project
from lodestream.catalog import store
from lodestream.catalog.entries import entry
from lodestream.model.policy import Grant, Mask, RowFilter, User
from lodestream.model.table import TableName
from lodestream.ports.authority import Event
from lodestream.security.keys import ApiKey, KeyStore
from tests.apis.postgres.lake import write_project

TOKEN = "a-token-for-tests"
_EVENT = Event("root", "cli", "cli", "test", "allowed")


@dataclass
class Served:
    """A running server and the passwords of its users."""

    app: App
    port: int
    passwords: dict[str, str]
    server: object

    def conninfo(self, user="dev", **more):
        """What libpq needs."""
        told = {
            "host": "127.0.0.1",
            "port": self.port,
            "user": user,
            "password": self.passwords[user],
            "dbname": "shop",
        }
        return told | more

    def connect(self, user="dev", **more):
        """A psycopg connection."""
        import psycopg

        return psycopg.connect(**self.conninfo(user), **more)


@contextlib.contextmanager
def serving(folder, token=TOKEN, passwords=None, **settings):
    """Serve a project in a thread of this process."""
    app = open_project(str(folder))
    found = app.serving()
    found = found.model_copy(update={"postgres": found.postgres.model_copy(update=settings)})
    with bind("127.0.0.1", 0, shared=False) as listener:
        server = app.postgres(found, token, listener, Place())
        started = threading.Event()
        thread = threading.Thread(target=server.run, args=(started.set,))
        thread.start()
        try:
            assert started.wait(30)
            yield Served(app, listener.getsockname()[1], {"dev": token} | (passwords or {}), server)
        finally:
            server.stop()
            thread.join(30)
            app.close()
            assert not thread.is_alive()


def key(app, name, **changes):
    """Make a key and give its text."""
    wanted = ApiKey("", name, "", ("query:*",), now_us(), **changes)
    return KeyStore(app.keys_path).create("test", wanted)[0]


def say(app, *policies):
    """Put grants and policies into the catalog."""
    with app.catalog.changing(_EVENT) as (rows, at):
        for one in policies:
            store.put(rows, entry(one, origin="", who="root", at_us=at))


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """The server that tests share; nothing that they do lasts."""
    folder = write_project(tmp_path_factory.mktemp("postgres") / "shop")
    app = open_project(str(folder))
    orders = TableName("gold", "orders")
    say(
        app, *map(User, ("alice", "bob", "carol")), Grant("alice", "select", "gold.orders"),
        Grant("bob", "select", "gold.orders"), Grant("bob", "select", "silver"),
        Mask("hide", ((orders, "customer"),), "'***'", ("bob",)),
        RowFilter("tenants", (orders,), "tenant = if(current_user() = 'alice', 'acme', 'globex')"),
    )  # fmt: skip
    passwords = {name: key(app, name) for name in ("alice", "bob", "carol")}
    app.close()
    with serving(folder, passwords=passwords) as served:
        yield served
