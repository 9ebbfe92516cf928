"""Sessions: they end when idle, in the end in any case, and with the credential; the file has no usable cookie."""

import stat
import threading

import pytest

from lodestream.errors import AccessError
from lodestream.model.access import Principal
from lodestream.security.identity import Identity
from lodestream.security.keys import ApiKey, KeyStore
from lodestream.security.networks import AddressError, address
from lodestream.security.sessions import Sessions, csrf_token

MINUTE_US = 60_000_000
ANN = Principal("ann", "user", frozenset({"analysts"}), {"region": "EU"}, ("query:*",), "oidc:corp", None)


class Clock:
    def __init__(self):
        self.now = 1_800_000_000_000_000

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "access" / "sessions.db"


@pytest.fixture
def sessions(path, clock):
    made = Sessions(str(path), clock, 10 * MINUTE_US, 60 * MINUTE_US)
    yield made
    made.close()


def test_who_signed_in_comes_back_in_any_process(sessions, path, clock):
    cookie = sessions.begin(ANN)
    other = Sessions(str(path), clock, 10 * MINUTE_US, 60 * MINUTE_US)
    assert other.find(cookie).principal == ANN
    other.end_by_cookie(cookie)
    other.close()
    assert sessions.find(cookie) is None
    assert sessions.find("") is None
    assert sessions.find("x" * 100_000) is None


def test_idle_and_absolute_ends(sessions, clock):
    cookie = sessions.begin(ANN)
    for _ in range(5):
        clock.now += 9 * MINUTE_US
        assert sessions.find(cookie) is not None
    clock.now += 9 * MINUTE_US
    assert sessions.find(cookie, used=False) is not None
    clock.now += 2 * MINUTE_US
    assert sessions.find(cookie) is None, "idle, for a look at it is no use"
    cookie = sessions.begin(ANN)
    for _ in range(6):
        clock.now += 9 * MINUTE_US
        assert sessions.find(cookie) is not None
    clock.now += 6 * MINUTE_US
    assert sessions.find(cookie) is None


def test_it_does_not_outlive_the_credential(sessions, clock):
    cookie = sessions.begin(Principal("ann", expires_us=clock.now + 5 * MINUTE_US))
    clock.now += 5 * MINUTE_US
    assert sessions.find(cookie) is None


def test_the_file_has_no_usable_cookie(sessions, path):
    cookies = [sessions.begin(ANN) for _ in range(3)]
    found = b"".join(one.read_bytes() for one in path.parent.iterdir())
    assert b"ann" in found
    for cookie in cookies:
        assert cookie.encode() not in found
        assert csrf_token(cookie).encode() not in found
    for one in path.parent.iterdir():
        assert stat.S_IMODE(one.stat().st_mode) == 0o600, one
    identity = sessions.find(cookies[0]).id
    assert sessions.find(identity) is None


def test_only_so_many_of_one(sessions, clock):
    cookies = []
    for _ in range(105):
        clock.now += 1
        cookies.append(sessions.begin(ANN))
    other = sessions.begin(Principal("bob"))
    alive = [sessions.find(cookie) is not None for cookie in cookies]
    assert alive == [False] * 5 + [True] * 100
    assert sessions.find(other)


def test_many_threads(sessions):
    cookies = []
    threads = [threading.Thread(target=lambda: cookies.append(sessions.begin(ANN))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(sessions.find(cookie) for cookie in cookies)
    assert len(set(cookies)) == 16


@pytest.fixture
def identity(tmp_path, sessions, clock):
    known = {"ann": Principal("ann", "user", frozenset({"analysts"}))}
    found = Identity(KeyStore(str(tmp_path / "access" / "keys.json")), clock, "dev_token", known.get, sessions=sessions)
    found.known = known
    return found


def signed_in(identity, clock, *scopes, **changes):
    text, key = identity.keys.create("dev", ApiKey("", "ann", "", scopes or ("query:*",), clock.now, **changes))
    return identity.begin_session(identity.by_text(text, None)), key


def test_a_session_is_as_good_as_its_key(identity, clock):
    cookie, key = signed_in(identity, clock)
    found = identity.by_session(cookie)
    assert (found.name, found.groups, found.scopes) == ("ann", {"analysts"}, ("query:*",))
    assert found.via.startswith("session:")
    assert found.via.endswith(f"/key:{key.id}")
    assert identity.key_of(found).id == key.id
    assert identity.still_valid(found)
    identity.known["ann"] = Principal("ann", "user", frozenset({"others"}))
    assert identity.by_session(cookie).groups == {"others"}, "groups are those of now"
    assert identity.current(found).groups == {"others"}
    KeyStore(identity.keys._path).change(key.id, revoked_us=clock.now)
    assert identity.by_session(cookie) is None
    assert not identity.still_valid(found)


def test_a_session_is_good_where_its_key_is(identity, clock):
    cookie, _ = signed_in(identity, clock)
    assert identity.by_session(cookie, address("8.8.8.8"))
    text, _ = identity.keys.create("dev", ApiKey("", "ann", "", ("query:*",), clock.now, networks=("10.0.0.0/8",)))
    cookie = identity.begin_session(identity.by_text(text, address("10.1.1.1")))
    assert identity.by_session(cookie, address("10.2.2.2"))
    for where in (address("8.8.8.8"), None):
        with pytest.raises(AddressError):
            identity.by_session(cookie, where)


def test_a_session_ends_with_the_account(identity, clock):
    cookie, _ = signed_in(identity, clock)
    found = identity.by_session(cookie)
    del identity.known["ann"]
    assert identity.by_session(cookie) is None
    assert not identity.still_valid(found)


def test_signing_out_ends_what_is_open(identity, clock):
    cookie, _ = signed_in(identity, clock)
    found = identity.by_session(cookie)
    identity.end_session(cookie)
    assert not identity.still_valid(found)
    assert identity.by_session(cookie) is None


def test_a_key_that_cannot_ask_does_not_sign_in(identity, clock):
    with pytest.raises(AccessError, match="sign in"):
        signed_in(identity, clock, "ingest:*", "metrics:read")


def test_the_owner_s_session_ends_with_the_token(identity, clock):
    cookie = identity.begin_session(identity.by_text("dev_token", None))
    found = identity.by_session(cookie)
    assert found.is_owner
    assert "dev_token" not in found.via
    for token in ("dev_other", None):
        identity.token = token
        assert identity.by_session(cookie) is None
        assert not identity.still_valid(found)


def test_what_cannot_be_found_any_more_lets_nobody_in(identity, clock, sessions):
    for via in ("oidc:corp", "certificate:1f", "key:none", "", "session:x/key:y", "cli"):
        cookie = sessions.begin(Principal("eve", "owner", via=via))
        assert identity.by_session(cookie) is None
