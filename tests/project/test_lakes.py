"""What `lake:` may say, and what is wrong with what it says."""

import pytest

from lodestream.project.lakes import is_url, parts_of
from lodestream.project.load import load_project
from lodestream.project.mistakes import ProjectError

AZURE = "abfss://lake@shop.dfs.core.windows.net/a/b"


def config(write, lake, more=""):
    return write({"lodestream.yaml": f"project: shop\nlake: {lake}\n{more}"})


def test_a_url_with_its_settings(write):
    root = config(
        write, f"{{url: {AZURE}, account_key: '${{env:KEY}}', copies_bytes_max: 5000000000}}",
        "environments:\n  same: {}\n  other: {lake: {url: 's3://b/x', region: eu-west-1}}\n  local: {lake: here}\n",
    )  # fmt: skip
    project = load_project(root)
    assert (project.lake, dict(project.store)) == (AZURE, {"account_key": "${env:KEY}", "copies_bytes_max": 5000000000})
    found = {name: load_project(root, name) for name in ("same", "other", "local")}
    assert (found["same"].lake, found["same"].store) == (project.lake, project.store)
    assert (found["other"].lake, dict(found["other"].store)) == ("s3://b/x", {"region": "eu-west-1"})
    assert (found["local"].lake, dict(found["local"].store)) == (f"{root}/here", {})


@pytest.mark.parametrize(
    ("lake", "code", "line", "said"),
    [
        ("gs://bucket/x", "D106", 2, "not the URL of a store"),
        ("abfss://lake@shop.blob.core.windows.net/a", "D106", 2, "abfss://CONTAINER@ACCOUNT.dfs"),
        ("s3://user:word@bucket/x", "D106", 2, "s3://BUCKET/PATH"),
        ("{account_key: x}", "D105", 2, "url"),
        ("{url: '  '}", "D104", 2, "a folder or URL"),
        (f"{{url: {AZURE}, acount_key: x}}", "D103", 2, "account_key"),
        (f"{{url: {AZURE}, region: x}}", "D106", 2, "other kind of store"),
        ("{url: 's3://b/x', sas_token: x}", "D106", 2, "other kind of store"),
        ("{url: here, endpoint: 'http://x'}", "D106", 2, "a lake in a folder has no such setting"),
        ("{url: 's3://b/x', access_key_id: x}", "D105", 2, "go together"),
        (f"{{url: {AZURE}, client_secret: x}}", "D105", 2, "client_secret needs"),
        (f"{{url: {AZURE}, timeout: soon}}", "D107", 2, "duration"),
        (f"{{url: {AZURE}, copies_bytes_max: 1}}", "D203", 2, "greater"),
        ("[a]", "D104", 2, "a folder or URL"),
    ],
)
def test_mistakes_are_named_with_their_place(write, lake, code, line, said):
    with pytest.raises(ProjectError) as refused:
        load_project(config(write, lake))
    (mistake,) = refused.value.diagnostics
    assert (mistake.code, mistake.line) == (code, line)
    assert said in str(refused.value)
    assert "word" not in str(refused.value)


@pytest.mark.parametrize("lake", ["'${env:LAKE}'", "{url: '${env:LAKE}', account_key: '${file:/run/key}'}"])
def test_references_are_not_judged(write, lake):
    assert load_project(config(write, lake)).lake == "${env:LAKE}"


def test_the_parts_of_a_url():
    assert parts_of(AZURE) == {"container": "lake", "account": "shop", "suffix": "core.windows.net", "path": "a/b"}
    assert parts_of("s3://bucket") == {"bucket": "bucket", "path": ""}
    assert parts_of("az://bucket") is None
    assert (is_url("C:/x"), is_url("lake"), is_url("s3://x")) == (False, False, True)
