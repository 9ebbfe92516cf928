"""The console's sessions over HTTP: cookies, other sites' pages, rebinding, signing out on another server."""

import datetime as dt
import json
import re
import ssl
import threading
from pathlib import Path

import httpx
import pytest

from lodestream.app import now_us, open_project
from lodestream.catalog import entries
from lodestream.model.policy import User
from lodestream.ports.authority import Event
from lodestream.security.keys import ApiKey, KeyStore
from lodestream.testing.pki import Authority
from tests.apis.conftest import TOKEN, serving


def key(folder, *scopes, name="shop"):
    store = KeyStore(open_project(str(folder)).keys_path)
    return store.create("dev", ApiKey("", name, "", scopes or ("ingest:orders",), now_us()))


def sign_in(served, text=TOKEN, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{served.url}/api/session", json={"key": text}, headers=named, timeout=30)


def cookie_of(answer):
    return answer.headers["set-cookie"].partition(";")[0]


def ask(served, method, path, cookie=None, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if cookie:
        named["cookie"] = cookie
    return httpx.request(method, f"{served.url}{path}", headers=named, timeout=30)


def test_in_who_and_out(served):
    answer = sign_in(served)
    assert answer.status_code == 200
    told = answer.json()
    assert (told["name"], told["kind"], told["groups"]) == ("dev", "owner", [])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", told["expires"])
    set_cookie = answer.headers["set-cookie"]
    assert re.match(rf"lodestream-{served.port}=[\w-]{{43}};", set_cookie)
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(set_cookie.split("; "))
    assert "Secure" not in set_cookie
    assert "Domain" not in set_cookie
    cookie = cookie_of(answer)
    assert ask(served, "GET", "/api/session", cookie).json() == told
    assert ask(served, "GET", "/openapi.json", cookie).status_code == 200
    out = ask(served, "DELETE", "/api/session", cookie, x_lodestream_csrf=told["csrf"])
    assert out.status_code == 204
    assert "Max-Age=0" in out.headers["set-cookie"]
    assert ask(served, "GET", "/api/session", cookie).status_code == 401


def test_a_key_tells_who_it_is_of_too(served):
    told = ask(served, "GET", "/api/session", authorization=f"Bearer {TOKEN}").json()
    assert (told["name"], told["csrf"]) == ("dev", None)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ('{"key": "ls_dev_000000000000_x"}', "application/json", 401), ('{"key": "a.b.c"}', "application/json", 401),
        ('{"key": 1}', "application/json", 400), ('{"key": "x", "as": "owner"}', "application/json", 400),
        ('{"key": "\\ud800"}', "application/json", 401), ('{"key": "\\u0000"}', "application/json", 401),
        ('{"key": "\\ud800.a.b"}', "application/json", 401),
        ("{}", "application/json", 400),
        ("[" * 10_000, "application/json", 400), ("", "application/json", 400),
        (json.dumps({"key": TOKEN}), "text/plain", 415), (f"key={TOKEN}", "application/x-www-form-urlencoded", 415),
        (json.dumps({"key": "x" * 40_000}), "application/json", 413),
    ],
)  # fmt: skip
def test_what_does_not_sign_in(served, body, kind, status):
    answer = httpx.post(f"{served.url}/api/session", content=body, headers={"content-type": kind}, timeout=30)
    assert answer.status_code == status, answer.text
    assert "set-cookie" not in answer.headers


def test_writes_need_what_only_the_page_knows(served):
    answer = sign_in(served)
    cookie, csrf = cookie_of(answer), answer.json()["csrf"]

    def write(**headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named |= {"cookie": cookie, "content-type": "application/json"}
        return httpx.post(f"{served.url}/ingest/orders", content='{"id":1}', headers=named, timeout=30).status_code

    assert write() == 403
    assert write(x_lodestream_csrf="0" * 64) == 403
    assert write(x_lodestream_csrf=cookie.partition("=")[2]) == 403
    assert write(x_lodestream_csrf=csrf) == 200
    assert write(x_lodestream_csrf=csrf, origin=served.url, sec_fetch_site="same-origin") == 200
    others = ("http://evil.example", "null", f"{served.url}1", served.url.replace("http", "https"), "http://localhost")
    for origin in others:
        assert write(x_lodestream_csrf=csrf, origin=origin) == 403, origin
    for site in ("cross-site", "same-site"):
        assert write(x_lodestream_csrf=csrf, sec_fetch_site=site) == 403
    other = cookie_of(sign_in(served))
    assert write(x_lodestream_csrf=csrf) == 200
    cookie = other
    assert write(x_lodestream_csrf=csrf) == 403, "the token of another session"


def test_pages_of_other_sites_neither_sign_in_nor_read(served):
    assert sign_in(served, origin="http://evil.example").status_code == 403
    assert sign_in(served, sec_fetch_site="cross-site").status_code == 403
    cookie = cookie_of(sign_in(served))
    assert ask(served, "GET", "/api/session", cookie, origin="http://evil.example").status_code == 403
    answer = ask(served, "GET", "/api/session", cookie)
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_name_that_was_bound_to_this_machine_gets_nothing(served):
    """DNS rebinding: the browser believes that evil.example is 127.0.0.1."""
    cookie = cookie_of(sign_in(served))
    for host in ("evil.example", f"evil.example:{served.port}", "127.0.0.1.nip.io", "localhost.evil.example", ""):
        assert ask(served, "GET", "/api/session", cookie, host=host).status_code in (400, 421), host
        assert sign_in(served, host=host, origin=f"http://{host}").status_code in (400, 421), host


def test_rebinding_with_keys_too(project):
    folder = project()
    key(folder)
    with serving(folder, token=None) as served:
        assert ask(served, "GET", "/healthz", host="evil.example").status_code == 421
        assert ask(served, "GET", "/healthz", host=f"localhost:{served.port}").status_code == 200


def test_a_session_is_shared_by_servers_and_ends_with_its_key(project):
    folder = project()
    app = open_project(str(folder))
    account(app, "ann")
    text, made = key(folder, "query:*", name="ann")
    with serving(folder, token=None) as one:
        answer = sign_in(one, text)
        assert answer.json()["name"] == "ann"
        secret = cookie_of(answer).partition("=")[2]
        again = open_project(str(folder)).gate(app.serving())
        found = again.identity.by_session(secret)
        assert found.name == "ann"
        KeyStore(app.keys_path).change(made.id, revoked_us=now_us())
        assert ask(one, "GET", "/api/session", cookie_of(answer)).status_code == 401
        assert not again.still_valid(found)
        again.identity.close()


def account(app, name):
    """A local user, declared."""
    kept = [entries.entry(User(name), origin="test")]
    app.catalog.declare("test", kept, Event("owner", "cli", "cli", "declare", "allowed"))
    app.catalog.close()


def test_a_session_that_was_stolen_before_signing_in_is_worth_nothing(served):
    """Fixation: the cookie of before does not become the session."""
    fixed = f"lodestream-{served.port}=" + "A" * 43
    answer = httpx.post(f"{served.url}/api/session", json={"key": TOKEN}, headers={"cookie": fixed}, timeout=30)
    assert cookie_of(answer) != fixed
    assert ask(served, "GET", "/api/session", fixed).status_code == 401
    first = cookie_of(answer)
    second = httpx.post(f"{served.url}/api/session", json={"key": TOKEN}, headers={"cookie": first}, timeout=30)
    assert ask(served, "GET", "/api/session", first).status_code == 401, "the one before has ended"
    assert ask(served, "GET", "/api/session", cookie_of(second)).status_code == 200


def test_an_authorization_that_is_wrong_is_not_made_good_by_a_cookie(served):
    cookie = cookie_of(sign_in(served))
    assert ask(served, "GET", "/api/session", cookie, authorization="Bearer wrong").status_code == 401


def test_by_tls_at_a_proxy_the_cookie_is_bound_to_the_host(project):
    with serving(project("trusted_proxies: [127.0.0.1]")) as served:
        answer = sign_in(served, x_forwarded_proto="https", origin=served.url.replace("http", "https"))
        assert answer.status_code == 200
        assert answer.headers["set-cookie"].startswith("__Host-lodestream=")
        assert "Secure" in answer.headers["set-cookie"]
        cookie = cookie_of(answer)
        assert ask(served, "GET", "/api/session", cookie, x_forwarded_proto="https").status_code == 200
        assert ask(served, "GET", "/api/session", cookie).status_code == 401, "came in the clear"
    (project.folder / "lodestream.yaml").write_text("project: shop\nlake: lake\nserver: {port: 0}\n")
    with serving(project.folder) as served:
        answer = sign_in(served, x_forwarded_proto="https")
        assert answer.headers["set-cookie"].startswith("lodestream-"), "nobody is believed"


def test_by_tls_the_cookie_is_bound_to_the_host(project, tmp_path):
    authority = Authority(tmp_path / "ca", dt.datetime.now(dt.UTC))
    own = authority.issue("server")
    with serving(project(f"tls: {{certificate: {own.certificate}, key: {own.key}}}")) as served:
        trusted = ssl.create_default_context(cafile=str(authority.certificate))
        with httpx.Client(base_url=served.url, verify=trusted, timeout=30) as browser:
            answer = browser.post("/api/session", json={"key": TOKEN}, headers={"origin": served.url})
            assert answer.status_code == 200, answer.text
            assert answer.headers["set-cookie"].startswith("__Host-lodestream=")
            assert {"Secure", "HttpOnly", "Path=/"} <= set(answer.headers["set-cookie"].split("; "))
            assert "max-age" in answer.headers["strict-transport-security"]
            assert browser.get("/api/session").json()["csrf"] == answer.json()["csrf"]
            refused = browser.get("/api/session", headers={"origin": served.url.replace("https", "http")})
            assert refused.status_code == 403


def test_no_key_is_in_a_log_or_an_answer(served, capfd, caplog):
    """The canary: secrets that were sent, right and wrong, are nowhere that others read."""
    secrets = [TOKEN, "ls_prod_0123456789ab_CanaryCanaryCanary", "eyJhbGciOiJub25lIn0.eyJDYW5hcnkiOjF9.Q2FuYXJ5"]
    told = []
    for text in secrets:
        told.append(sign_in(served, text).text)
        told.append(ask(served, "GET", "/openapi.json", authorization=f"Bearer {text}").text)
        told.append(ask(served, "GET", "/openapi.json", x_api_key=text).text)
        told.append(ask(served, "GET", f"/nowhere/{text}").text)
        told.append(ask(served, "GET", "/api/session", f"lodestream-{served.port}={text}").text)
    out, err = capfd.readouterr()
    cookie = cookie_of(sign_in(served)).partition("=")[2]
    assert ask(served, "GET", "/api/session", f"lodestream-{served.port}={cookie}").status_code == 200
    root = Path(served.app.project.root)
    kept = [path.read_bytes().decode("latin-1") for path in root.rglob("*") if path.is_file()]
    assert len(kept) > 5
    everything = "\n".join([out, err, caplog.text, *told, *kept])
    secrets.append(cookie)
    for text in secrets:
        assert text not in everything
        assert text.rpartition("_")[2] not in everything


def test_sign_ins_at_once(served):
    found = []
    threads = [threading.Thread(target=lambda: found.append(sign_in(served).status_code)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * 10
