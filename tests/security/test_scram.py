"""SCRAM-SHA-256: the RFC's own exchange, an independent client, forgeries, and the same work for everybody."""

import base64
import hashlib
import hmac
import itertools
import secrets
import threading

import pytest

from lodestream.errors import AccessError
from lodestream.model.access import Principal
from lodestream.security import scram
from lodestream.security.identity import Identity
from lodestream.security.keys import ApiKey, KeyStore
from lodestream.security.networks import AddressError, address
from lodestream.security.scram import ScramServer, Verifier, verifier

NOW_US = 1_800_000_000_000_000


def hmac256(key, text):
    return hmac.new(key, text, hashlib.sha256).digest()


class Client:
    """A client written from RFC 5802's text alone."""

    def __init__(self, user, password, *, flag="n", binding=b"", nonce=None):
        self.bare = f"n={user.replace('=', '=3D').replace(',', '=2C')},r={nonce or secrets.token_hex(12)}"
        self.header, self.binding, self.password = f"{flag},,", binding, password
        self.first = f"{self.header}{self.bare}".encode()

    def final(self, answer, change=lambda text: text):
        told = answer.decode()
        parts = dict(part.split("=", 1) for part in told.split(","))
        salted = hashlib.pbkdf2_hmac("sha256", self.password.encode(), base64.b64decode(parts["s"]), int(parts["i"]))
        bound = base64.b64encode(self.header.encode() + self.binding).decode()
        without = f"c={bound},r={parts['r']}"
        message = f"{self.bare},{told},{without}".encode()
        key = hmac256(salted, b"Client Key")
        signature = hmac256(hashlib.sha256(key).digest(), message)
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
        self.expects = b"v=" + base64.b64encode(hmac256(hmac256(salted, b"Server Key"), message))
        return change(f"{without},p={proof}").encode()


@pytest.fixture
def store(tmp_path):
    return KeyStore(str(tmp_path / "access" / "keys.json"))


@pytest.fixture
def identity(store):
    return Identity(store, lambda: NOW_US)


def key(store, name="alice", scopes=("query:*",), **changes):
    return store.create("prod", ApiKey("", name, "", scopes, NOW_US, **changes))


def talk(identity, user, password, where=None, *, username=None, binding=None, **options):
    exchange, client = (
        identity.exchange(username, address(where) if where else None, binding),
        Client(user, password, **options),
    )
    plus = options.get("flag", "n").startswith("p")
    principal, told = exchange.final(client.final(exchange.first(client.first, plus=plus)))
    assert told == client.expects
    return principal


def test_the_exchange_of_rfc_7677():
    salted = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    kept = verifier("pencil", salted, 4096)
    server = ScramServer(
        None, lambda name: {"user": salted}[name], lambda _name: [kept], nonce="%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    assert server.first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    final = (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert server.final(final) == (0, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    assert server.username == "user"


def test_each_active_key_of_a_name_lets_in(store, identity):
    texts = [key(store)[0] for _ in range(3)]
    ids = [one.id for one in store.listed()]
    other, _ = key(store, "bob")
    for text, made in zip(texts, ids, strict=True):
        found = talk(identity, "alice", text)
        assert (found.name, found.via, found.scopes) == ("alice", f"key:{made}", ("query:*",))
    for user, text in (("alice", other), ("bob", texts[0]), ("eve", other), ("alice", "pencil"), ("", texts[0])):
        with pytest.raises(AccessError, match="wrong"):
            talk(identity, user, text)
    assert talk(identity, "", texts[0], username="alice").name == "alice", "Postgres clients send no name"


def test_a_key_that_ended_does_not_let_in(store, identity):
    revoked, one = key(store)
    expired, _ = key(store, expires_us=NOW_US)
    good, _ = key(store)
    store.change(one.id, revoked_us=NOW_US)
    for text in (revoked, expired):
        with pytest.raises(AccessError):
            talk(identity, "alice", text)
    assert talk(identity, "alice", good)


def test_addresses_hold_for_scram_too(store, identity):
    text, _ = key(store, networks=("10.0.0.0/8",))
    assert talk(identity, "alice", text, "10.1.1.1")
    assert talk(identity, "alice", text, "::ffff:10.1.1.1")
    for where in ("11.1.1.1", "::ffff:11.1.1.1", None):
        with pytest.raises(AddressError):
            talk(identity, "alice", text, where)


def test_the_token_for_development(store):
    identity = Identity(store, lambda: NOW_US, token="dev_secret")
    assert talk(identity, "dev", "dev_secret").is_owner
    for user, text in (("dev", "dev_secreT"), ("alice", "dev_secret")):
        with pytest.raises(AccessError):
            talk(identity, user, text)
    with pytest.raises(AccessError):
        talk(Identity(store, lambda: NOW_US), "dev", "dev_secret")


def test_channel_binding(store, identity):
    text, _ = key(store)
    flag, binding = "p=tls-server-end-point", b"digest of the certificate"
    found = talk_bound(identity, text, flag, binding, offered=binding)
    assert found.name == "alice"
    for changes in (
        {"flag": flag, "binding": b"of another server", "offered": binding},  # a man in the middle
        {"flag": "y", "binding": b"", "offered": binding},  # who took the mechanism out of the offer
        {"flag": flag, "binding": binding, "offered": None},
        {"flag": "p=tls-unique", "binding": binding, "offered": binding},
    ):
        with pytest.raises(AccessError):
            talk_bound(identity, text, **changes)
    assert talk_bound(identity, text, "y", b"", offered=None)
    assert talk_bound(identity, text, "n", b"", offered=binding), "a client without channel binding may leave it"


def talk_bound(identity, text, flag, binding, offered):
    exchange, client = identity.exchange("alice", None, offered), Client("", text, flag=flag, binding=binding)
    answer = exchange.first(client.first, plus=flag.startswith("p"))
    return exchange.final(client.final(answer))[0]


BAD_FIRST = [
    b"", b"n", b"n,,", b"n,,n=a", b"n,,r=x,n=a", b"n,a=bob,n=alice,r=x", b"x,,n=a,r=x", b"n,,n=a,r=", b"n,,m=1,n=a,r=x",
    b"n,,n=a=b,r=x", b"n,,n=\xff,r=x", b"n,,n=a,r=" + b"x" * 5000, b"p=tls-server-end-point,,n=a,r=x",
]  # fmt: skip


@pytest.mark.parametrize("message", BAD_FIRST, ids=range(len(BAD_FIRST)))
def test_a_first_message_that_cannot_be(identity, message):
    with pytest.raises(AccessError):
        identity.exchange(None, None).first(message)


CHANGES = [
    lambda text: text.replace("c=biws", "c=eSws"), lambda text: text.replace("c=biws", "c=?"),
    lambda text: text.replace(",r=", ",r=x"), lambda text: text.rpartition(",p=")[0], lambda text: text[:-4],
    lambda text: text + "AAAA", lambda text: text.rpartition(",p=")[0] + ",p=" + base64.b64encode(bytes(32)).decode(),
    lambda text: "", lambda text: ",p=", lambda text: text.replace(",p=", ",m=1,p="), lambda text: text[:-2] + "%=",
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=range(len(CHANGES)))
def test_a_final_message_that_was_changed(store, identity, change):
    text, _ = key(store)
    exchange, client = identity.exchange("alice", None), Client("", text)
    with pytest.raises(AccessError):
        exchange.final(client.final(exchange.first(client.first), change))


def test_an_answer_is_good_for_one_exchange(store, identity):
    text, _ = key(store)
    first, client = identity.exchange("alice", None), Client("", text, nonce="same")
    message = client.final(first.first(client.first))
    assert first.final(message)
    again = identity.exchange("alice", None)
    again.first(client.first)
    with pytest.raises(AccessError, match="another exchange"):
        again.final(message)


def test_the_same_work_for_a_name_that_nobody_has(store, identity, monkeypatch):
    """Counted, not timed: digests and comparisons are as many for a wrong key as for no such user."""
    for _ in range(3):
        key(store)
    key(store, "bob")
    counts = {}

    def counted(function):
        def call(*arguments):
            counts[now] = counts.get(now, 0) + 1
            return function(*arguments)

        return call

    monkeypatch.setattr(scram, "_hmac", counted(scram._hmac))
    monkeypatch.setattr(scram, "_h", counted(scram._h))
    for now in ("alice", "bob", "nobody", "nobody else"):
        with pytest.raises(AccessError) as refused:
            talk(identity, now, "ls_prod_000000000000_wrong")
        assert refused.value.message == scram._REFUSED
    assert len(set(counts.values())) == 1, counts
    assert counts["bob"] >= 9


def test_the_salt_of_a_name_that_nobody_has_is_stable(store, identity):
    key(store)

    def shown(user, among=identity):
        client = Client(user, "x", nonce="n")
        return among.exchange(None, None).first(client.first).decode().split(",")[1:]

    other = Identity(KeyStore(store._path), lambda: NOW_US)
    assert shown("nobody") == shown("nobody") == shown("nobody", other)
    assert len({tuple(shown(user)) for user in ("alice", "bob", "nobody")}) == 3
    assert {len(shown(user)[0]) for user in ("alice", "nobody")} == {len(shown("alice")[0])}


def test_what_is_kept_lets_nobody_in(store, identity):
    """Whoever reads the file has a digest and a verifier, and neither is a key."""
    text, made = key(store)
    path = store._path
    with open(path, encoding="utf-8") as file:
        content = file.read()
    secret = text.rpartition("_")[2]
    assert secret not in content
    for kept in (made.digest, made.stored_key, made.server_key, content[:4000]):
        with pytest.raises(AccessError):
            talk(identity, "alice", kept)
        with pytest.raises(AccessError):
            identity.by_text(f"ls_prod_{made.id}_{kept}", None)


def test_a_file_of_keys_from_before_scram_is_read(store, identity):
    text, _ = key(store, scopes=("ingest:*",))
    import json

    with open(store._path, encoding="utf-8") as file:
        old = json.load(file)
    del old["secret"]
    for one in old["keys"]:
        del one["stored_key"], one["server_key"]
    with open(store._path, "w", encoding="utf-8") as file:
        json.dump(old, file)
    assert identity.by_text(text, None).scopes == ("ingest:*",)
    with pytest.raises(AccessError):
        talk(identity, "alice", text)
    new, _ = key(store)
    assert talk(identity, "alice", new)
    assert identity.by_text(text, None)


def test_a_directory_decides_who_has_an_account(store):
    known = {"alice": Principal("alice", "user", frozenset({"analysts"}), {"region": "EU"})}
    known["root"] = Principal("root", "owner", frozenset({"admins"}))
    identity = Identity(store, lambda: NOW_US, directory=known.get)
    text, _ = key(store)
    found = identity.by_text(text, None)
    assert (found.kind, found.groups, dict(found.attributes)) == ("user", {"analysts"}, {"region": "EU"})
    assert identity.still_valid(found)
    known["alice"] = Principal("alice", "user", frozenset({"others"}))
    assert identity.current(found).groups == {"others"}
    del known["alice"]
    assert not identity.still_valid(found)
    with pytest.raises(AccessError, match="no account"):
        identity.by_text(text, None)
    with pytest.raises(AccessError):
        talk(identity, "alice", text)
    mixed, _ = key(store, "shop", ("query:*", "ingest:orders", "admin:*"))
    assert identity.by_text(mixed, None).scopes == ("ingest:orders",)
    root, _ = key(store, "root")
    assert not identity.by_text(root, None).is_owner, "no key makes an owner"


def test_a_principal_ends_with_their_key(store):
    times = itertools.count(NOW_US)
    identity = Identity(store, lambda: next(times))
    text, made = key(store, expires_us=NOW_US + 1000)
    found = identity.by_text(text, None)
    assert identity.still_valid(found)
    KeyStore(store._path).change(made.id, revoked_us=NOW_US)
    assert not identity.still_valid(found)
    assert not identity.still_valid(Principal("dev", "owner", via="token"))
    assert not identity.still_valid(Principal("x", via="")), "nobody knows where they came from"


def test_exchanges_on_several_threads(store, identity):
    text, _ = key(store)
    found = []
    threads = [threading.Thread(target=lambda: found.append(talk(identity, "alice", text).name)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["alice"] * 8


def test_a_verifier_of_nothing_fits_nothing(store, identity):
    key(store)
    key(store)
    assert [one for one, _ in identity.candidates("nobody")] == [Verifier(bytes(32), bytes(32))] * 2
    with pytest.raises(AccessError):
        identity.admitted(None, None)
