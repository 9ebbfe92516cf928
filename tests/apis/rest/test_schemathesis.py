"""Schemathesis takes the server at its word: requests made from its own OpenAPI document, right ones and wrong ones.

It runs as a program of its own (its pins are others than ours), bounded in time, with a fixed seed.
"""

import json
import re
import subprocess

import pytest

from tests.apis.rest.conftest import serving, write_lake
from tests.venvs import NoPackagesError, installed

TIME_S = 20
# A stream never ends; a replay or a change of grants by a random request would change what the others are asked about.
LEFT_OUT = ["/api/live", "/api/tables/{table}/changes"]
CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
          "ignored_auth", "unsupported_method"]  # fmt: skip


@pytest.fixture(scope="module")
def program():
    """The command, installed once from its own pinned requirements."""
    try:
        return str(installed("schemathesis") / "st")
    except NoPackagesError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schemathesis") / "shop"
    table, notes = write_lake(folder, rows=30)
    (folder / "queries").mkdir()
    (folder / "queries/of_id.sql").write_text("-- parameters: {id: bigint}\nSELECT * FROM gold.orders WHERE id = $id\n")
    with serving(folder, table, notes) as running:
        yield running


def run(program, shop, who, folder, *options):
    report = folder / "report.ndjson"
    command = [
        program, "run", f"{shop.url}/openapi.json", "--url", shop.url, "-H", f"Authorization: Bearer {shop.keys[who]}",
        "--phases", "examples,coverage,fuzzing", "--max-time", str(TIME_S), "--seed", "4", "--max-examples", "12",
        "--checks", ",".join(CHECKS), "--continue-on-failure", "--no-shrink", "--request-timeout", "20", "-w", "1",
        "--suppress-health-check", "all", "--report", "ndjson", "--report-ndjson-path", str(report),
        *(part for path in LEFT_OUT for part in ("--exclude-path", path)), *options,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=TIME_S + 200, cwd=folder)


@pytest.mark.parametrize("who", ["owner", "alice"])
def test_the_server_keeps_its_word(program, shop, tmp_path, who):
    done = run(program, shop, who, tmp_path, "--exclude-method", "DELETE", "--exclude-path-regex", "/replay$")
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
    tested = re.search(r"Tested: *(\d+)|(\d+) tested", done.stdout)
    assert tested, done.stdout[-3000:]


def test_a_server_that_breaks_its_word_is_seen(program, shop, tmp_path):
    """The same checks against a document that promises something else."""
    told = shop.get("/openapi.json").json()
    told["paths"] = {"/api/tables": told["paths"]["/api/tables"]}
    content = told["paths"]["/api/tables"]["get"]["responses"]["200"]["content"]
    content["application/json"]["schema"] = {"type": "object", "required": ["nothing of the kind"]}
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(told))
    command = [
        program, "run", str(wrong), "--url", shop.url, "-H", f"Authorization: Bearer {shop.keys['owner']}",
        "--phases", "examples,coverage", "--checks", ",".join(CHECKS), "--max-time", "20", "--seed", "4",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 1
    assert "nothing of the kind" in done.stdout
