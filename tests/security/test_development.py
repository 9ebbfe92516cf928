"""The token for development: on this machine, in development, while there is no other way in; never elsewhere."""

import itertools

import pytest

from lodestream.app import open_project
from lodestream.errors import ConfigError
from lodestream.project.serving import ServingSettings
from lodestream.security.development import development_token, nobody_can_enter
from lodestream.security.keys import ApiKey, KeyStore

TLS = {"certificate": "a.pem", "key": "a.key"}
OIDC = {"oidc": [{"issuer": "https://id.example", "audience": "lake"}]}
NAMES = {"certificates": {"principals": {"dns:a": "ann"}}}


@pytest.fixture
def keys(tmp_path):
    return KeyStore(str(tmp_path / "access" / "keys.json"))


def asked(keys, environment=None, **settings):
    try:
        found = development_token(ServingSettings(**settings), keys, environment)
    except ConfigError as error:
        return error.message.partition(";")[0].split(" ")[0]
    return "token" if found else "none"


def test_when_there_is_one(keys):
    for environment, host in itertools.product((None, "dev"), ("127.0.0.1", "localhost", "::1")):
        assert asked(keys, environment, host=host) == "token"
    assert asked(keys, "dev") != asked(keys, "prod") == "none"
    for changes in ({"identity": OIDC}, {"identity": NAMES}, {"environment": "production"}, {"environment": "Dev"}):
        assert asked(keys, **changes) == "none", changes
    tokens = {development_token(ServingSettings(), keys, None) for _ in range(20)}
    assert len(tokens) == 20
    assert all(len(token) >= 36 for token in tokens)
    keys.create("dev", ApiKey("", "shop", "", ("ingest:*",), 0))
    assert asked(keys) == "none"
    assert not nobody_can_enter(ServingSettings(), keys)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "127.0.0.2", "example.org", ""])
def test_other_machines_never_come_in_by_one(keys, host):
    for environment in (None, "dev", "prod"):
        assert asked(keys, environment, host=host) in ("keys", "without")
        given = asked(keys, environment, host=host, tls=TLS)
        assert given == ("none" if environment == "prod" else "without")
    assert nobody_can_enter(ServingSettings(host=host), keys)
    keys.create("dev", ApiKey("", "shop", "", ("ingest:*",), 0))
    assert asked(keys, host=host) == "keys", "in the clear"
    assert asked(keys, host=host, tls=TLS) == asked(keys, host=host, trusted_proxies=["10.0.0.1"]) == "none"


def test_a_token_that_was_handed_over_is_for_this_machine_too(tmp_path):
    (tmp_path / "lodestream.yaml").write_text("project: shop\nlake: lake\n")
    app = open_project(str(tmp_path))
    assert app.gate(app.serving(), "dev_token").identity.token == "dev_token"
    with pytest.raises(ConfigError, match="this machine only"):
        app.gate(app.serving(host="0.0.0.0"), "dev_token")
