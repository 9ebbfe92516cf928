import urllib.error
import urllib.request

import pytest

from lodestream.errors import ConfigError, TransientError
from lodestream.model.table import TableName
from lodestream.operations.metrics import CONTENT_TYPE, MetricsServer, exposition
from lodestream.runtime.supervise import FlowStatus

NOW_US = 1_700_000_010_000_000


def status(**values):
    return FlowStatus(TableName("silver", "orders"), **values)


def samples(text):
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def test_every_metric_has_help_and_type_once():
    text = exposition([status(), FlowStatus(TableName("gold", "x"))], NOW_US)
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    assert text.endswith("\n")
    for name in samples(text):
        assert name.split("{")[0] in names


def test_rows_rules_freshness_and_state():
    given = status(
        state="retrying", batches=3, batch=7, version=9,
        counts={"input": 10, "output": 8, "late": 2, "rule:positive": 1},
        busy_s=1.5, max_event_us=NOW_US - 2_500_000, last_commit_us=NOW_US - 1_000_000, state_bytes=64, retries=2,
        error=TransientError("gone"),
    )  # fmt: skip
    found = samples(exposition([given], NOW_US))
    table = 'table="silver.orders"'
    assert found[f'lodestream_rows_total{{{table},fate="late"}}'] == "2"
    assert found[f'lodestream_rule_rows_total{{{table},rule="positive"}}'] == "1"
    assert found[f"lodestream_freshness_seconds{{{table}}}"] == "2.5"
    assert found[f"lodestream_commit_age_seconds{{{table}}}"] == "1"
    assert found[f"lodestream_batch{{{table}}}"] == "7"
    assert found[f"lodestream_error{{{table}}}"] == "1"
    assert found[f'lodestream_state{{{table},state="retrying"}}'] == "1"
    assert found[f'lodestream_state{{{table},state="running"}}'] == "0"


def test_what_is_not_known_is_left_out():
    text = exposition([status()], NOW_US)
    assert "freshness" not in text
    assert "commit_age" not in text


def test_the_server_answers_and_ends():
    statuses = [status(counts={"input": 1})]
    server = MetricsServer(lambda: statuses, lambda: NOW_US, 0)
    address = f"http://127.0.0.1:{server.port}"
    try:
        with urllib.request.urlopen(f"{address}/metrics", timeout=5) as answer:
            assert answer.headers["Content-Type"] == CONTENT_TYPE
            assert b"lodestream_rows_total" in answer.read()
        with urllib.request.urlopen(f"{address}/healthz", timeout=5) as answer:
            assert answer.read() == b"ok\n"
        statuses[0].state = "failed"
        with pytest.raises(urllib.error.HTTPError) as failed:
            urllib.request.urlopen(f"{address}/healthz", timeout=5)
        assert failed.value.code == 503
        assert failed.value.read() == b"failed: silver.orders\n"
        failed.value.close()
        with pytest.raises(ConfigError, match="another port"):
            MetricsServer(lambda: statuses, lambda: NOW_US, server.port)
    finally:
        server.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{address}/metrics", timeout=5)
