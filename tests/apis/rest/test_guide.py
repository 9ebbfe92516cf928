"""The page about asking over HTTP, block by block, against a running server."""

import os
import shutil
import subprocess

import pyarrow.parquet as pq
import pytest

from lodestream.apis.problems import TITLES
from lodestream.apis.rest.filters import OPERATORS
from tests.apis.rest.conftest import serving, write_lake
from tests.docs.pages import blocks, read

PAGE = "docs/guides/rest.md"
COMMANDS = [block for block in blocks(PAGE) if block.language == "sh"]
SQL = [block for block in blocks(PAGE) if block.text.startswith("-- title")]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guide") / "shop"
    table, notes = write_lake(folder)
    (folder / "queries").mkdir()
    (folder / "queries/daily.sql").write_text(SQL[0].text)
    with serving(folder, table, notes) as running:
        yield running


@pytest.mark.parametrize("block", COMMANDS, ids=lambda block: str(block.line))
def test_what_the_page_shows_works(shop, block, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("needs curl: apt-get install curl")
    told = dict(os.environ) | {"URL": shop.url, "KEY": shop.keys["owner"]}
    text = block.text.replace("curl -sS", "curl -sS --fail-with-body")
    done = subprocess.run(["sh", "-e"], input=text, env=told, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"status"' not in done.stdout
    if "orders.parquet" in text:
        assert pq.read_table(tmp_path / "orders.parquet").num_rows == 300
    if "cursor=" in text:
        assert '[2,"US"' in done.stdout
    if "/changes" in text:
        assert "event: start" in done.stdout
        assert "event: change" in done.stdout


def test_the_page_names_every_operator_and_status():
    text = read(PAGE)
    for operator in OPERATORS:
        assert f"`{operator}`" in text, operator
    for status in (400, 401, 403, 404, 406, 410, 413, 415, 429, 503):
        assert str(status) in text
        assert status in TITLES
