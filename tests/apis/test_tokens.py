"""Access tokens of an identity provider: good ones come in, forged ones are refused, each for its own reason."""

import contextlib
import json
import threading
import time

import httpx
import pytest

from lodestream.catalog import entries
from lodestream.errors import AccessError
from lodestream.model.policy import User
from lodestream.ports.authority import Event
from lodestream.project.identity import OidcSettings
from lodestream.security.oidc import Oidc
from tests.apis.conftest import serving, write_project
from tests.apis.issuer import (
    AUDIENCE,
    OTHER_TENANT,
    PERSON,
    TENANT,
    Issuer,
    b64,
    der,
    ec_key,
    jwk,
    pem,
    rsa_key,
)  # fmt: skip

NOW = int(time.time())
STRANGER, STRANGER_EC, WEAK = rsa_key(), ec_key(), rsa_key(1024)


def publish(issuer):
    """Publish keys that must not count, beside the good ones."""
    issuer.published += [
        jwk(WEAK, "weak"), jwk(rsa_key(), "sealing", use="enc"), {"kty": "oct", "kid": "shared", "k": b64(b"x" * 32)},
        jwk(rsa_key(), "double"), jwk(rsa_key(), "double"), jwk(issuer.keys["first"], "ps", alg="PS256"),
        jwk(issuer.keys["first"], "elsewhere", issuer=f"{issuer.base}/{OTHER_TENANT}/v2.0"),
        jwk(issuer.keys["first"], "anywhere", issuer=f"{issuer.base}/{{tenantid}}/v2.0"),
    ]  # fmt: skip
    issuer.keys["double"] = issuer.keys["first"]


@pytest.fixture(scope="module")
def issuer():
    found = Issuer()
    publish(found)
    yield found
    found.close()


@pytest.fixture(scope="module")
def served(issuer, tmp_path_factory):
    standard = f"{{issuer: '{issuer.url}', audience: {AUDIENCE}, name: corp, clients: [console, robot], "
    standard += "required_scopes: [lake.read, lake.admin], required_roles: [Lake.Robot], "
    standard += "groups: {staff: analysts}, attributes: {region: extension_region}}"
    entra = f"{{issuer: '{issuer.base}/{TENANT}/v2.0', audience: {AUDIENCE}, name: microsoft, profile: entra, "
    entra += "clients: [console, robot], required_scopes: [Lake.Read], required_roles: [Lake.Robot]}"
    folder = write_project(tmp_path_factory.mktemp("tokens") / "shop", f"identity: {{oidc: [{standard}, {entra}]}}")
    with serving(folder, token=None) as running:
        yield running


def ask(served, text):
    headers = {"authorization": f"Bearer {text}"}
    return httpx.get(f"{served.url}/api/session", headers=headers, timeout=30)


# Good ones ------------------------------------------------------------------------------------------------------------

GOOD = {
    "plain": lambda i: i.token(),
    "es256": lambda i: i.token(alg="ES256", kid="curve"),
    "several audiences": lambda i: i.token(i.claims(aud=["other", AUDIENCE])),
    "typ JWT with a scope": lambda i: i.token(typ="JWT"),
    "no typ": lambda i: i.token(typ=None),
    "typ in full": lambda i: i.token(typ="application/at+jwt"),
    "expired within the leeway": lambda i: i.token(i.claims(exp=int(time.time()) - 40)),
    "from a clock that is ahead": lambda i: i.token(i.claims(nbf=int(time.time()) + 40, iat=int(time.time()) + 40)),
    "without nbf and iat": lambda i: i.token(i.claims(nbf=None, iat=None)),
    "scopes as a list": lambda i: i.token(i.claims(scope=["lake.admin"])),
    "an application": lambda i: i.token(i.claims(sub="robot", client_id="robot", scope=None, roles=["Lake.Robot"])),
    "entra 2.0": lambda i: i.token(i.entra_claims(), typ="JWT"),
    "entra 1.0": lambda i: i.token(i.entra_claims("1.0"), typ="JWT"),
    "entra with a key of any tenant": lambda i: i.token(i.entra_claims(), typ="JWT", kid="anywhere"),
    "entra application": lambda i: i.token(
        i.entra_claims(scp=None, sub=PERSON, roles=["Lake.Robot"], azp="robot"), typ="JWT"
    ),
    "entra application that says so": lambda i: i.token(
        i.entra_claims("1.0", scp=None, idtyp="app", roles=["Lake.Robot"], appid="robot"), typ="JWT"
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_token_comes_in(issuer, served, name):
    answer = ask(served, GOOD[name](issuer))
    assert answer.status_code == 200, answer.text
    assert answer.json()["kind"] == ("service" if "application" in name else "user")


# Forged ones ----------------------------------------------------------------------------------------------------------


def claims(**changes):
    return lambda i: i.token(i.claims(**changes))


def entra(version="2.0", tenant=TENANT, kid="first", **changes):
    return lambda i: i.token(i.entra_claims(version, tenant, **changes), typ="JWT", kid=kid)


def twice(name, value):
    def forged(i):
        told = json.dumps(i.claims())
        return i.token(raw=f'{told[:-1]}, "{name}": {json.dumps(value)}}}')

    return forged


def unsigned(alg):
    def forged(i):
        head, body, _ = i.token(alg=alg).split(".")
        return f"{head}.{body}."

    return forged


def resigned(change):
    """A token whose parts were changed after it was signed."""
    return lambda i: ".".join(change(*i.token().split(".")))


def swapped(i):
    head, _, sign = i.token().split(".")
    return f"{head}.{b64(json.dumps(i.claims(sub='root')))}.{sign}"


FORGED = {
    # the signature
    "alg none": unsigned("none"),
    "alg None": unsigned("None"),
    "alg NONE": unsigned("NONE"),
    "alg empty": unsigned(""),
    "alg none and a signature": lambda i: i.token(alg="none") + "AAAA",
    "hmac with the public key as pem": lambda i: i.token(alg="HS256", key=pem(i.keys["first"])),
    "hmac with the public key as pem, no last line": lambda i: i.token(alg="HS256", key=pem(i.keys["first"]).strip()),
    "hmac with the public key as der": lambda i: i.token(alg="HS256", key=der(i.keys["first"])),
    "hmac with nothing": lambda i: i.token(alg="HS256", key=b"\0"),
    "hmac with a published secret": lambda i: i.token(alg="HS256", key=b"x" * 32, kid="shared"),
    "hmac 512": lambda i: i.token(alg="HS512", key=pem(i.keys["first"])),
    "RS384": lambda i: i.token(alg="RS384"),
    "RS512": lambda i: i.token(alg="RS512"),
    "PS256": lambda i: i.token(alg="PS256"),
    "PS256 with its own key": lambda i: i.token(alg="PS256", kid="ps"),
    "rs256 in small letters": lambda i: i.token(
        alg="RS256", header=json.dumps({"alg": "rs256", "kid": "first", "typ": "at+jwt"})
    ),
    "alg as a list": lambda i: i.token(alg=["RS256"]),
    "no alg": lambda i: i.token(header='{"kid":"first"}'),
    "RS256 with the key of a curve": lambda i: i.token(kid="curve"),
    "ES256 with a key of RSA": lambda i: i.token(alg="ES256", kid="first"),
    "ES256 of zeros": lambda i: i.token(alg="ES256", kid="curve").rpartition(".")[0] + "." + b64(bytes(64)),
    "signed by a stranger": lambda i: i.token(key=STRANGER),
    "ES256 by a stranger": lambda i: i.token(alg="ES256", kid="curve", key=STRANGER_EC),
    "signed with a weak key": lambda i: i.token(kid="weak", key=WEAK),
    "signed with a key for sealing": lambda i: i.token(kid="sealing"),
    "a key id that stands for two": lambda i: i.token(kid="double"),
    "another's signature": lambda i: ".".join([*i.token().split(".")[:2], i.token(i.claims(sub="x")).split(".")[2]]),
    "claims changed": swapped,
    "one bit changed": resigned(lambda h, b, s: (h, b, ("A" if s[0] != "A" else "B") + s[1:])),
    "signature cut": resigned(lambda h, b, s: (h, b, s[:-4])),
    "no signature": resigned(lambda h, b, s: (h, b, "")),
    "signature of one byte more": resigned(lambda h, b, s: (h, b, s + "AAAA")),
    "padding": resigned(lambda h, b, s: (h, b, s + "==")),
    "other alphabet": resigned(lambda h, b, s: (h, b, s.replace("-", "+").replace("_", "/") + "+")),
    "four parts": resigned(lambda h, b, s: (h, b, s, s)),
    "five parts": resigned(lambda h, b, s: (h, b, s, s, s)),
    "two parts": resigned(lambda h, b, s: (h, b)),
    "an empty part": resigned(lambda h, b, s: (h, "", s)),
    # the header
    "no kid": lambda i: i.token(kid=None),
    "empty kid": lambda i: i.token(kid=""),
    "kid 1": lambda i: i.token(kid=1),
    "unknown kid": lambda i: i.token(kid="gone"),
    "kid as a list": lambda i: i.token(kid=["first"]),
    "kid as a path": lambda i: i.token(kid="../../../../../../dev/null", alg="HS256", key=b"\0"),
    "kid as a URL": lambda i: i.token(kid=f"{i.base}/evil", key=STRANGER),
    "kid as SQL": lambda i: i.token(kid="x' union select 'key' --", alg="HS256", key=b"key"),
    "kid in other letters": lambda i: i.token(kid="First"),
    "kid with a blank": lambda i: i.token(kid="first "),
    "a long kid": lambda i: i.token(kid="x" * 5000),
    "jku": lambda i: i.token(jku=f"{i.base}/evil", key=STRANGER),
    "jku of the issuer": lambda i: i.token(jku=f"{i.base}/keys"),
    "x5u": lambda i: i.token(x5u=f"{i.base}/evil", key=STRANGER),
    "x5c": lambda i: i.token(x5c=["MIIB"], key=STRANGER),
    "jwk": lambda i: i.token(jwk=jwk(STRANGER, "first"), key=STRANGER),
    "jwk with the issuer's key": lambda i: i.token(jwk=jwk(i.keys["first"], "first")),
    "crit": lambda i: i.token(crit=["exp"]),
    "crit of nothing": lambda i: i.token(crit=[]),
    "b64 false": lambda i: i.token(crit=["b64"], b64=False),
    "zip": lambda i: i.token(zip="DEF"),
    "nested": lambda i: i.token(cty="JWT"),
    "typ of a logout": lambda i: i.token(typ="logout+jwt"),
    "typ of a proof": lambda i: i.token(typ="dpop+jwt"),
    "typ 1": lambda i: i.token(typ=1),
    "alg twice": lambda i: i.token(header='{"alg":"none","alg":"RS256","kid":"first","typ":"at+jwt"}'),
    "kid twice": lambda i: i.token(header='{"alg":"RS256","kid":"gone","kid":"first","typ":"at+jwt"}'),
    "header is a list": lambda i: i.token(header='["RS256"]'),
    "header is no JSON": lambda i: i.token(header="{"),
    # whose, and for whom
    "other issuer": claims(iss="https://evil.example"),
    "no issuer": claims(iss=None),
    "issuer and a slash": lambda i: i.token(i.claims(iss=i.url + "/")),
    "issuer in a list": lambda i: i.token(i.claims(iss=[i.url])),
    "issuer in capitals": lambda i: i.token(i.claims(iss=i.url.upper())),
    "issuer with something before": lambda i: i.token(i.claims(iss="x" + i.url)),
    "issuer below": lambda i: i.token(i.claims(iss=i.url + "/evil")),
    "other audience": claims(aud="api://other"),
    "no audience": claims(aud=None),
    "audience of nothing": claims(aud=[]),
    "audience with something behind": claims(aud=AUDIENCE + "/x"),
    "audience in part": claims(aud="api://lode"),
    "other audiences": claims(aud=["a", "b"]),
    "audience as an object": claims(aud={AUDIENCE: 1}),
    "audience 1": claims(aud=1),
    "other client": claims(client_id="evil"),
    "no client": claims(client_id=None),
    "client as a list": claims(client_id=["console"]),
    "no subject": claims(sub=None),
    "empty subject": claims(sub=""),
    "subject 1": claims(sub=1),
    "subject with a line break": claims(sub="a\nb"),
    "subject with a zero": claims(sub="a\0b"),
    "long subject": claims(sub="x" * 300),
    # when
    "expired": claims(exp=NOW - 120),
    "expired long ago": claims(exp=0),
    "no exp": claims(exp=None),
    "exp as text": claims(exp=str(NOW + 300)),
    "exp true": claims(exp=True),
    "exp with a fraction": claims(exp=NOW + 300.5),
    "exp below zero": claims(exp=-1),
    "exp without end": claims(exp=10**30),
    "exp as a list": claims(exp=[NOW + 300]),
    "exp infinite": lambda i: i.token(raw=json.dumps(i.claims(exp=0)).replace('"exp": 0', '"exp": Infinity')),
    "exp not a number": lambda i: i.token(raw=json.dumps(i.claims(exp=0)).replace('"exp": 0', '"exp": NaN')),
    "not yet": claims(nbf=NOW + 7200),
    "nbf as text": claims(nbf="0"),
    "made in the future": claims(iat=NOW + 7200),
    # which kind
    "id_token": lambda i: i.token(i.claims(scope=None, client_id=None, azp="console", nonce="n"), typ="JWT"),
    "id_token without nonce": lambda i: i.token(i.claims(scope=None, client_id=None, azp="console"), typ="JWT"),
    "id_token that calls itself at+jwt": claims(nonce="n"),
    "at_hash": claims(at_hash="x"),
    "c_hash": claims(c_hash="x"),
    "typ ID": claims(typ="ID"),
    "refresh token": claims(typ="Refresh"),
    "bound to a key": claims(cnf={"jkt": "x"}),
    "lacks the scope": claims(scope="openid"),
    "no scope": claims(scope=None),
    "scope as part of a word": claims(scope="lake.reader"),
    "application without the role": claims(sub="robot", client_id="robot", scope="lake.read"),
    "application with another role": claims(sub="robot", client_id="robot", roles=["Other"]),
    "too many groups": claims(hasgroups=True),
    "groups elsewhere": claims(_claim_names={"groups": "src1"}),
    # how it is written
    "issuer twice": twice("iss", "https://evil.example"),
    "audience twice": twice("aud", AUDIENCE),
    "exp twice": twice("exp", NOW + 999),
    "subject twice": twice("sub", "root"),
    "claims are a list": lambda i: i.token(raw="[]"),
    "claims are text": lambda i: i.token(raw='"x"'),
    "claims are no JSON": lambda i: i.token(raw="{"),
    "claims are deep": lambda i: i.token(raw="[" * 5000),
    "claims are not UTF-8": lambda i: i.token(raw=b'{"iss":"\xff"}'),
    "too long": lambda i: i.token(i.claims(more="x" * 13_000)),
    "not even a token": lambda _i: "a.b.c",
    "dots": lambda _i: "..",
    "dashes": lambda _i: "---.---.---",
    # Entra
    "entra: another tenant": entra(tenant=OTHER_TENANT),
    "entra: no tenant": entra(tid=None),
    "entra: tenant and issuer differ": lambda i: i.token(
        i.entra_claims(iss=f"{i.base}/{OTHER_TENANT}/v2.0"), typ="JWT"
    ),
    "entra: tenant of others, issuer ours": entra(tid=OTHER_TENANT),
    "entra: tenant in capitals": entra(tid=TENANT.upper()),
    "entra: personal accounts": entra(tenant="9188040d-6c67-4c5b-b112-36a304b66dad"),
    "entra: tenant common": entra(tenant="common"),
    "entra: 1.0 that says 2.0": entra("1.0", ver="2.0"),
    "entra: 2.0 that says 1.0": entra(ver="1.0"),
    "entra: no version": entra(ver=None),
    "entra: version 3.0": entra(ver="3.0"),
    "entra: version 2": entra(ver=2),
    "entra: no object id": entra(oid=None),
    "entra: object id is a name": entra(oid="ann@corp.example"),
    "entra: no application": entra(azp=None),
    "entra: application as 1.0 writes it": entra(azp=None, appid="console"),
    "entra: other application": entra(azp="evil"),
    "entra: id_token": entra(scp=None),
    "entra: id_token with roles": entra(scp=None, roles=["Lake.Robot"]),
    "entra: other scope": entra(scp="User.Read"),
    "entra: application without roles": entra(scp=None, sub=PERSON),
    "entra: application with other roles": entra(scp=None, idtyp="app", roles=["Other"]),
    "entra: person with a role instead of a scope": entra(scp="", roles=["Lake.Robot"]),
    "entra: key of another tenant": entra(kid="elsewhere"),
    "entra: other audience": entra(aud="https://graph.microsoft.com"),
    "entra: expired": entra(exp=NOW - 120),
    "entra: too many groups": entra(_claim_names={"groups": "src1"}),
    "entra: nonce": entra(nonce="n"),
    "entra: of the standard issuer": entra(scope="lake.read", client_id="console", iss="x"),
}


def test_many_first_requests_wait_for_one_answer_of_a_slow_issuer(tmp_path, monkeypatch):
    """None of them is refused for coming early, and nobody else waits."""
    monkeypatch.setattr("lodestream.security.key_sets._TIMEOUT_S", 60)
    issuer = Issuer()
    answering = threading.Event()

    def slow(path):
        answering.wait(20)
        issuer.answer = None
        return issuer._answer(path)

    issuer.answer = slow
    told = f"{{issuer: '{issuer.url}', audience: {AUDIENCE}, name: corp}}"
    try:
        with serving(write_project(tmp_path / "shop", f"identity: {{oidc: [{told}]}}"), token=None) as served:
            text, found = issuer.token(), []
            threads = [threading.Thread(target=lambda: found.append(ask(served, text).status_code)) for _ in range(12)]
            for thread in threads:
                thread.start()
            for _ in range(5):
                assert httpx.get(f"{served.url}/healthz", timeout=15).status_code == 200
            assert found == []
            answering.set()
            for thread in threads:
                thread.join(60)
            assert found == [200] * 12
            assert len(issuer.asked) == 2
    finally:
        answering.set()
        issuer.close()


def test_there_are_enough():
    assert len(FORGED) >= 120
    assert len(GOOD) >= 12


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_refused(issuer, served, name):
    text = FORGED[name](issuer)
    answer = ask(served, text)
    assert answer.status_code == 401, answer.text
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    told = answer.json()["detail"]
    assert "evil" not in told
    assert not any(len(part) > 10 and part in answer.text for part in text.split("."))
    signed_in = httpx.post(f"{served.url}/api/session", json={"key": text}, timeout=30)
    assert signed_in.status_code == 401
    assert not [path for path in issuer.asked if "evil" in path], "a token told where to fetch keys"


def test_forgeries_are_refused_for_their_own_reason(issuer, served):
    """A check that is never reached would be found here; each control passes without its change."""
    reasons = {}
    for name, make in FORGED.items():
        reasons.setdefault(ask(served, make(issuer)).json()["detail"], []).append(name)
    assert len(reasons) >= 18, reasons


def test_who_it_is(issuer, served):
    told = ask(served, issuer.token(issuer.claims(groups=["staff", "admins"]))).json()
    assert (told["name"], told["groups"]) == ("corp/ann", ["analysts"]), "groups that are not mapped count for nothing"
    assert ask(served, issuer.token(issuer.entra_claims(), typ="JWT")).json()["name"] == f"{TENANT}/{PERSON}"


def test_what_is_declared_here_for_a_name_counts_too(issuer, served):
    """Groups and attributes are added; who is disabled here is shut out, sessions and streams included."""
    text = issuer.token(issuer.claims(sub="bob", groups=["staff"]))
    gate = served.app.gate(served.app.serving())
    gate.identity.ask(text)

    def declare(*users):
        kept = [entries.entry(user, origin="test") for user in users]
        served.app.catalog.declare("test", kept, Event("owner", "cli", "cli", "declare", "allowed"))

    declare(User("corp/bob", groups=frozenset({"auditors"}), attributes={"region": "EU"}))
    found = gate.identity.by_text(text, None)
    assert (found.groups, dict(found.attributes)) == ({"analysts", "auditors"}, {"region": "EU"})
    cookie = gate.identity.begin_session(found)
    assert gate.identity.by_session(cookie).groups == {"analysts", "auditors"}
    declare()
    assert gate.current(found).groups == {"analysts"}
    assert gate.identity.by_session(cookie).groups == {"analysts"}
    assert ask(served, text).json()["groups"] == ["analysts"]
    declare(User("corp/bob", disabled=True))
    assert not gate.still_valid(found)
    assert gate.identity.by_session(cookie) is None
    assert ask(served, text).status_code == 401
    declare()
    assert ask(served, text).status_code == 200
    gate.identity.close()


# One issuer at a time, with a clock ----------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.s = time.time()

    def __call__(self):
        return int(self.s * 1e6)


@contextlib.contextmanager
def checked(**changes):
    issuer, clock = Issuer(), Clock()
    settings = {"issuer": issuer.url, "audience": AUDIENCE, "name": "corp"} | changes
    try:
        yield issuer, clock, Oidc([OidcSettings(**settings)], clock)
    finally:
        issuer.close()


def came_in(oidc, text):
    if oidc.wants(text):
        oidc.ask(text)
    try:
        return oidc.verify(text).name == "corp/ann"
    except AccessError:
        return False


def test_a_new_key_is_fetched_when_a_token_names_it():
    with checked() as (issuer, clock, oidc):
        assert came_in(oidc, issuer.token())
        assert len(issuer.asked) == 2
        assert came_in(oidc, issuer.token())
        assert len(issuer.asked) == 2, "keys are kept"
        clock.s += 31
        issuer.keys["second"] = rsa_key()
        issuer.published = [jwk(issuer.keys["second"], "second")]
        assert came_in(oidc, issuer.token(kid="second", key=issuer.keys["second"]))
        assert not came_in(oidc, issuer.token()), "the old key is withdrawn"


def test_tokens_of_unknown_keys_do_not_make_it_ask_again_and_again():
    with checked() as (issuer, clock, oidc):
        assert came_in(oidc, issuer.token())
        clock.s += 31
        before = len(issuer.asked)
        for number in range(200):
            assert not came_in(oidc, issuer.token(kid=f"unknown-{number}", key=STRANGER))
        assert len(issuer.asked) == before + 2
        clock.s += 31
        assert not came_in(oidc, issuer.token(kid="unknown", key=STRANGER))
        assert len(issuer.asked) == before + 4


def test_a_token_is_remembered_until_it_ends_or_its_key_is_withdrawn(monkeypatch):
    with checked() as (issuer, clock, oidc):
        text = issuer.token()
        assert came_in(oidc, text)
        monkeypatch.setattr("lodestream.security.oidc.taken_apart", lambda _text: pytest.fail("looked at again"))
        assert came_in(oidc, text)
        monkeypatch.undo()
        for changed in (text[:-4] + "AAAA", text.replace(".", "..", 1), text[1:]):
            assert not came_in(oidc, changed)
        clock.s += 31
        issuer.published = [jwk(STRANGER, "first")]
        oidc.ask(issuer.token(kid="gone"))
        assert not came_in(oidc, text), "the same id, another key"
        issuer.published = [jwk(issuer.keys["first"], "first")]
        clock.s += 31
        oidc.ask(issuer.token(kid="gone"))
        assert came_in(oidc, text)
        clock.s += 400
        assert not came_in(oidc, text), "it has expired"


def test_an_issuer_that_does_not_answer():
    with checked() as (issuer, clock, oidc):
        issuer.answer = lambda _path: (503, {}, b"")
        assert not came_in(oidc, issuer.token())
        issuer.answer = None
        clock.s += 6
        assert came_in(oidc, issuer.token())
        issuer.answer = lambda _path: (503, {}, b"")
        for _ in range(23):
            clock.s += 3600
            assert came_in(oidc, issuer.token(issuer.claims(exp=int(clock.s) + 60))), "keys are believed for a day"
        clock.s += 2 * 3600
        assert not came_in(oidc, issuer.token(issuer.claims(exp=int(clock.s) + 60)))
        issuer.answer = None
        clock.s += 60
        assert came_in(oidc, issuer.token(issuer.claims(exp=int(clock.s) + 60)))


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"}, {"issuer": None}, {"jwks_uri": None}, {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "ftp://127.0.0.1/keys"}, {"jwks_uri": "http://evil.example/keys"}, {"jwks_uri": ["x"]},
        {"jwks_uri": "http://169.254.169.254/latest"}, {"jwks_uri": "http://x@127.0.0.1/keys"}, {"jwks_uri": "/keys"},
    ],
)  # fmt: skip
def test_metadata_that_leads_elsewhere(metadata):
    with checked() as (issuer, _clock, oidc):
        issuer.metadata = metadata
        assert not came_in(oidc, issuer.token())


BAD_ANSWERS = {
    "redirect": lambda path: (302, {"Location": "/elsewhere"}, b""),
    "redirect of the keys": lambda path: (
        (307, {"Location": "http://127.0.0.1:9/keys"}, b"") if path == "/keys" else None
    ),
    "too large": lambda path: (200, {}, b" " * (2 << 20)),
    "no JSON": lambda path: (200, {}, b"<html>"),
    "deep": lambda path: (200, {}, b"[" * 100_000),
    "a list": lambda path: (200, {}, b"[]"),
    "keys are no list": lambda path: (200, {}, b'{"keys": {}}') if path == "/keys" else None,
    "too many keys": lambda path: (200, {}, json.dumps({"keys": [{}] * 1000}).encode()) if path == "/keys" else None,
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_answers_of_an_issuer_that_cannot_be(name):
    with checked() as (issuer, _clock, oidc):

        def answer(path):
            found = BAD_ANSWERS[name](path)
            if found is not None:
                return found
            issuer.answer, kept = None, issuer.answer
            try:
                return issuer._answer(path)
            finally:
                issuer.answer = kept

        issuer.answer = answer
        assert not came_in(oidc, issuer.token())
        issuer.answer = None


def test_keys_that_cannot_be_do_not_spoil_the_others():
    with checked() as (issuer, _clock, oidc):
        good = list(issuer.published)
        issuer.published = [
            {},
            [],
            None,
            1,
            {"kid": "a"},
            {"kid": "b", "kty": "RSA"},
            {"kid": "c", "kty": "EC", "crv": "P-256", "x": "?"},
            {"kid": "d", "kty": "RSA", "n": "AQAB", "e": "AQAB"},
            {"kid": 5, "kty": "RSA"},
            *good,
            jwk(issuer.keys["first"], "first-sign", key_ops=["sign"]),
            jwk(issuer.keys["first"], "priv", d="AQAB"),
        ]
        assert came_in(oidc, issuer.token())
        assert not came_in(oidc, issuer.token(kid="first-sign"))
        assert not came_in(oidc, issuer.token(kid="priv"))


def test_the_leeway_is_what_it_says():
    with checked(leeway="10 seconds") as (issuer, clock, oidc):
        now = int(clock.s)
        clock.s = float(now)
        token = {name: issuer.token(issuer.claims(exp=now + at)) for name, at in (("in", -9), ("out", -10))}
        assert came_in(oidc, token["in"])
        assert not came_in(oidc, token["out"])
        assert came_in(oidc, issuer.token(issuer.claims(nbf=now + 10)))
        assert not came_in(oidc, issuer.token(issuer.claims(nbf=now + 11)))
        assert oidc.verify(token["in"]).expires_us == (now + 1) * 1_000_000


def test_entra_common_needs_tenants_and_takes_theirs_only():
    with checked() as (issuer, clock, _):
        settings = OidcSettings(
            issuer=f"{issuer.base}/common/v2.0", audience=AUDIENCE, profile="entra", tenants=(TENANT,), name="ms"
        )
        issuer.metadata = {"issuer": f"{issuer.base}/{{tenantid}}/v2.0"}
        oidc = Oidc([settings], clock)

        def verified(tenant):
            text = issuer.token(issuer.entra_claims(tenant=tenant), typ="JWT")
            oidc.ask(text)
            return oidc.verify(text).name

        assert verified(TENANT) == f"{TENANT}/{PERSON}"
        with pytest.raises(AccessError, match="issuer"):
            verified(OTHER_TENANT)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"issuer": "http://login.example"}, "https"), ({"issuer": "https://login.example?x"}, "query"),
        ({"issuer": "https://me@login.example"}, "user"), ({"issuer": "login.example"}, "https"),
        ({"algorithms": ["HS256"]}, "RS256"), ({"algorithms": ["none"]}, "RS256"), ({"algorithms": []}, "at least 1"),
        ({"audience": ""}, "at least 1"), ({"leeway": "2 minutes"}, "minute"), ({"leeway": "soon"}, "duration"),
        ({"issuer": "https://login.microsoftonline.com/common/v2.0", "profile": "entra"}, "any tenant"),
        ({"issuer": "https://login.microsoftonline.com/organizations/v2.0", "profile": "entra"}, "any tenant"),
        ({"issuer": "https://login.microsoftonline.com/corp.example/v2.0", "profile": "entra"}, "any tenant"),
        ({"tenants": ["common"], "profile": "entra"}, "its id"), ({"tenants": [TENANT]}, "profile"),
        ({"name": "a/b"}, "name"), ({"name": TENANT}, "tenant"), ({"verify": False}, "not permitted"),
        ({"scopes": ["*:*"]}, "query"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(changes, says):
    given = {"issuer": "https://login.example", "audience": AUDIENCE} | changes
    with pytest.raises(ValueError, match=says):
        OidcSettings(**given)


def test_a_checker_that_forgets_would_be_seen(monkeypatch):
    """Planted: without the check of the signature, of the audience, of the kind, a forgery comes in."""
    with checked() as (issuer, _clock, oidc):
        assert came_in(oidc, issuer.token())
        forged = issuer.token(key=STRANGER)
        assert not came_in(oidc, forged)
        monkeypatch.setattr("lodestream.security.oidc.PyJWS.decode_complete", lambda *_a, **_k: {})
        assert came_in(oidc, forged)
        monkeypatch.undo()
        nonce = issuer.token(issuer.claims(nonce="x"))
        assert not came_in(oidc, nonce)
        monkeypatch.setattr("lodestream.security.oidc._ID_TOKEN", ())
        assert came_in(oidc, nonce)


def test_the_issuer_of_the_tests_signs_as_others_do():
    """PyJWT reads what it signs, so a refusal is not its own mistake."""
    import jwt

    issuer = Issuer()
    try:
        told = jwt.decode(issuer.token(), pem(issuer.keys["first"]), ["RS256"], audience=AUDIENCE)
        assert told["sub"] == "ann"
        assert jwt.decode(issuer.token(alg="ES256"), pem(issuer.keys["curve"]), ["ES256"], audience=AUDIENCE)
    finally:
        issuer.close()
