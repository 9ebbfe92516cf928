"""A key is shown once, kept as a digest, refused when it should be, and a change is seen by everybody."""

import json
import stat
import threading

import pytest

from lodestream.errors import AccessError, ConfigError
from lodestream.security.keys import ApiKey, KeyStore, scopes_of

NOW_US = 1_700_000_000_000_000


def made(store, **changes):
    given = {"name": "shop", "scopes": ("ingest:orders",), "created_us": NOW_US} | changes
    return store.create("Prod_EU", ApiKey(id="", digest="", **given))


@pytest.fixture
def store(tmp_path):
    return KeyStore(str(tmp_path / "access" / "keys.json"))


def test_the_file_has_no_usable_key(store, tmp_path):
    text, key = made(store)
    path = tmp_path / "access" / "keys.json"
    mark, place, identity, secret = text.split("_", 3)
    assert (mark, place, identity) == ("ls", "prodeu", key.id)
    assert len(secret) >= 43
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert store.authenticate(text, NOW_US) == key
    with pytest.raises(AccessError):
        store.authenticate(f"ls_prodeu_{key.id}_{key.digest}", NOW_US)


@pytest.mark.parametrize("text", ["", "ls", "ls_", "ls__", "ls___", "ls_a_b_c", "_" * 50, "ls_ü_ü_ü", "x" * 10_000])
def test_what_is_no_key(store, text):
    made(store)
    with pytest.raises(AccessError, match="no such key"):
        store.authenticate(text, NOW_US)


def test_expiry_and_revocation(store):
    text, key = made(store, expires_us=NOW_US + 10)
    assert store.authenticate(text, NOW_US + 9).id == key.id
    with pytest.raises(AccessError, match="expired"):
        store.authenticate(text, NOW_US + 10)
    other = KeyStore(store._path)
    assert other.change(key.id, revoked_us=NOW_US).state(NOW_US) == "revoked"
    with pytest.raises(AccessError, match="revoked"):
        store.authenticate(text, NOW_US)
    with pytest.raises(ConfigError, match="no such key"):
        store.change("nobody", revoked_us=NOW_US)


def test_an_expiry_only_comes_sooner(store):
    _, key = made(store, expires_us=NOW_US + 10)
    assert store.change(key.id, expires_us=NOW_US + 99).expires_us == NOW_US + 10
    assert store.change(key.id, expires_us=NOW_US + 5).expires_us == NOW_US + 5


def test_scopes(store):
    _, key = made(store, scopes=scopes_of(["ingest:a, ingest:b", "metrics:*", "ingest:a"]))
    assert key.scopes == ("ingest:a", "ingest:b", "metrics:*")
    asked = {"ingest:a": True, "ingest:c": False, "ingest:*": False, "metrics:read": True, "": False}
    assert {scope: key.allows(scope) for scope in asked} == asked
    for scopes in ((), ("ingest",), ("ingest:",), ("*:*",), ("ingest:A b",)):
        with pytest.raises(ConfigError, match="scope"):
            made(store, scopes=scopes)
    with pytest.raises(ConfigError, match="name"):
        made(store, name="a\nb")


def test_two_processes_may_make_keys_at_once(store):
    threads = [threading.Thread(target=made, args=(KeyStore(store._path),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.listed()) == 8


def test_a_broken_file_is_no_open_door(store, tmp_path):
    made(store)
    (tmp_path / "access" / "keys.json").write_text(json.dumps({"keys": [{"id": 1}]}))
    with pytest.raises(ConfigError, match="cannot be read"):
        store.authenticate("ls_a_b_c", NOW_US)
