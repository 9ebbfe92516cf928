"""Mistakes under `server:` are told with file, line and key; what is right becomes settings."""

import pytest

from lodestream.app import open_project
from lodestream.project.mistakes import ProjectError

TABLE = "source: {http: {stream: orders}}\ncolumns: {id: bigint}\n"


@pytest.fixture
def shop(tmp_path):
    (tmp_path / "tables/bronze").mkdir(parents=True)
    (tmp_path / "tables/bronze/orders.yaml").write_text(TABLE)

    def opened(server):
        (tmp_path / "lodestream.yaml").write_text(f"project: shop\nserver:\n{server}")
        return open_project(str(tmp_path))

    return opened


def test_settings(shop, monkeypatch):
    monkeypatch.setenv("PROXY", "10.0.0.0/8")
    proxies = "  trusted_proxies: ['${env:PROXY}']\n"
    app = shop("  port: 0\n  metrics_port: 9100\n  ingest: {answers_kept: 2 days}\n" + proxies)
    assert app.flows
    found = app.serving(host="::1")
    assert (found.host, found.port, found.trusted_proxies) == ("::1", 0, ("10.0.0.0/8",))
    assert found.ingest.answers_kept == "2 days"


@pytest.mark.parametrize(
    ("server", "line", "code", "key"),
    [
        ("  prot: 1\n", 3, "D103", "prot"),
        ("  port: 1\n  tls: {certificate: a}\n", 4, "D105", "tls.key"),
        ("  allow: [10.0.0.0/99]\n", 3, "D203", "allow"),
        ("  ingest:\n    body_bytes_max: 1\n", 4, "D203", "ingest.body_bytes_max"),
        ("  ingest:\n    boddy_bytes_max: 5000\n", 4, "D103", "ingest.boddy_bytes_max"),
        ("  ingest: {body_timeout: soon}\n", 3, "D203", "ingest.body_timeout"),
    ],
)
def test_mistakes(shop, server, line, code, key):
    with pytest.raises(ProjectError) as told:
        _ = shop(server).flows
    found = [(one.file, one.line, one.code) for one in told.value.diagnostics]
    assert found == [("lodestream.yaml", line, code)]
    assert key in str(told.value)


def test_a_stream_s_name_and_keep_are_checked(shop, tmp_path):
    app = shop("  port: 0\n")
    (tmp_path / "tables/bronze/orders.yaml").write_text("source: {http: {stream: ../x, keep: long}}\n")
    with pytest.raises(ProjectError) as told:
        _ = open_project(str(app.project.root)).flows
    assert {one.code for one in told.value.diagnostics} >= {"D203"}
