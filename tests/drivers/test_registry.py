"""The registry client: against our registry, through outages, and against servers that lie."""

import http.server
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lodestream.drivers.registry import open_registry, registries
from lodestream.errors import AccessError, ConfigError, TransientError
from lodestream.ports.registry import Reference, SchemaRefusedError, UnknownSchemaError
from lodestream.testing.registry import running_registry, start_registry

LONG = '"long"'
RECORD = '{"type":"record","name":"A","fields":[{"name":"id","type":"long"}]}'
NEEDY = '{"type":"record","name":"A","fields":[{"name":"id","type":"long"},{"name":"x","type":"int"}]}'


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with running_registry(store=str(tmp_path_factory.mktemp("registry") / "r.db")) as found:
        yield found


def test_schemas_are_registered_and_found_again(registry, tmp_path):
    client = open_registry({"url": registry.url}, str(tmp_path))
    made = client.register("orders-value", "AVRO", RECORD)
    assert client.register("orders-value", "AVRO", RECORD) == made
    assert (client.schema(made).kind, client.schema(made).text) == ("AVRO", RECORD)
    assert client.version("orders-value", 1).id == made
    assert client.latest("orders-value").id == made
    assert client.latest("nosuch") is None
    assert client.differences("orders-value", "AVRO", RECORD) == ()
    assert "READER_FIELD_MISSING_DEFAULT_VALUE" in client.differences("orders-value", "AVRO", NEEDY)[0]
    assert client.differences("nosuch", "AVRO", NEEDY) == ()
    assert "no such type" in client.differences("orders-value", "AVRO", '"nosuch"')[0]
    with pytest.raises(SchemaRefusedError, match="READER_FIELD_MISSING_DEFAULT_VALUE"):
        client.register("orders-value", "AVRO", NEEDY)
    client.close()
    client.close()


def test_references_come_along(registry):
    client = open_registry({"url": registry.url}, None)
    client.register("a/b", "JSON", '{"type": "string"}')
    text = '{"type": "object", "properties": {"a": {"$ref": "a.json"}}}'
    made = client.register("with", "JSON", text, [Reference("a.json", "a/b", 1)])
    assert client.schema(made).references == (Reference("a.json", "a/b", 1),)
    assert client.version("a/b", 1).kind == "JSON"


def test_what_is_not_there_is_asked_for_once_in_a_while(registry):
    clock = Clock()
    client = open_registry({"url": registry.url}, None, clock)
    asked = []
    get = client._http.get
    client._http.get = lambda path: (asked.append(path), get(path))[1]
    for _ in range(3):
        with pytest.raises(UnknownSchemaError):
            client.schema(424_242)
    assert len(asked) == 1
    clock.now = 6.0
    with pytest.raises(UnknownSchemaError):
        client.schema(424_242)
    assert len(asked) == 2


def test_an_outage_holds_up_only_what_is_new(tmp_path):
    store, cache = str(tmp_path / "r.db"), str(tmp_path / "cache")
    with running_registry(store=store) as server:
        known = open_registry({"url": server.url}, cache)
        made = known.register("s", "AVRO", LONG)
        known.schema(made), known.latest("s"), known.version("s", 1)
        port = int(server.url.rpartition(":")[2])
        server.kill()
        assert known.schema(made).text == LONG
        fresh = open_registry({"url": server.url}, cache)
        assert fresh.schema(made).text == fresh.version("s", 1).text == fresh.latest("s").text == LONG
        with pytest.raises(TransientError, match="does not answer") as held:
            fresh.schema(made + 1)
        assert held.value.retry_after_s > 0
        without = open_registry({"url": server.url}, None)
        with pytest.raises(TransientError):
            without.schema(made)
    with running_registry(store=store, port=port):
        assert open_registry({"url": server.url}, None).schema(made).text == LONG


def test_files_are_not_believed_while_the_registry_answers(tmp_path):
    cache = str(tmp_path / "cache")
    first = start_registry(store=str(tmp_path / "one.db"))
    port = int(first.url.rpartition(":")[2])
    client = open_registry({"url": first.url}, cache)
    assert client.schema(client.register("s", "AVRO", LONG)).text == LONG
    first.stop()
    with running_registry(store=str(tmp_path / "two.db"), port=port) as second:
        other = open_registry({"url": second.url}, cache)
        assert other.schema(other.register("s", "AVRO", RECORD)).text == RECORD
    for stream in (first.process.stdout, first.process.stderr):
        stream.close()


def test_a_torn_file_is_no_file(tmp_path):
    cache = tmp_path / "cache"
    with running_registry(store=str(tmp_path / "r.db")) as server:
        client = open_registry({"url": server.url}, str(cache))
        made = client.register("s", "AVRO", LONG)
        client.schema(made)
    for file in cache.rglob("*.json"):
        file.write_text(file.read_text()[:20])
    with pytest.raises(TransientError):
        open_registry({"url": server.url}, str(cache)).schema(made)


def test_many_threads_ask_for_a_schema_once(registry):
    client = open_registry({"url": registry.url}, None)
    made = client.register("threads", "AVRO", LONG)
    asked = []
    get = client._http.get
    client._http.get = lambda path: (asked.append(path), get(path))[1]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: client.schema(made), range(200)))
    assert {one.id for one in found} == {made}
    assert len(asked) == 1


def test_names_and_urls(registry):
    opener = registries({"shop": {"url": registry.url}}, None)
    assert opener("shop") is opener("shop")
    assert opener(registry.url).url == registry.url
    assert opener("default").url == "http://127.0.0.1:8081"
    with pytest.raises(ConfigError, match="nearest='shop'"):
        opener("shp")
    for url in ("ftp://x", "http://", "http://x/?a=b", "file:///etc/passwd", "http://x/#a"):
        with pytest.raises(ConfigError, match="not the URL"):
            opener(url)


class Liar(http.server.BaseHTTPRequestHandler):
    """Answers as `answer` says, and notes what was asked."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        status, headers, body = self.server.answer(len(self.server.asked))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def liar():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar)
    server.asked, server.answer = [], lambda _: (200, {}, b"{}")
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def asking(liar, answer, **settings):
    liar.answer = answer
    return open_registry({"url": f"http://127.0.0.1:{liar.server_port}", **settings}, None, Clock())


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"\xff", b'{"schema": 3}', b'{"schema": ""}', b'{"schema": "x", "schemaType": "XML"}',
     b'{"schema": "x", "references": [1]}', b'{"schema": "x", "references": [{"name": 1}]}', b"[" * 100_000,
     b'{"schema": "\\ud800"}'],
)  # fmt: skip
def test_an_answer_that_is_no_schema_is_refused(liar, body):
    with pytest.raises(ConfigError, match="regist"):
        asking(liar, lambda _: (200, {}, body)).schema(1)


def test_an_endless_answer_is_cut(liar):
    body = json.dumps({"schema": "x" * (17 << 20)}).encode()
    with pytest.raises(ConfigError, match="too large"):
        asking(liar, lambda _: (200, {}, body)).schema(1)


def test_redirects_are_not_followed(liar):
    client = asking(liar, lambda _: (302, {"Location": "http://169.254.169.254/"}, b""), user="u", password="p")
    with pytest.raises(ConfigError, match="no schema registry answers"):
        client.schema(1)
    assert len(liar.asked) == 1
    assert liar.asked[0][1].startswith("Basic ")


def test_a_registry_that_stumbles_is_asked_again(liar):
    good = json.dumps({"schema": LONG}).encode()
    client = asking(liar, lambda n: (503, {"Retry-After": "0"}, b"") if n < 3 else (200, {}, good))
    assert client.schema(1).text == LONG
    assert len(liar.asked) == 3


def test_a_registry_that_is_down_is_left_alone_for_a_while(liar):
    client = asking(liar, lambda _: (500, {}, b""))
    for _ in range(4):
        with pytest.raises(TransientError):
            client.schema(1)
    assert len(liar.asked) == 3


def test_credentials_in_the_url_are_used_and_not_shown(liar):
    liar.answer = lambda _: (403, {}, b"{}")
    client = open_registry({"url": f"http://ann:s%40cret@127.0.0.1:{liar.server_port}"}, None)
    with pytest.raises(AccessError) as refused:
        client.schema(1)
    assert "cret" not in str(refused.value)
    assert liar.asked[0][1] == "Basic YW5uOnNAY3JldA=="


def test_another_server_is_not_taken_for_a_registry(liar):
    with pytest.raises(ConfigError, match="no schema registry answers"):
        asking(liar, lambda _: (404, {}, b"<html>")).schema(1)


def test_missing_tls_files_are_named():
    with pytest.raises(ConfigError, match=r"nosuch\.pem"):
        open_registry({"url": "https://127.0.0.1:1", "ca": "nosuch.pem"}, None)
