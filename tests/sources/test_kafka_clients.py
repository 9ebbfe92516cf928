"""Topics that clients of others filled, through a registry: bronze has what they sent."""

from __future__ import annotations

import asyncio
import http.server
import io
import json
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka.schema_registry import Schema as RegistrySchema
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from fastavro import parse_schema, schemaless_writer

from lodestream.errors import TransientError
from lodestream.model.batch import BatchLimit
from lodestream.model.table import TableName
from lodestream.testing.registry import running_registry
from tests.engines.lakes import Lab
from tests.sources.kafka_topics import Topic, rows
from tests.sources.test_kafka import ids, source, take_all

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import KafkaProducer

ORDERS = TableName("bronze", "orders")
V1 = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}, {"name": "name", "type": "string"}]}
V2 = {**V1, "fields": [*V1["fields"], {"name": "price", "type": ["null", "double"], "default": None}]}


@pytest.fixture
def registry(tmp_path) -> Iterator[str]:
    with running_registry(store=str(tmp_path / "registry.db")) as running:
        yield running.url


def lab(tmp_path, topic: Topic, form: str, registry: str = "", columns: str = "id: bigint, name: string") -> Lab:
    made = Lab(tmp_path / topic.name)
    config = f'project: lab\nlake: lake\nconnections: {{kafka: {{servers: "{topic.broker.plain}"}}}}\n'
    (made.root / "lodestream.yaml").write_text(
        config + (f'registries: {{default: "{registry}"}}\n' if registry else "")
    )
    made.table(str(ORDERS), f"source: {{kafka: {{topic: {topic.name}}}}}\nformat: {form}\ncolumns: {{{columns}}}\n")
    return made


def opened_client(url: str) -> SchemaRegistryClient:
    return SchemaRegistryClient({"url": url}).__enter__()


def register(url: str, subject: str, schema: dict) -> int:
    with SchemaRegistryClient({"url": url}) as client:
        return client.register_schema(subject, RegistrySchema(json.dumps(schema), "AVRO"))


def framed(schema: dict, schema_id: int, row: dict) -> bytes:
    out = io.BytesIO()
    schemaless_writer(out, parse_schema(schema), row)
    return b"\0" + schema_id.to_bytes(4, "big") + out.getvalue()


def test_the_confluent_serializer_through_two_versions_of_a_schema(kafka, registry, tmp_path):
    topic = Topic(kafka)
    client = opened_client(registry)
    context = SerializationContext(topic.name, MessageField.VALUE)
    old, new = (AvroSerializer(client, json.dumps(schema)) for schema in (V1, V2))
    values = [old({"id": i, "name": f"n{i}"}, context) for i in range(20)]
    values += [new({"id": i, "name": f"n{i}", "price": i / 2}, context) for i in range(20, 40)]
    topic.send(values)
    made = lab(tmp_path, topic, "{avro: {registry: default}}", registry, "id: bigint, name: string, price: double")
    client.__exit__(None, None, None)
    made.run()
    got = {row["id"]: row["price"] for row in made.rows(str(ORDERS), "id", "price")}
    assert got == {i: (i / 2 if i >= 20 else None) for i in range(40)}
    made.reconcile()


def test_columns_come_from_the_registry_when_none_are_declared(kafka, registry, tmp_path):
    topic = Topic(kafka, partitions=1)
    register(registry, f"{topic.name}-value", V2)
    made = lab(tmp_path, topic, "avro", registry)
    file = made.root / "tables/bronze/orders.yaml"
    file.write_text(file.read_text().partition("columns:")[0])
    (plan,) = made.app().flows.values()
    assert [(c.name, str(c.type)) for c in plan.schema][:3] == [
        ("id", "bigint"),
        ("name", "string"),
        ("price", "double"),
    ]


def test_an_id_that_the_registry_does_not_know_is_replayed_once_it_does(kafka, registry, tmp_path):
    topic = Topic(kafka, partitions=1)
    topic.send([framed(V1, 1, {"id": 7, "name": "seven"}), b"\x01\0\0\0\1bad", b"\0\0\0"], key=b"k")
    made = lab(tmp_path, topic, "avro", registry)
    made.run()
    assert made.rows(str(ORDERS), "id") == []
    reasons = [row["reasons"] for row in made.quarantine(str(ORDERS), "reasons")]
    assert sorted(reasons) == [["parse:magic"], ["parse:schema_id:unknown"], ["parse:truncated"]] or len(reasons) == 3
    assert register(registry, f"{topic.name}-value", V1) == 1
    flow = made.app().pipeline().flow(ORDERS)
    flow.open()
    flow.submit_replay([(f"{topic.name}/0", offset) for offset in range(3)], accept_late=False)
    flow.close()
    assert made.rows(str(ORDERS), "id", "name") == [{"id": 7, "name": "seven"}]
    made.reconcile()


def test_a_registry_that_is_away_holds_up_what_is_new_and_loses_nothing(kafka, tmp_path):
    topic = Topic(kafka, partitions=1)
    topic.send([framed(V1, 1, {"id": 1, "name": "a"})])
    made = lab(tmp_path, topic, "avro", "http://127.0.0.1:9")
    flow = made.app()
    flow.apply()
    opened = flow.pipeline().flow(ORDERS)
    opened.open()
    with pytest.raises(TransientError):
        _step_until_it_raises(opened)
    opened.close()
    with running_registry(store=str(tmp_path / "registry.db")) as running:
        url = running.url
        register(url, "any", V1)
        config = made.root / "lodestream.yaml"
        config.write_text(config.read_text().replace("http://127.0.0.1:9", url))
        made.run()
    assert made.rows(str(ORDERS), "id", "name") == [{"id": 1, "name": "a"}]


def _step_until_it_raises(flow) -> None:
    for _ in range(50):
        flow.step()


@pytest.mark.parametrize("client", ["aiokafka", "kafka-python"])
def test_producers_of_others(kafka, tmp_path, client):
    topic = Topic(kafka)
    values = [json.dumps(row).encode() for row in rows(0, 50)]
    if client == "aiokafka":
        asyncio.run(_send_with_aiokafka(kafka.plain, topic.name, values))
    else:
        producer = KafkaProducer(bootstrap_servers=kafka.plain, compression_type="gzip")
        for value in values:
            producer.send(topic.name, value)
        producer.flush(20)
        producer.close()
    made = lab(tmp_path, topic, "json")
    made.run()
    assert [row["id"] for row in sorted(made.rows(str(ORDERS), "id"), key=lambda row: row["id"])] == list(range(50))


async def _send_with_aiokafka(servers: str, topic: str, values: list[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True)
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


# --- OAuth ----------------------------------------------------------------------------------------------------------


@contextmanager
def token_endpoint(subject: str) -> Iterator[str]:
    """Gives tokens that are not signed, as the test broker takes them."""

    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            now = int(time.time())
            claims = {"sub": subject, "iat": now, "exp": now + 600, "scope": "kafka"}
            body = json.dumps({"access_token": _unsigned(claims), "expires_in": 600, "token_type": "Bearer"}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/token"
    server.shutdown()
    thread.join()
    server.server_close()


def _unsigned(claims: dict) -> str:
    import base64

    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, claims)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "."


def test_tokens_of_an_oauth_endpoint_open_the_sasl_door(kafka, authority):
    topic = Topic(kafka, partitions=1)
    topic.send(rows(0, 3))
    with token_endpoint("lodestream") as url:
        oauth = {"token_endpoint": url, "client_id": "me", "client_secret": "secret", "scope": "kafka"}
        made = source(topic, servers=kafka.sasl, tls={"ca": str(authority.certificate)}, oauth=oauth)
        assert ids(take_all(made)[0]) == [0, 1, 2]
        made.close()


# --- a broker that does not answer for a while -----------------------------------------------------------------------


def test_a_broker_that_stalls_is_waited_for(own_kafka):
    topic = Topic(own_kafka, partitions=2)
    topic.send(rows(0, 50))
    made = source(topic, client={"socket.timeout.ms": 2000})
    pieces, consumed = take_all(made)
    own_kafka.pause()
    threading.Timer(3.0, own_kafka.resume).start()
    stop = time.monotonic() + 30
    sent = False
    while len(ids(pieces)) < 100:
        assert time.monotonic() < stop
        try:
            planned = made.plan(consumed, BatchLimit(), 0)
            pieces += made.read_together(planned) if planned else []
            consumed.update({one.unit: one for one in planned})
        except TransientError:
            made.close()
        if not sent and time.monotonic() > stop - 26:
            topic.send(rows(50, 100))
            sent = True
    assert ids(pieces) == list(range(100))
    made.close()
