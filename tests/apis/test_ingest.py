"""What is posted is in bronze, once, decoded by its content type; what is wrong is refused with the reason."""

import gzip
import io
import json
import subprocess
from datetime import UTC, datetime
from decimal import Decimal

import fastavro
import pyarrow as pa
import pytest

from lodestream.apis.serving import HttpServer
from lodestream.app import open_project
from lodestream.errors import ConfigError, ConflictError
from tests.apis.conftest import ORDERS, TOKEN, serving
from tests.cli.conftest import call

AT = "2024-05-01T12:00:00Z"


def ocf(rows, codec="deflate"):
    schema = {
        "type": "record", "name": "order", "fields": [
            {"name": "id", "type": "long"},
            {"name": "name", "type": ["null", "string"]},
            {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        ],
    }  # fmt: skip
    file = io.BytesIO()
    fastavro.writer(file, schema, rows, codec=codec)
    return file.getvalue()


def arrow(rows, schema=None):
    table = pa.Table.from_pylist(rows, schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


ROW = {"id": 1, "name": "Zoë", "amount": Decimal("39.90"), "at": datetime(2024, 5, 1, 12, tzinfo=UTC)}
TEXT = json.dumps({"id": 1, "name": "Zoë", "amount": "39.90", "at": AT})
DICTIONARY = pa.schema([("id", pa.int32()), ("name", pa.dictionary(pa.int8(), pa.string())),
                        ("amount", pa.decimal128(20, 2)), ("at", pa.timestamp("ns", "UTC"))])  # fmt: skip
BODIES = {
    "object": ("application/json", TEXT.encode()),
    "array": ("application/json; charset=utf-8", f" [ {TEXT} ]\n".encode()),
    "ndjson": ("application/x-ndjson", f"{TEXT}\n\r\n".encode()),
    "csv": ("text/csv", f"amount,name,id,at\n39.90,Zoë,1,{AT}\n".encode()),
    "csv without header": ("text/csv; header=absent", f"1,Zoë,39.90,{AT}".encode()),
    "avro": ("application/avro", ocf([ROW])),
    "avro, plain": ("application/avro", ocf([ROW], "null")),
    "arrow": ("application/vnd.apache.arrow.stream", arrow([ROW])),
    "arrow, other types": ("application/vnd.apache.arrow.stream", arrow([ROW], DICTIONARY)),
    "message": ("application/octet-stream", TEXT.encode()),
}


def test_every_content_type_gives_the_same_row(served):
    for number, (kind, body) in enumerate(BODIES.values()):
        answer = served.post(body, kind)
        assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "first": number, "last": number}), kind
    found = served.rows(columns=["id", "name", "amount", "at"])
    assert found == [ROW] * len(BODIES)


def test_content_encodings(served):
    packed = {"gzip": gzip.compress(TEXT.encode()), "zstd": pa.compress(TEXT.encode(), "zstd", asbytes=True)}
    for encoding, body in packed.items():
        assert served.post(body, content_encoding=encoding).json()["accepted"] == 1
        assert served.post(body[:-4], content_encoding=encoding).status_code == 400
    assert served.post(TEXT, content_encoding="br").status_code == 415
    assert len(served.rows()) == 2


def test_a_table_of_another_format_takes_what_it_says_and_json(served):
    assert served.post("id;name\n1;a\n", "text/csv", "places").status_code == 200
    assert served.post('[{"id":2,"name":"b"},{"id":3}]', stream="places").json() == {
        "accepted": 2, "first": 1, "last": 2,
    }  # fmt: skip
    assert [row["id"] for row in served.rows("bronze.places")] == [1, 2, 3]


def test_a_body_with_bad_records_is_refused_whole(served):
    answer = served.post('[{"id":1},{"id":"x"},{"id":2,"colour":"red"}]')
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"] == [
        {"record": 1, "reasons": ["parse:id:type"]}, {"record": 2, "reasons": ["drift:colour"]},
    ]  # fmt: skip
    many = "\n".join('{"id":%s}' % ("true" if i == 70 else i) for i in range(100))
    assert served.post(many, "application/x-ndjson").json()["errors"] == [{"record": 70, "reasons": ["parse:id:type"]}]
    assert served.post("id,name,amount,at\n1,a,,\nx,b,,\n", "text/csv").json()["errors"] == [
        {"record": 1, "reasons": ["parse:id:type"]}
    ]
    assert served.rows() == []


def test_bad_records_are_set_aside_when_that_is_asked_for(served):
    bodies = [
        ('[{"id":1},{"id":"x"}]', "application/json"),
        ("amount,at,name,id\n,,a,2\n,,b,y\n", "text/csv"),
        ("{torn", "application/json"),
    ]
    for body, kind in bodies:
        answer = served.client.post("/ingest/orders?on_error=quarantine", content=body, headers={"content-type": kind})
        assert answer.status_code == 200, answer.text
    assert [row["id"] for row in served.rows()] == [1, 2]
    aside = served.rows("bronze.orders__quarantine", ["_position", "reasons", "raw"])
    assert [(row["_position"], row["raw"]) for row in aside] == [(1, b'{"id":"x"}'), (3, b",,b,y"), (4, b"{torn")]
    assert served.client.post("/ingest/orders?on_error=shrug", content="{}").status_code in (400, 415)


def test_drift_that_the_table_takes_in_is_accepted(project):
    with serving(project(tables={"orders": ORDERS.replace("bigint", "int") + "drift: widen\n"})) as served:
        assert served.post('{"id":1}').status_code == 200
        assert served.post('{"id":2,"colour":"red"}').status_code == 200
        assert served.post('{"id":3000000000}').status_code == 200
        assert served.post('{"id":"x"}').status_code == 422
        assert served.rows(columns=["id", "colour"]) == [
            {"id": 1, "colour": None}, {"id": 2, "colour": "red"}, {"id": 3_000_000_000, "colour": None},
        ]  # fmt: skip


def test_the_same_idempotency_key_gives_the_same_answer_and_writes_nothing(project):
    folder = project()
    with serving(folder) as served:
        first = served.post('[{"id":1},{"id":2}]', idempotency_key="k1")
        assert served.post('{"id":3}', idempotency_key="k2").json()["first"] == 2
        for _ in range(3):
            again = served.post('[{"id":1},{"id":2}]', idempotency_key="k1")
            assert (again.status_code, again.content) == (200, first.content)
        assert served.post('[{"id":1}]', idempotency_key="k1").status_code == 422
        assert served.post('{"id":1}', idempotency_key="").status_code == 400
        refused = served.post('{"id":"x"}', idempotency_key="k3")
        assert refused.status_code == 422
        assert served.post('{"id":4}', idempotency_key="k3").status_code == 200  # a refusal is not kept
    with serving(folder) as served:
        assert served.post('[{"id":1},{"id":2}]', idempotency_key="k1").content == first.content
        assert [row["id"] for row in served.rows()] == [1, 2, 3, 4]


def test_curl(served):
    command = ["curl", "-sS", "-H", f"Authorization: Bearer {TOKEN}", "-H", "Content-Type: application/json",
               "--data-binary", TEXT, f"{served.url}/ingest/orders"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == {"accepted": 1, "first": 0, "last": 0}


def test_a_server_that_cannot_record_is_not_ready_but_takes_records(served, monkeypatch):
    monkeypatch.setattr(served.app.audit, "_failed", "disk is full")
    answer = served.client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "failing"})
    assert served.client.get("/healthz").status_code == 200
    assert served.post(TEXT).status_code == 200


def test_an_empty_array_takes_nothing(served):
    assert served.post("[]").json() == {"accepted": 0, "first": None, "last": None}
    assert served.post(" ").status_code == 400


def test_status_pages(served):
    served.post(TEXT)
    served.post("{}", stream="ordres")
    assert served.client.get("/healthz", headers={"authorization": ""}).json()["status"] == "ok"
    assert served.client.get("/readyz", headers={"authorization": ""}).json()["status"] == "ok"
    text = served.client.get("/metrics").text
    assert 'lodestream_ingest_requests_total{stream="orders",status="200"} 1' in text
    assert 'lodestream_ingest_requests_total{stream="",status="404"} 1' in text
    assert 'lodestream_ingest_records_total{stream="orders"} 1' in text
    served.rows()
    assert 'lodestream_ingest_end{stream="orders"} 1' in served.client.get("/metrics").text
    for path in ("/metrics", "/openapi.json"):
        assert served.client.get(path, headers={"authorization": ""}).status_code == 401
    assert served.client.get("/api/nothing").status_code == 404
    assert served.client.get("/ingest/orders").status_code == 405


def test_what_cannot_be_served(project):
    folder = project(tables={"orders": ORDERS, "again": ORDERS})
    app = open_project(str(folder))
    with pytest.raises(ConfigError, match="one table"):
        app.http(app.serving(), None)
    (folder / "tables/bronze/again.yaml").unlink()
    with serving(folder) as served:
        other = open_project(str(folder))
        with pytest.raises(ConfigError, match="cannot listen"):
            HttpServer(app.serving(port=served.port), ".")
        with pytest.raises(ConflictError, match="another process"):
            other.http(other.serving(), None)


def test_a_project_without_streams_is_served_all_the_same(project):
    with serving(project(tables={"orders": "source: {generator: {rows: 1}}\n"})) as served:
        assert served.client.get("/healthz").status_code == 200
        assert served.post("{}").status_code == 404


def test_bad_records_are_replayed_after_the_fix(project):
    folder = project(tables={"orders": ORDERS})
    bodies = [('{"id":1,"colour":"red"}', "application/json"), ("id,name,amount,at,colour\n2,b,,,blue\n", "text/csv")]
    with serving(folder) as served:
        for body, kind in bodies:
            url = "/ingest/orders?on_error=quarantine"
            assert served.client.post(url, content=body, headers={"content-type": kind}).status_code == 200
        assert served.rows() == []
    table = folder / "tables/bronze/orders.yaml"
    table.write_text(ORDERS.replace("name: string", "name: string, colour: string"))
    assert call("plan", project=folder).code == 0
    assert call("run", "--until-idle", project=folder).code == 0
    assert call("quarantine", "replay", "bronze.orders", "--all", project=folder).code == 0
    with serving(folder) as served:
        assert [row["colour"] for row in served.rows(columns=["colour"])] == ["red", "blue"]
        assert served.post('{"id":3,"colour":"green"}').json()["first"] == 2
        assert [row["id"] for row in served.rows()] == [1, 2, 3]
    assert call("reconcile", project=folder).code == 0
    assert call("doctor", project=folder).code == 0


def test_a_record_that_came_bad_is_replayed(project):
    folder = project(tables={"orders": ORDERS + "drift: add\n"})
    with serving(folder) as served:
        url = "/ingest/orders?on_error=quarantine"
        for body in ('{"id":1,"colour":"red"}', '{"id":2,"colour":7}'):
            answer = served.client.post(url, content=body, headers={"content-type": "application/json"})
            assert answer.status_code == 200
            served.rows()
        assert [row["id"] for row in served.rows()] == [1]
    assert call("quarantine", "replay", "bronze.orders", "--all", project=folder).code == 0
    assert call("reconcile", project=folder).code == 0


def test_a_rebuild_reads_the_log_again(project):
    folder = project(tables={"orders": ORDERS})
    with serving(folder) as served:
        for i in range(5):
            assert served.post(f'{{"id":{i}}}').status_code == 200
        assert len(served.rows()) == 5
        assert (
            call("table", "restore", "bronze.orders", "--version", "0", "--rewind", "--yes", project=folder).code == 0
        )
        assert [row["id"] for row in served.rows()] == [0, 1, 2, 3, 4]
    assert call("reconcile", project=folder).code == 0


def test_a_json_schema_of_the_table_holds_at_the_door_too(project):
    schema = {"type": "object", "properties": {"id": {"type": "integer", "minimum": 10}}}
    table = "source: {http: {stream: orders}}\nformat: {json: {schema: order.json}}\ncolumns: {id: bigint}\n"
    folder = project(tables={"orders": table})
    (folder / "order.json").write_text(json.dumps(schema))
    with serving(folder) as served:
        assert served.post('{"id":10}').status_code == 200
        refused = served.post('{"id":9}')
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["reasons"][0].startswith("schema:")
        assert served.rows(columns=["id"]) == [{"id": 10}]


def test_messages_and_json_for_a_table_of_plain_avro(project):
    schema = {"type": "record", "name": "order", "fields": [{"name": "id", "type": "long"}]}
    table = (
        "source: {http: {stream: orders}}\nformat: {avro: {framing: none, schema: order.avsc}}\ncolumns: {id: bigint}\n"
    )
    folder = project(tables={"orders": table})
    (folder / "order.avsc").write_text(json.dumps(schema))
    message = io.BytesIO()
    fastavro.schemaless_writer(message, schema, {"id": 7})
    with serving(folder) as served:
        assert served.post(message.getvalue(), "application/octet-stream").status_code == 200
        assert served.post(b"\xff\xff", "application/octet-stream").status_code == 422
        assert served.post('[{"id":8},{"id":9}]').status_code == 200
        assert [row["id"] for row in served.rows(columns=["id"])] == [7, 8, 9]
