"""Whatever is sent in place of a credential, the answer is a refusal, never another error."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestream.errors import AccessError
from lodestream.project.identity import CertificateSettings, OidcSettings
from lodestream.security.certificates import Certificates
from lodestream.security.identity import Identity
from lodestream.security.keys import ApiKey, KeyStore
from lodestream.security.oidc import Oidc, taken_apart

NOW_US = 1_800_000_000_000_000
ISSUER = OidcSettings(issuer="https://id.example", audience="lake")
PIECES = [b"n", b"y", b"p=tls-server-end-point", b",", b"n=", b"r=", b"a=", b"m=", b"c=", b"biws", b"p=", b"=2C", b"="]
SCRAM = st.lists(st.sampled_from([*PIECES, b"\xff", b"\0", b"x" * 20]), max_size=12).map(b"".join)
WORDS = ["eyJhbGciOiJub25lIn0", "eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUifQ", ".", "{", "e30", "W10", "bnVsbA", "ImEi", "-"]
TOKENS = st.lists(st.sampled_from([*WORDS, "=", "\ud800", "ls_a_", "ü"]), max_size=8).map("".join)


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise")
    keys = KeyStore(str(folder / "access" / "keys.json"))
    keys.create("dev", ApiKey("", "ann", "", ("query:*",), NOW_US))
    certificates = Certificates(CertificateSettings(principals={"dns:a": "ann"}), str(folder), lambda: NOW_US)
    return Identity(
        keys, lambda: NOW_US, "dev_token", oidc=Oidc([ISSUER], lambda: NOW_US, lambda _url: b"{}"),
        certificates=certificates,
    )  # fmt: skip


def refused(ask, *arguments):
    with pytest.raises(AccessError):
        ask(*arguments)


@settings(max_examples=300, deadline=None)
@given(text=st.one_of(TOKENS, st.text(max_size=60)))
def test_keys_and_tokens(identity, text):
    assert identity.must_ask(text) in (True, False)
    refused(identity.by_text, text, None)


@settings(max_examples=300, deadline=None)
@given(first=st.one_of(SCRAM, st.binary(max_size=60)), last=st.one_of(SCRAM, st.binary(max_size=60)))
def test_scram(identity, first, last):
    def talk():
        exchange = identity.exchange("ann", None, b"binding")
        exchange.first(first)
        exchange.final(last)

    refused(talk)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200), text=st.text(max_size=100))
def test_certificates(identity, content, text):
    refused(identity.by_certificate, content)
    refused(identity.by_forwarded_certificate, text)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=100))
def test_taking_apart(text):
    refused(taken_apart, text)
