"""The page about PostgreSQL clients, block by block, against a running server."""

import os
import subprocess

import pytest

from tests.apis.postgres.packages import installed
from tests.docs.pages import blocks

PAGE = "docs/guides/postgres.md"
SHOWN = [
    block for block in blocks(PAGE) if block.language in ("sh", "python") and block.text != "lodestream postgres\n"
]


@pytest.fixture
def surroundings(shop, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    told = {"PGHOST": "127.0.0.1", "PGPORT": str(shop.port), "PGDATABASE": "shop", "PGUSER": "alice"}
    for name, value in (told | {"PGPASSWORD": shop.passwords["alice"], "KEY": shop.passwords["alice"]}).items():
        monkeypatch.setenv(name, value)
    return shop


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: str(block.line))
def test_what_the_page_shows_works(surroundings, block):
    if block.language == "sh":
        if not installed("postgresql-client", "psql"):
            pytest.skip("psql cannot be had here")
        text = block.text.replace("5433", str(surroundings.port)).replace("PGUSER=ann", "PGUSER=alice")
        done = subprocess.run(
            ["sh", "-e"], input=text, env=dict(os.environ), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "acme" in done.stdout
        assert "globex" not in done.stdout
        with open("paid.csv", encoding="utf-8") as file:
            assert file.readline().startswith("id,customer")
    else:
        exec(compile("\n" * block.line + block.text, PAGE, "exec"), {})
