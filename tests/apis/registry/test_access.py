"""Who may talk to the registry: users, and certificates."""

import base64
import socket
import ssl

import httpx
import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from lodestream.apis.registry.users import Users, add_user
from lodestream.drivers.registry import open_registry
from lodestream.errors import AccessError, ConfigError, TransientError
from lodestream.testing.pki import Authority
from lodestream.testing.registry import running_registry


def header(name, password):
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_users_are_known_by_their_password(tmp_path):
    file = str(tmp_path / "users")
    assert add_user(file, "ann", "secret") is False
    assert add_user(file, "bob", "pass:word") is False
    users = Users(file)
    assert users.name(header("ann", "secret")) == users.name(header("ann", "secret")) == "ann"
    assert users.name(header("bob", "pass:word")) == "bob"
    for wrong in (
        None, "", header("ann", "Secret"), header("eve", "secret"), header("", ""), "Basic !", "Bearer x",
        "Basic " + base64.b64encode(b"\xff:\xff").decode(), "Basic " + "A" * 10_000, header("ann", ""),
    ):  # fmt: skip
        assert users.name(wrong) is None
    text = (tmp_path / "users").read_text()
    assert "secret" not in text
    assert (tmp_path / "users").stat().st_mode & 0o077 == 0


def test_a_changed_password_holds_at_once(tmp_path):
    file = str(tmp_path / "users")
    add_user(file, "ann", "old")
    users = Users(file)
    assert users.name(header("ann", "old")) == "ann"
    assert add_user(file, "ann", "new") is True
    assert users.name(header("ann", "old")) is None
    assert users.name(header("ann", "new")) == "ann"


@pytest.mark.parametrize("line", ["ann", "ann:secret", "ann:scrypt$zz$zz", ":scrypt$00$00", "ann:md5$00$00"])
def test_a_line_that_is_no_user_is_named(tmp_path, line):
    (tmp_path / "users").write_text(f"# people\n{line}\n")
    with pytest.raises(ConfigError, match="not a user"):
        Users(str(tmp_path / "users"))


def test_names_and_passwords_have_a_form(tmp_path):
    for name, password in (("a:b", "x"), ("", "x"), ("ann", ""), ("a\nb", "x")):
        with pytest.raises(ConfigError):
            add_user(str(tmp_path / "users"), name, password)
    with pytest.raises(ConfigError, match="cannot be read"):
        Users(str(tmp_path / "nosuch"))


def test_only_users_are_answered(tmp_path):
    users = str(tmp_path / "users")
    add_user(users, "ann", "secret")
    with running_registry("--users", users, store=str(tmp_path / "r.db")) as server:
        for path in ("/", "/subjects", "/schemas/ids/1", "/config", "/mode", "/contexts"):
            answer = httpx.get(server.url + path)
            assert (answer.status_code, answer.json()["error_code"]) == (401, 401)
            assert answer.headers["www-authenticate"].startswith("Basic")
        with SchemaRegistryClient({"url": server.url, "basic.auth.user.info": "ann:secret"}) as client:
            assert client.register_schema("s", Schema('"int"', "AVRO")) == 1
        with (
            SchemaRegistryClient({"url": server.url, "basic.auth.user.info": "ann:wrong"}) as client,
            pytest.raises(SchemaRegistryError) as refused,
        ):
            client.get_subjects()
        assert refused.value.http_status_code == 401
        ours = open_registry({"url": server.url, "user": "ann", "password": "secret"}, None)
        assert ours.schema(1).text == '"int"'
        with pytest.raises(AccessError):
            open_registry({"url": server.url}, None).schema(1)


@pytest.fixture(scope="module")
def secured(tmp_path_factory, authority):
    """A registry with a certificate, which asks its clients for theirs."""
    server = authority.issue("registry-server")
    options = (
        "--certificate", str(server.certificate), "--key", str(server.key), "--client-ca", str(authority.certificate),
    )  # fmt: skip
    with running_registry(*options, store=str(tmp_path_factory.mktemp("tls") / "r.db")) as found:
        yield found


def test_a_client_with_a_certificate_is_let_in(secured, authority):
    ann = authority.issue("registry-ann")
    assert secured.url.startswith("https://")
    settings = {
        "url": secured.url, "ssl.ca.location": str(authority.certificate),
        "ssl.certificate.location": str(ann.certificate), "ssl.key.location": str(ann.key),
    }  # fmt: skip
    with SchemaRegistryClient(settings) as client:
        made = client.register_schema("s", Schema('"int"', "AVRO"))
    told = {"ca": str(authority.certificate), "certificate": str(ann.certificate), "key": str(ann.key)}
    assert open_registry({"url": secured.url, **told}, None).schema(made).text == '"int"'


def test_a_client_without_a_good_certificate_is_not(secured, authority, tmp_path):
    ca = str(authority.certificate)
    expired = authority.issue("registry-expired", expired=True)
    stranger = Authority(tmp_path / "other", authority._now).issue("stranger")
    for one in (None, expired, stranger):
        told = {} if one is None else {"certificate": str(one.certificate), "key": str(one.key)}
        with pytest.raises((AccessError, TransientError)):  # a reset may overtake the alert
            open_registry({"url": secured.url, "ca": ca, **told}, None).schema(1)


def test_a_server_that_is_not_trusted_is_not_asked(secured, authority, tmp_path):
    stranger = Authority(tmp_path / "other", authority._now)
    with pytest.raises(ConfigError, match="not trusted"):
        open_registry({"url": secured.url, "ca": str(stranger.certificate)}, None).schema(1)
    with pytest.raises(ConfigError, match="not trusted"):
        open_registry({"url": secured.url}, None).schema(1)


def test_tls_is_spoken_and_nothing_else(secured, authority):
    ann = authority.issue("registry-bob")
    port = int(secured.url.rpartition(":")[2])

    def version(most):
        context = ssl.create_default_context(cafile=str(authority.certificate))
        context.load_cert_chain(ann.certificate, ann.key)
        context.maximum_version = most
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped,
        ):
            return wrapped.version()

    assert version(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert version(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/")
