"""Each refusal of a token is needed: without it, one of the forgeries comes in, or the check falls over."""

import re
import sys
import types
from pathlib import Path

import pytest

from lodestream.app import now_us
from lodestream.errors import AccessError
from lodestream.project.identity import OidcSettings
from lodestream.security import oidc
from tests.apis.issuer import AUDIENCE, TENANT, Issuer
from tests.apis.test_tokens import FORGED, GOOD, publish

SOURCE = Path(oidc.__file__).read_text(encoding="utf-8")
REFUSALS = [match.start(1) for match in re.finditer(r"^ +(raise _refused\()", SOURCE, re.MULTILINE)]


def planted(at):
    """The module without the refusal at a place of its source."""
    text = SOURCE if at is None else f"{SOURCE[:at]}str({SOURCE[at + len('raise _refused(') :]}"
    if at is not None:
        end = text.index("\n", at)
        text = text[:at] + text[at:end].replace(" from None", "") + text[end:]
    module = types.ModuleType(f"planted_{at}")
    sys.modules[module.__name__] = module
    try:
        exec(compile(text, oidc.__file__, "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return module


@pytest.fixture(scope="module")
def issuer():
    found = Issuer()
    publish(found)
    yield found
    found.close()


@pytest.fixture(scope="module")
def tokens(issuer):
    return {name: make(issuer) for name, make in {**FORGED, **GOOD}.items()}


NEEDS = {"clients": ("console", "robot"), "required_roles": ("Lake.Robot",)}
SETTINGS = {
    "as the server has it": (
        {"required_scopes": ("lake.read", "lake.admin")} | NEEDS,
        {"required_scopes": ("Lake.Read",)} | NEEDS,
    ),
    "as little as can be": ({}, {}),
    "one algorithm": ({"algorithms": ("ES256",)}, {"algorithms": ("ES256",)}),
}
"""Of a standard issuer, and of Entra."""


def came_in(module, issuer, tokens, chosen):
    """Names of the tokens that are accepted, or that the check falls over."""
    standard, entra = SETTINGS[chosen]
    checking = module.Oidc(
        [
            OidcSettings(issuer=issuer.url, audience=AUDIENCE, name="corp", **standard),
            OidcSettings(
                issuer=f"{issuer.base}/{TENANT}/v2.0", audience=AUDIENCE, name="microsoft", profile="entra", **entra
            ),
        ],
        now_us,
    )
    for name in ("plain", "entra 2.0"):
        checking.ask(tokens[name])
    found = set()
    for name, text in tokens.items():
        try:
            checking.verify(text)
        except AccessError:
            continue
        except Exception:
            found.add(f"{name} (fell over)")
            continue
        found.add(name)
    return found


@pytest.fixture(scope="module")
def good(issuer, tokens):
    return {chosen: came_in(planted(None), issuer, tokens, chosen) for chosen in SETTINGS}


def test_nothing_is_planted(good):
    assert good["as the server has it"] == set(GOOD)
    assert good["one algorithm"] == {"es256"}
    assert not [name for name in good["as little as can be"] if "fell over" in name]


@pytest.mark.parametrize("at", REFUSALS, ids=lambda at: SOURCE[at:].partition("\n")[0][:60])
def test_without_a_refusal_a_forgery_comes_in(issuer, tokens, good, at):
    assert any(came_in(planted(at), issuer, tokens, chosen) > good[chosen] for chosen in SETTINGS)


def test_every_refusal_is_looked_at():
    assert len(REFUSALS) == SOURCE.count("raise _refused(") >= 25
