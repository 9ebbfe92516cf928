"""Open streams end with whatever let them in: keys, sessions, accounts, access tokens."""

import contextlib
import time

import httpx
import pytest

from lodestream.app import now_us, open_project
from lodestream.catalog import entries
from lodestream.model.policy import User
from lodestream.ports.authority import Event
from lodestream.security.keys import ApiKey, KeyStore
from tests.apis.conftest import serving, write_project
from tests.apis.issuer import AUDIENCE, Issuer

STREAM = "/api/live"
ENDS_S = 30


class Lake:
    """A served lake with a user, changed from outside as other processes would."""

    def __init__(self, folder, served):
        self.served, self.app = served, open_project(str(folder))
        self.keys = KeyStore(self.app.keys_path)
        self.text, self.key = self.make()

    def make(self, **changes):
        return self.keys.create("dev", ApiKey("", "ann", "", ("query:*",), now_us(), **changes))

    def revoke(self):
        self.keys.change(self.key.id, revoked_us=now_us())

    def expire(self):
        self.keys.change(self.key.id, expires_us=now_us())

    def declare(self, *users):
        kept = [entries.entry(user, origin="test") for user in users]
        self.app.catalog.declare("test", kept, Event("owner", "cli", "cli", "declare", "allowed"))

    def sign_in(self):
        answer = httpx.post(f"{self.served.url}/api/session", json={"key": self.text}, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.headers["set-cookie"].partition(";")[0], answer.json()["csrf"]


@pytest.fixture
def lake(tmp_path):
    folder = write_project(tmp_path / "shop")
    app = open_project(str(folder))
    app.catalog.declare(
        "test", [entries.entry(User("ann"), origin="test")], Event("owner", "cli", "cli", "declare", "allowed")
    )
    app.close()
    with serving(folder, token=None) as served:
        made = Lake(folder, served)
        yield made
        made.app.close()


@contextlib.contextmanager
def streaming(url, **headers):
    """An open stream that has sent something."""
    with httpx.stream("GET", f"{url}{STREAM}", headers=headers, timeout=ENDS_S) as answer:
        assert answer.status_code == 200, answer.read()
        lines = answer.iter_lines()
        assert next(lines)
        yield lines


def ended(lines):
    """The reason that the stream ended for."""
    found = list(lines)
    assert "event: end" in found
    return found[found.index("event: end") + 1]


def disable(lake):
    lake.declare(User("ann", disabled=True))


def remove(lake):
    lake.declare()


CHANGES = {"revoked": Lake.revoke, "expired": Lake.expire, "disabled": disable, "removed": remove}


@pytest.mark.parametrize("name", CHANGES)
def test_a_stream_ends_with_its_key(lake, name):
    with streaming(lake.served.url, authorization=f"Bearer {lake.text}") as lines:
        CHANGES[name](lake)
        assert ended(lines)
    headers = {"authorization": f"Bearer {lake.text}"}
    assert httpx.get(f"{lake.served.url}/api/session", headers=headers, timeout=30).status_code == 401


@pytest.mark.parametrize("name", CHANGES)
def test_a_stream_of_a_session_ends_with_the_key_that_began_it(lake, name):
    cookie, _ = lake.sign_in()
    with streaming(lake.served.url, cookie=cookie) as lines:
        CHANGES[name](lake)
        assert ended(lines)


def test_a_stream_ends_when_somebody_signs_out(lake):
    cookie, csrf = lake.sign_in()
    with streaming(lake.served.url, cookie=cookie) as lines:
        headers = {"cookie": cookie, "x-lodestream-csrf": csrf}
        assert httpx.delete(f"{lake.served.url}/api/session", headers=headers, timeout=30).status_code == 204
        assert ended(lines)


def test_others_stay(lake):
    other, _ = lake.make()
    with streaming(lake.served.url, authorization=f"Bearer {other}") as lines:
        with streaming(lake.served.url, authorization=f"Bearer {lake.text}") as first:
            lake.revoke()
            assert ended(first)
        until = time.monotonic() + 3
        for line in lines:
            assert line != "event: end"
            if time.monotonic() > until or line.startswith(":"):
                break
        lake.keys.change(next(key.id for key in lake.keys.listed() if key.id != lake.key.id), revoked_us=now_us())


def test_a_stream_ends_with_the_access_token(tmp_path):
    issuer = Issuer()
    told = f"{{issuer: '{issuer.url}', audience: {AUDIENCE}, name: corp, leeway: 1 second}}"
    try:
        folder = write_project(tmp_path / "shop", f"identity: {{oidc: [{told}]}}")
        with serving(folder, token=None) as served:
            text = issuer.token(issuer.claims(exp=int(time.time()) + 4))
            with streaming(served.url, authorization=f"Bearer {text}") as lines:
                assert ended(lines)
    finally:
        issuer.close()
