"""Who may come in: keys and scopes, addresses and proxies, host names, certificates, rates and quotas."""

import datetime as dt
import ssl
from urllib.parse import quote

import httpx
import pytest

from lodestream.app import now_us, open_project
from lodestream.catalog import entries
from lodestream.model.policy import User
from lodestream.ports.authority import Event
from lodestream.security.keys import ApiKey, KeyStore
from lodestream.testing.pki import Authority
from tests.apis.conftest import TOKEN, serving

HOUR_US = 3_600_000_000


def store(folder):
    return KeyStore(open_project(str(folder)).keys_path)


def key(folder, *scopes, name="shop", **changes):
    text, made = store(folder).create("prod", ApiKey("", name, "", scopes or ("ingest:orders",), now_us(), **changes))
    return text, made


def post(served, text, stream="orders", **headers):
    given = {"authorization": f"Bearer {text}"} if text is not None else {"authorization": ""}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return served.client.post(f"/ingest/{stream}", json={"id": 1}, headers=given | named)


def test_keys_and_scopes(project):
    folder = project()
    orders, _ = key(folder)
    everything, _ = key(folder, "ingest:*")
    reader, _ = key(folder, "metrics:read")
    expired, _ = key(folder, expires_us=now_us() - 1)
    _, identity, secret = orders.split("_", 1)[1].split("_", 2)
    with serving(folder, token=None) as served:
        matrix = {
            (orders, "orders"): 200, (orders, "places"): 403, (orders, "nothing"): 403,
            (everything, "orders"): 200, (everything, "places"): 200, (everything, "nothing"): 404,
            (reader, "orders"): 403, (expired, "orders"): 401, ("x", "orders"): 401, (None, "orders"): 401,
            (f"ls_prod_{identity}_{secret[:-1]}", "orders"): 401, (f"ls_prod_{'0' * 12}_{secret}", "orders"): 401,
            (f"xx_prod_{identity}_{secret}", "orders"): 401, (secret, "orders"): 401, (TOKEN, "orders"): 401,
            (f"ls_prod_{identity}_", "orders"): 401, ("ls___", "orders"): 401,
        }  # fmt: skip
        found = {case: post(served, *case).status_code for case in matrix}
        assert found == matrix
        given = {"x-api-key": orders, "authorization": ""}
        assert served.client.post("/ingest/orders", json={"id": 1}, headers=given).status_code == 200
        refused = post(served, None)
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert served.client.get("/metrics", headers={"authorization": f"Bearer {reader}"}).status_code == 200
        assert served.client.get("/metrics", headers={"authorization": f"Bearer {orders}"}).status_code == 403
        told = served.client.get("/openapi.json", headers={"authorization": f"Bearer {orders}"}).json()
        assert [path for path in told["paths"] if path.startswith("/ingest")] == ["/ingest/orders"]


def test_a_revoked_key_is_refused_at_once_and_a_new_one_taken(project):
    folder = project()
    first, made = key(folder)
    with serving(folder, token=None) as served:
        assert post(served, first).status_code == 200
        second, _ = key(folder)
        assert post(served, second).status_code == 200
        store(folder).change(made.id, revoked_us=now_us())
        assert post(served, first).status_code == 401
        assert post(served, second).status_code == 200


def test_addresses_and_proxies(project):
    folder = project("allow: [10.0.0.0/8, 127.0.0.1], trusted_proxies: [127.0.0.1, 172.16.0.0/12]")
    bound, _ = key(folder, "ingest:*", networks=("10.1.0.0/16",))
    free, _ = key(folder, "ingest:*")
    cases = {
        (free, None): 200, (free, "10.9.9.9"): 200, (free, "8.8.8.8"): 403, (free, "::ffff:10.9.9.9"): 200,
        (free, "10.9.9.9, 8.8.8.8"): 403,  # the client wrote the first one itself
        (free, "8.8.8.8, 10.9.9.9"): 200, (free, "10.9.9.9, 172.16.0.1"): 200, (free, "8.8.8.8, 172.16.0.1"): 403,
        (free, "10.9.9.9:4711"): 200, (free, "nonsense"): 403, (free, "[::ffff:8.8.8.8]:80"): 403,
        (bound, "10.1.2.3"): 200, (bound, "10.2.2.3"): 403, (bound, None): 403,
    }  # fmt: skip
    with serving(folder, token=None) as served:
        found = {
            (text, hops): post(served, text, **({"x_forwarded_for": hops} if hops else {})).status_code
            for text, hops in cases
        }
    assert found == cases
    with serving(project_without_proxies(folder), token=None) as served:
        assert post(served, free, x_forwarded_for="10.9.9.9").status_code == 403  # nobody is believed
        assert served.client.get("/healthz").status_code == 403


def project_without_proxies(folder):
    (folder / "lodestream.yaml").write_text("project: shop\nlake: lake\nserver: {port: 0, allow: [10.0.0.0/8]}\n")
    return folder


def test_other_host_names_are_refused_in_development(project):
    folder = project()
    with serving(folder) as served:
        for host, status in (("localhost:80", 200), ("127.0.0.1", 200), ("[::1]:9", 200), ("evil.example", 421)):
            assert post(served, TOKEN, host=host).status_code == status
        assert served.client.get("/healthz", headers={"host": "evil.example"}).status_code == 421
    (folder / "lodestream.yaml").write_text("project: shop\nlake: lake\nserver: {port: 0, hosts: [in.example]}\n")
    text, _ = key(folder)
    with serving(folder, token=None) as served:
        assert post(served, text, host="in.example:443").status_code == 200
        assert post(served, text, host="localhost").status_code == 421


def test_rates_and_quotas_per_key(project):
    folder = project()
    slow, _ = key(folder, "ingest:*", name="slow", requests_per_s=0.5)
    wide, _ = key(folder, "ingest:*", name="wide", bytes_per_s=5)
    daily, _ = key(folder, "ingest:*", name="daily", records_per_day=3)
    free, _ = key(folder, "ingest:*", name="free")
    with serving(folder, token=None) as served:
        for text in (slow, wide):
            assert post(served, text).status_code == 200
            again = post(served, text)
            assert again.status_code == 429
            assert 1 <= int(again.headers["retry-after"]) <= 3
        assert [post(served, daily).status_code for _ in range(5)] == [200, 200, 200, 429, 429]
        assert int(post(served, daily).headers["retry-after"]) > 3
        assert post(served, free).status_code == 200
    with serving(folder, token=None) as served:
        assert post(served, daily).status_code == 429  # the day's count outlives the server


def test_tls_and_client_certificates(project, tmp_path):
    now = dt.datetime.now(dt.UTC)
    servers, clients, others = (Authority(tmp_path / name, now, name) for name in ("servers", "clients", "others"))
    own, client, stranger = servers.issue("server"), clients.issue("client"), others.issue("stranger")
    old = clients.issue("old", expired=True)
    files = f"certificate: {own.certificate}, key: {own.key}, client_ca: {clients.certificate}"
    with serving(project(f"tls: {{{files}}}"), token=TOKEN) as served:
        url = served.url.replace("127.0.0.1", "localhost")
        assert url.startswith("https://")

        def ask(identity, trusted=servers):
            context = ssl.create_default_context(cafile=str(trusted.certificate))
            if identity is not None:
                context.load_cert_chain(identity.certificate, identity.key)
            with httpx.Client(verify=context, headers={"authorization": f"Bearer {TOKEN}"}, timeout=30) as asking:
                return asking.post(f"{url}/ingest/orders", json={"id": 1}).status_code

        assert ask(client) == 200
        for identity, trusted in ((None, servers), (stranger, servers), (old, servers), (client, others)):
            with pytest.raises(httpx.TransportError):
                ask(identity, trusted)
        with pytest.raises(httpx.TransportError):
            httpx.get(url.replace("https", "http") + "/healthz", timeout=30)
        with pytest.raises(httpx.TransportError):  # the certificate is not of that name
            httpx.get(served.url.replace("127.0.0.1", "127.0.0.2") + "/healthz", timeout=30, verify=context_of(servers))


def context_of(trusted):
    return ssl.create_default_context(cafile=str(trusted.certificate))


def test_a_revoked_client_certificate(project, tmp_path):
    now = dt.datetime.now(dt.UTC)
    servers, clients = (Authority(tmp_path / name, now, name) for name in ("servers", "clients"))
    own, good, bad = servers.issue("server"), clients.issue("good"), clients.issue("bad")
    files = f"certificate: {own.certificate}, key: {own.key}, client_ca: {clients.certificate}"
    identity = f"{{certificates: {{crl: {clients.revoke(bad)}}}}}"
    with serving(project(f"tls: {{{files}}}, identity: {identity}"), token=TOKEN) as served:
        url = served.url.replace("127.0.0.1", "localhost")

        def ask(client):
            context = context_of(servers)
            context.load_cert_chain(client.certificate, client.key)
            with httpx.Client(verify=context, timeout=30) as asking:
                return asking.get(f"{url}/healthz").status_code

        assert ask(good) == 200
        with pytest.raises(httpx.TransportError):
            ask(bad)


def test_a_certificate_that_a_proxy_hands_on(project, tmp_path):
    clients = Authority(tmp_path / "ca", dt.datetime.now(dt.UTC))
    one = clients.issue("one", hosts=("loader.example",))
    text = quote(one.certificate.read_text())
    identity = (
        f"{{certificates: {{principals: {{'dns:loader.example': loader}}, header: X-Cert, ca: {clients.certificate}}}}}"
    )
    folder = project(f"trusted_proxies: [127.0.0.1], identity: {identity}")
    declare(folder, "loader")
    with serving(folder, token=None) as served:

        def ask(**headers):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return httpx.get(f"{served.url}/api/session", headers=named, timeout=30)

        assert ask(x_cert=text).json()["name"] == "loader"
        assert ask(x_cert=quote(clients.issue("x", hosts=("x",)).certificate.read_text())).status_code == 401
        assert ask(x_cert="nonsense").status_code == 401
        assert ask().status_code == 401
        assert ask(x_cert=text, origin="http://evil.example").status_code == 403, "a browser would send it unasked"
        assert ask(x_cert=text, authorization="Bearer wrong").status_code == 401
    lake = (folder / "lodestream.yaml").read_text().replace("trusted_proxies: [127.0.0.1], ", "")
    (folder / "lodestream.yaml").write_text(lake)
    with serving(folder, token=None) as served:
        answer = httpx.get(f"{served.url}/api/session", headers={"x-cert": text}, timeout=30)
        assert answer.status_code == 401, "whoever sends the header is no proxy"


def declare(folder, *names):
    """Local users."""
    app = open_project(str(folder))
    kept = [entries.entry(User(name), origin="test") for name in names]
    app.catalog.declare("test", kept, Event("owner", "cli", "cli", "declare", "allowed"))


def test_one_address_in_two_writings(project):
    """IPv4 that is written as IPv6 is the same machine, and no way around a list."""
    folder = project("allow: [10.0.0.0/8], trusted_proxies: [127.0.0.1]")
    text, _ = key(folder, networks=("10.1.0.0/16",))
    hops = {
        "10.1.2.3": 200, "::ffff:10.1.2.3": 200, "::ffff:a01:203": 200, "[::ffff:10.1.2.3]:443": 200,
        "::ffff:8.8.8.8": 403, "::ffff:808:808": 403, "::10.1.2.3": 403, "2002:a01:203::": 403, "64:ff9b::a01:203": 403,
        "0:0:0:0:0:ffff:8.8.8.8": 403, "010.1.2.3": 403, "10.1": 403, "0x0a010203": 403, "167837955": 403,
        "10.1.2.3%eth0": 200, "127.0.0.1": 403, "::1": 403, "::ffff:127.0.0.1": 403, "": 403, ",": 403, "8.8.8.8,": 403,
        "10.1.2.3, ::ffff:8.8.8.8": 403, "8.8.8.8, ::ffff:10.1.2.3": 200, "10.1.2.3, nonsense": 403,
    }  # fmt: skip
    with serving(folder, token=None) as served:
        found = {hop: post(served, text, x_forwarded_for=hop).status_code for hop in hops}
    assert found == hops
