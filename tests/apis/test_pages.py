"""The console's files: what the bundle holds and nothing else, under a policy that lets nothing foreign in."""

import pytest
from starlette.testclient import TestClient

from lodestream.apis.pages import console
from lodestream.apis.routing import application
from tests.apis.gates import Picky
from tests.apis.paths import TRAVERSALS, url_path

SCRIPT = "let x = 1;" * 100


@pytest.fixture
def folder(tmp_path):
    bundle = tmp_path / "static"
    (bundle / "assets").mkdir(parents=True)
    (bundle / "index.html").write_text("<!doctype html><title>first page</title>")
    (bundle / "assets/app-1.js").write_text(SCRIPT)
    (bundle / "favicon.svg").write_text("<svg/>")
    (tmp_path / "secret.txt").write_text("canary-9137")
    return bundle


def served(folder):
    return TestClient(application([], Picky({}), otherwise=console(folder)), raise_server_exceptions=False)


def test_files_and_deep_links(folder):
    client = served(folder)
    for path in ("/", "/index.html", "/tables/gold.orders", "/sql", "/flow/a/b?x=1"):
        answer = client.get(path)
        assert "first page" in answer.text
        assert answer.headers["content-type"].startswith("text/html")
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-cache"
    script = client.get("/assets/app-1.js")
    assert script.text == SCRIPT
    assert script.headers["content-type"].startswith("text/javascript")
    assert "immutable" in script.headers["cache-control"]
    assert script.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in client.get("/assets/app-1.js", headers={"accept-encoding": ""}).headers
    assert client.get("/favicon.svg").headers["content-type"] == "image/svg+xml"


def test_a_page_that_a_browser_has_is_not_sent_again(folder):
    client = served(folder)
    etag = client.get("/").headers["etag"]
    again = client.get("/sql", headers={"if-none-match": etag})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/api/nothing", "/ingest/", "/assets/app-2.js", "/.well-known/x", "/api"])
def test_what_is_no_page_is_not_found(folder, path):
    answer = served(folder).get(path)
    assert answer.status_code == 404
    assert answer.json()["status"] == 404


def test_only_get_is_answered(folder):
    client = served(folder)
    assert client.post("/sql").status_code == 405
    assert client.head("/").status_code == 200
    assert client.get("/", headers={"host": "evil"}).status_code == 421


def test_no_path_leaves_the_bundle(folder):
    client = served(folder)
    for text in TRAVERSALS:
        for path in (f"/{text}", f"/assets/{text}", f"/{text}secret.txt", f"/{text}/secret.txt"):
            answer = client.get(url_path(path))
            assert answer.status_code in (200, 404), path
            assert "canary-9137" not in answer.text
            assert "root:" not in answer.text


def test_an_installation_without_the_console_says_so(tmp_path):
    answer = served(tmp_path / "nothing").get("/")
    assert answer.status_code == 503
    assert "console is not part of this installation" in answer.text
    assert answer.headers["content-type"].startswith("text/plain")
