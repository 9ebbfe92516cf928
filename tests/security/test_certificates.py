"""Client certificates: names to principals, revocation, TLS that takes up renewed files; with an own authority."""

import asyncio
import base64
import contextlib
import datetime as dt
import os
import shutil
import ssl
from urllib.parse import quote

import pytest

from lodestream.errors import AccessError, ConfigError
from lodestream.model.access import Principal
from lodestream.project.identity import CertificateSettings
from lodestream.project.serving import TlsSettings
from lodestream.security.certificates import Certificates, ServerTls
from lodestream.security.identity import Identity
from lodestream.security.keys import KeyStore
from lodestream.testing.pki import Authority

NOW = dt.datetime(2027, 1, 15, tzinfo=dt.UTC)
NOW_US = int(NOW.timestamp() * 1e6)
NAMES = {
    "dns:loader.example": "loader", "uri:spiffe://example/reader": "reader", "email:ann@example.org": "ann",
    "subject:CN=by subject": "subject", "dns:second.example": "second",
}  # fmt: skip


def der(identity):
    return ssl.PEM_cert_to_DER_cert(identity.certificate.read_text())


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "ca", NOW)


def known(tmp_path, clock=lambda: NOW_US, **more):
    return Certificates(CertificateSettings(principals=NAMES, **more), str(tmp_path), clock)


def test_names_in_a_certificate(authority, tmp_path):
    found = known(tmp_path)
    cases = {
        "a": (("loader.example",), "loader"),
        "b": (("LOADER.example",), "loader"),
        "c": (("spiffe://example/reader",), "reader"),
        "d": (("ann@example.org",), "ann"),
        "by subject": (("x.example",), "subject"),
        "e": (("x.example", "loader.example"), "loader"),
        "f": (("x.example",), None),
        "g": (("loader.example.evil.org",), None),
        "h": (("127.0.0.1",), None),
        "loader.example": (("x.example",), None),
        "i": (("spiffe://example/reader/x",), None),
        "j": (("*.example",), None),
        "k": (("bann@example.org",), None),
    }
    for name, (hosts, who) in cases.items():
        principal = found.principal(der(authority.issue(name, hosts=hosts)))
        assert (principal and principal.name) == who, name
    with pytest.raises(AccessError, match="several"):
        found.principal(der(authority.issue("z", hosts=("loader.example", "second.example"))))


def test_what_is_no_client_s(authority, tmp_path):
    found = known(tmp_path)
    cases = {
        "not valid at this time": authority.issue("old", hosts=("loader.example",), expired=True),
        "not for clients": authority.issue("server", hosts=("loader.example",), client=False),
    }
    for says, identity in cases.items():
        with pytest.raises(AccessError, match=says):
            found.principal(der(identity))
    with pytest.raises(AccessError, match="not for clients"):
        found.principal(ssl.PEM_cert_to_DER_cert(authority.certificate.read_text()))
    for content in (b"", b"x" * 100, b"\x30\x82"):
        with pytest.raises(AccessError, match="cannot be read"):
            found.principal(content)


def test_a_certificate_that_is_revoked_while_the_server_runs(authority, tmp_path):
    good, bad = (authority.issue(name, hosts=("loader.example",)) for name in ("good", "bad"))
    shutil.copy(authority.revoke(), tmp_path / "list.pem")
    found = known(tmp_path, crl="list.pem")
    identity = Identity(KeyStore(str(tmp_path / "keys.json")), lambda: NOW_US, certificates=found)
    principal = identity.by_certificate(der(bad))
    assert identity.still_valid(principal)
    shutil.copy(authority.revoke(bad), tmp_path / "list.pem")
    os.utime(tmp_path / "list.pem", ns=(1, 1))
    assert not identity.still_valid(principal), "open streams end"
    with pytest.raises(AccessError, match="revoked"):
        identity.by_certificate(der(bad))
    assert identity.still_valid(identity.by_certificate(der(good)))
    (tmp_path / "list.pem").write_text("-----BEGIN")
    with pytest.raises(AccessError, match="cannot be known"):
        identity.by_certificate(der(good))
    shutil.copy(authority.revoke(outdated=True), tmp_path / "list.pem")
    with pytest.raises(AccessError, match="out of date"):
        identity.by_certificate(der(good))
    (tmp_path / "list.pem").unlink()
    with pytest.raises(AccessError, match="cannot be known"):
        identity.by_certificate(der(good))
    with pytest.raises(ConfigError, match="cannot be read"):
        known(tmp_path, crl="list.pem")


def test_an_account_is_needed_and_gives_the_groups(authority, tmp_path):
    one = authority.issue("one", hosts=("loader.example",))
    accounts = {"loader": Principal("loader", "owner", frozenset({"loaders"}), {"region": "EU"})}
    identity = Identity(
        KeyStore(str(tmp_path / "keys.json")), lambda: NOW_US, directory=accounts.get, certificates=known(tmp_path)
    )
    principal = identity.by_certificate(der(one))
    assert (principal.name, principal.kind, principal.groups) == ("loader", "service", {"loaders"})
    assert principal.may("query:*")
    assert not principal.may("ingest:orders")
    assert principal.expires_us > NOW_US
    del accounts["loader"]
    assert not identity.still_valid(principal)
    with pytest.raises(AccessError, match="no account"):
        identity.by_certificate(der(one))
    nobody = Identity(KeyStore(str(tmp_path / "keys.json")), lambda: NOW_US)
    assert nobody.by_certificate(der(one)) is None


def test_what_a_proxy_hands_on(authority, tmp_path):
    one = authority.issue("one", hosts=("loader.example",))
    stranger = Authority(tmp_path / "other", NOW, "Others").issue("one", hosts=("loader.example",))
    found = known(tmp_path, ca=str(authority.certificate))
    forms = [f":{base64.b64encode(der(one)).decode()}:", quote(one.certificate.read_text())]
    assert [found.forwarded(text).name for text in forms] == ["loader"] * 2
    for text in (
        "",
        ":",
        "::",
        ":%:",
        "x",
        quote("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        "x" * 20_000,
    ):
        with pytest.raises(AccessError, match="cannot be read"):
            found.forwarded(text)
    for text in (quote(stranger.certificate.read_text()), f":{base64.b64encode(der(stranger)).decode()}:"):
        with pytest.raises(AccessError, match="not of an authority"):
            found.forwarded(text)


# TLS ------------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def listening(tls):
    """A server that takes the context of each connection anew, as the PostgreSQL door does."""

    async def take(reader, writer):
        try:
            await writer.start_tls(tls.context())
            writer.write(writer.get_extra_info("ssl_object").getpeercert(True) or b"none")
            await writer.drain()
        except (ssl.SSLError, ConnectionError):
            pass
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def connected(port, trusted, identity=None, host="localhost"):
    context = ssl.create_default_context(cafile=str(trusted.certificate))
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(20):
            await writer.start_tls(context, server_hostname=host)
            shown = writer.get_extra_info("ssl_object").getpeercert(True)
            told = await reader.read()
    finally:
        writer.close()
    if not told:
        raise ConnectionResetError("refused")
    return shown, told


REFUSED = (ssl.SSLError, ConnectionError)


def test_who_may_connect(tmp_path):
    async def run():
        now = dt.datetime.now(dt.UTC)
        servers, clients, others = (Authority(tmp_path / name, now, name) for name in ("servers", "clients", "others"))
        own, good, revoked = servers.issue("server"), clients.issue("good"), clients.issue("revoked")
        files = TlsSettings(certificate=str(own.certificate), key=str(own.key), client_ca=str(clients.certificate))
        async with listening(ServerTls(files, str(clients.revoke(revoked)), "/")) as port:
            assert (await connected(port, servers, good))[1] == der(good)
            cases = {
                "none": (servers, None, "localhost"), "wrong authority": (servers, others.issue("x"), "localhost"),
                "expired": (servers, clients.issue("old", expired=True), "localhost"),
                "revoked": (servers, revoked, "localhost"), "server of others": (others, good, "localhost"),
                "server of another name": (servers, good, "other.example"),
                "for servers only": (servers, clients.issue("s", client=False), "localhost"),
            }  # fmt: skip
            for name, case in cases.items():
                try:
                    await connected(port, *case)
                except REFUSED:
                    continue
                pytest.fail(f"{name} was let in")

    asyncio.run(run())


def test_renewed_files_are_taken_up_without_a_restart(tmp_path):
    async def run():
        now = dt.datetime.now(dt.UTC)
        servers, clients = (Authority(tmp_path / name, now, name) for name in ("servers", "clients"))
        first, second, client = servers.issue("first"), servers.issue("second"), clients.issue("client")
        for name, path in (("server.pem", first.certificate), ("server.key", first.key), ("crl.pem", clients.revoke())):
            shutil.copy(path, tmp_path / name)
        files = TlsSettings(certificate="server.pem", key="server.key", client_ca=str(clients.certificate))
        tls = ServerTls(files, "crl.pem", str(tmp_path))
        async with listening(tls) as port:
            assert (await connected(port, servers, client))[0] == der(first) == tls.certificate
            shutil.copy(second.certificate, tmp_path / "server.pem")
            os.utime(tmp_path / "server.pem", ns=(1, 1))
            assert (await connected(port, servers, client))[0] == der(first), "half renewed: the old pair goes on"
            assert tls.certificate == der(first)
            shutil.copy(second.key, tmp_path / "server.key")
            os.utime(tmp_path / "server.key", ns=(1, 1))
            assert (await connected(port, servers, client))[0] == der(second) == tls.certificate
            shutil.copy(clients.revoke(client), tmp_path / "crl.pem")
            os.utime(tmp_path / "crl.pem", ns=(1, 1))
            with pytest.raises(REFUSED):
                await connected(port, servers, client)

    asyncio.run(run())


def test_old_protocols_are_refused(tmp_path):
    own = Authority(tmp_path / "ca", dt.datetime.now(dt.UTC)).issue("server")
    context = ServerTls(TlsSettings(certificate=str(own.certificate), key=str(own.key)), None, "/").context()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    with pytest.raises(ConfigError, match="cannot be read"):
        ServerTls(TlsSettings(certificate="none.pem", key=str(own.key)), None, str(tmp_path))
