"""The page about Delta Sharing, block by block: its Python in the client's environment, against a running server."""

import json
import os
import shutil
import subprocess

import pytest

from tests.apis.rest.conftest import serving, write_lake
from tests.apis.sharing.peer import profile
from tests.cli.conftest import call
from tests.docs.pages import blocks
from tests.venvs import NoPackagesError, installed

PAGE = "docs/guides/sharing.md"
BLOCKS = [block for block in blocks(PAGE) if block.language in ("sh", "python")]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guide") / "shop"
    table, notes = write_lake(folder)
    (policies,) = [block.text for block in blocks(PAGE) if block.language == "yaml"]
    (folder / "policies.yaml").write_text(policies)
    with serving(folder, table, notes) as running:
        running.keys["ann"] = running.key("ann")[0]
        running.folder = folder
        yield running


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.language}-{block.line}")
def test_what_the_page_shows_works(shop, block, tmp_path, monkeypatch):
    if block.text.startswith("lodestream "):
        monkeypatch.chdir(tmp_path)
        made = call(*block.text.split()[1:], project=shop.folder)
        assert made.code == 0, made.err
        shown = next(json.loads(one.text) for one in blocks(PAGE) if one.text.startswith('{\n  "shareCred'))
        told = json.loads((tmp_path / "ann.share").read_text())
        assert (set(told), told["endpoint"]) == (set(shown), shown["endpoint"])
        return
    if block.language == "python":
        try:
            command = [str(installed("sharing") / "python"), "-W", "ignore", "-"]
        except NoPackagesError as error:
            pytest.skip(str(error))
        profile(tmp_path, shop.url, shop.keys["ann"], "ann")
    else:
        if shutil.which("curl") is None:
            pytest.skip("needs curl: apt-get install curl")
        command = ["sh", "-e"]
    told = dict(os.environ) | {"URL": shop.url, "KEY": shop.keys["ann"]}
    text = block.text.replace("curl -sS", "curl -sS --fail-with-body")
    done = subprocess.run(command, input=text, env=told, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    if block.language == "sh":
        first, *lines = done.stdout.replace("}{", "}\n{").splitlines()
        assert [one["name"] for one in json.loads(first)["items"]] == ["orders"]
        assert [next(iter(json.loads(line))) for line in lines] == ["protocol", "metaData", "file"]
