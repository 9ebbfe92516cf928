"""Access tokens of a real identity provider, npm's oidc-provider: people, applications, rotated keys, other tokens."""

import base64
import hashlib
import json
import secrets
import shutil
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.apis.conftest import serving, write_project
from tests.npm import NoNpmError, installed

FOLDER = Path(__file__).parent / "provider"
CALLBACK = "https://console.example/callback"


class Provider:
    """The running provider, as its clients see it."""

    def __init__(self, process):
        told = json.loads(process.stdout.readline())
        self.url, self.audience = told["issuer"], told["audience"]

    def application(self, scope="lake.read", resource=None):
        """A token that an application got for itself."""
        form = {"grant_type": "client_credentials", "scope": scope, "resource": resource or self.audience}
        return self._token(form, ("robot", "robot-secret"))["access_token"]

    def person(self, name, scope="openid lake.read"):
        """Tokens that a person got by signing in: authorization code and PKCE, through the provider's own pages."""
        verifier = secrets.token_urlsafe(32)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "client_id": "console", "response_type": "code", "redirect_uri": CALLBACK, "scope": scope,
            "resource": self.audience, "code_challenge": challenge, "code_challenge_method": "S256", "state": "s",
        }  # fmt: skip
        with httpx.Client(base_url=self.url, timeout=30) as browser:
            answer = browser.get("/auth", params=query)
            for _ in range(12):
                place = answer.headers.get("location", "")
                if place.startswith(CALLBACK):
                    break
                if answer.is_redirect:
                    answer = browser.get(place)
                    continue
                form = {"prompt": "login", "login": name, "password": "any"} if "password" in answer.text else {
                    "prompt": "consent"
                }  # fmt: skip
                answer = browser.post(answer.url, data=form)
            code = parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": verifier,
        }  # fmt: skip
        return self._token(form, ("console", "console-secret"))

    def rotate(self):
        assert httpx.post(f"{self.url}/rotate", timeout=30).status_code == 200

    def _token(self, form, client):
        answer = httpx.post(f"{self.url}/token", data=form, auth=client, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def provider(tmp_path_factory):
    try:
        place = installed(FOLDER)
    except NoNpmError as reason:
        pytest.skip(f"no identity provider: {reason}")
    script = place / "provider.mjs"
    shutil.copy(FOLDER / "provider.mjs", script)
    said = tmp_path_factory.mktemp("provider") / "stderr"
    with said.open("w") as errors:
        process = subprocess.Popen(
            ["node", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        yield Provider(process)
    finally:
        process.stdin.close()  # ends it
        assert process.wait(30) == 0, said.read_text()
        process.stdout.close()


@pytest.fixture
def served(provider, tmp_path):
    told = f"{{issuer: '{provider.url}', audience: '{provider.audience}', name: corp, clients: [console, robot], "
    told += "required_scopes: [lake.read], groups: {staff: analysts}, attributes: {region: extension_region}}"
    with serving(write_project(tmp_path / "shop", f"identity: {{oidc: [{told}]}}"), token=None) as running:
        yield running


def ask(served, text):
    return httpx.get(f"{served.url}/api/session", headers={"authorization": f"Bearer {text}"}, timeout=30)


def test_people_and_applications_come_in(provider, served):
    told = ask(served, provider.person("ann")["access_token"])
    assert told.status_code == 200, told.text
    assert {name: told.json()[name] for name in ("name", "kind", "groups")} == {
        "name": "corp/ann", "kind": "user", "groups": ["analysts"],
    }  # fmt: skip
    told = ask(served, provider.application()).json()
    assert (told["name"], told["kind"]) == ("corp/robot", "service")


def test_its_other_tokens_do_not(provider, served):
    tokens = provider.person("ann")
    assert tokens["id_token"].count(".") == 2
    refused = ask(served, tokens["id_token"])
    assert refused.status_code == 401
    cases = {
        "for another audience": provider.application(resource="api://other"),
        "without the scope": provider.person("ann", "openid lake.admin")["access_token"],
    }
    for name, text in cases.items():
        answer = ask(served, text)
        assert answer.status_code == 401, name
    assert ask(served, tokens["access_token"]).status_code == 200


def test_a_person_signs_in_to_the_console_with_it(provider, served):
    text = provider.person("bob")["access_token"]
    answer = httpx.post(f"{served.url}/api/session", json={"key": text}, timeout=30)
    assert answer.json()["name"] == "corp/bob"
    cookie = answer.headers["set-cookie"].partition(";")[0]
    assert httpx.get(f"{served.url}/api/session", headers={"cookie": cookie}, timeout=30).json()["name"] == "corp/bob"


def test_a_key_that_rolled_over(provider, served, monkeypatch):
    """The new key is fetched by the first token that names it; tokens of the withdrawn one are refused from then on."""
    monkeypatch.setattr("lodestream.security.key_sets._PAUSE_US", 0)
    before = provider.application()
    assert ask(served, before).status_code == 200
    provider.rotate()
    after = provider.application()
    assert ask(served, before).status_code == 200, "the keys that are known are good until they are asked for"
    assert ask(served, after).status_code == 200
    assert ask(served, before).status_code == 401
