"""Bodies that are huge, slow, half sent, bombs or nonsense: a clear answer, and nothing of them is kept."""

import gzip
import io
import resource
import socket

import fastavro
import pyarrow as pa
import pytest

from tests.apis.conftest import TOKEN, serving

SMALL = "ingest: {body_bytes_max: 65536, records_max: 100, body_timeout: 500 ms}"
ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture
def served(project):
    with serving(project(SMALL)) as running:
        yield running


def problem(answer, status, words):
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert told["status"] == status
    assert words in told["detail"], told
    return told


def raw(port, text, then=b"", *, half_close=False):
    """What the server answers to bytes on a connection of our own."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(text + then)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").read(1 << 16) if half_close else connection.recv(1 << 16)


def request(length, extra=""):
    return (
        f"POST /ingest/orders HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Type: application/json\r\n{extra}" + (f"Content-Length: {length}\r\n" if length else "") + "\r\n"
    ).encode()


def test_huge_bodies(served):
    problem(served.post(b" " * 70_000), 413, "at most 65536 bytes")

    def stream():
        for _ in range(100):
            yield b'{"id":1}' + b" " * 1000

    answer = served.client.post("/ingest/orders", content=stream(), headers={"content-type": "application/json"})
    problem(answer, 413, "at most 65536 bytes")
    problem(served.post("[" + ",".join(["{}"] * 101) + "]"), 413, "at most 100 records")
    problem(served.post("{}\n" * 101, "application/x-ndjson"), 413, "at most 100 records")
    assert served.rows() == []


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_compression_bombs_stop_at_the_bound(served, encoding):
    zeros = b" " * (64 << 20)
    body = gzip.compress(zeros) if encoding == "gzip" else pa.compress(zeros, "zstd", asbytes=True)
    assert len(body) < 65536
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(20):
        problem(served.post(body, content_encoding=encoding), 413, "once it is decompressed")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_slow_and_half_sent_bodies(served):
    assert b" 408 " in raw(served.port, request(100), b'{"id":')
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(request(100) + b'{"id":1}')
    answer = raw(served.port, request(100), b'{"id":1}', half_close=True)
    assert b" 200 " not in answer
    assert raw(served.port, request(0, "Transfer-Encoding: chunked\r\n"), b'8\r\n{"id":1}\r\n').startswith(
        b"HTTP/1.1 408"
    )
    assert served.post('{"id":7}').status_code == 200
    assert [row["id"] for row in served.rows()] == [7]


def test_content_types_and_streams_that_are_not_there(served):
    problem(served.post("{}", "text/plain"), 415, "application/json")
    problem(served.post("{}", ""), 415, "application/json")
    assert problem(served.post("{}", stream="order"), 404, "no such stream")["nearest"] == "orders"
    problem(served.post("{}", stream="..%2f..%2fetc"), 405, "nothing here")
    problem(served.post("{}", stream="ORDERS'--"), 404, "no such stream")


@pytest.mark.parametrize(
    "body",
    [b"[", b"[}", b"[{},]", b"[{}", b"[{}] x", b"[{} {}]", b"[\xff]", b"[" * 60_000, b'[{"id":1},', b"[nul]"],
)
def test_arrays_that_are_none(served, body):
    told = problem(served.post(body), 400, "")
    assert "JSON array" in told["detail"] or "UTF-8" in told["detail"] or "deep" in told["detail"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "parse:json"), (b"17", "parse:object"), (b'"x"', "parse:object"), (b"{\xff}", "parse:utf8"),
        (b'{"id":' + b"[" * 30_000 + b"]" * 30_000 + b"}", "parse:depth"), (b'{"id":1,"id":2}', "parse:duplicate_key"),
        (b"[1,{}]", "parse:object"), (b'{"id":99999999999999999999}', "parse:id:range"),
    ],
)  # fmt: skip
def test_records_that_are_none(served, body, reason):
    assert problem(served.post(body), 422, "bad")["errors"][0]["reasons"] == [reason]


def stream_of(batch, **options):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def batch(**columns):
    return pa.RecordBatch.from_pydict(columns)


def test_arrow_bodies_that_claim_more_than_they_are(served):
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 100, pa.int8()), pa.array(["x" * 20_000]))
    problem(served.post(stream_of(batch(name=long)), ARROW), 413, "bytes of values")
    zeros = batch(name=pa.array([" " * 1_000_000]))
    problem(served.post(stream_of(zeros, compression="zstd"), ARROW), 415, "compressed")
    problem(served.post(stream_of(batch(x=pa.nulls(1000))), ARROW), 413, "at most 100 records")
    problem(served.post(stream_of(batch(name=pa.array(["x"], pa.string_view()))), ARROW), 415, "not taken")
    problem(served.post(stream_of(batch(x=pa.array([[None] * 9]))), ARROW), 415, "not taken")
    good = stream_of(batch(id=pa.array([1])))
    for cut in range(0, len(good) - 9, 7):
        assert served.post(good[:cut], ARROW).status_code in (200, 400), cut
    for at in range(0, len(good), 5):
        damaged = bytearray(good)
        damaged[at] ^= 0xFF
        assert served.post(bytes(damaged), ARROW).status_code in (200, 400, 413, 415, 422), at


def ocf(schema, rows, codec="null"):
    file = io.BytesIO()
    fastavro.writer(file, schema, rows, codec=codec)
    return file.getvalue()


def test_avro_bodies_that_claim_more_than_they_are(served):
    kind = "application/avro"
    text = {"type": "record", "name": "r", "fields": [{"name": "name", "type": "string"}]}
    problem(served.post(ocf(text, [{"name": "x" * 5_000_000}], "deflate"), kind), 413, "decompressed")
    nothing = {"type": "record", "name": "r", "fields": []}
    problem(served.post(ocf(nothing, [{}] * 200), kind), 413, "at most 100 records")
    bomb = {"type": "record", "name": "r", "fields": [{"name": "x", "type": {"type": "array", "items": "null"}}]}
    body = ocf(bomb, [{"x": []}])
    sync = body[-16:]
    claimed = fastavro_long(1_000_000_000) + b"\x00"
    block = fastavro_long(1) + fastavro_long(len(claimed)) + claimed + sync
    problem(served.post(body[: body.index(sync) + 16] + block, kind), 415, "take no bytes")
    good = ocf(text, [{"name": "a"}])
    for cut in range(0, len(good), 5):
        assert served.post(good[:cut], kind).status_code in (200, 400), cut
    for at in range(0, len(good), 3):
        damaged = bytearray(good)
        damaged[at] ^= 0xFF
        assert served.post(bytes(damaged), kind).status_code in (200, 400, 413, 415, 422), at


def fastavro_long(value):
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", value)
    return out.getvalue()


def test_bodies_at_once_are_bounded(project):
    with serving(project("ingest: {bodies_bytes_max: 2000, body_timeout: 5 s}")) as served:
        with socket.create_connection(("127.0.0.1", served.port), timeout=30) as slow:
            slow.sendall(request(1900) + b" " * 1800)
            answer = None
            for _ in range(200):
                answer = served.post(" " * 1000 + '{"id":1}')
                if answer.status_code == 429:
                    break
            told = problem(answer, 429, "too much at once")
            assert told["title"] == "too many requests"
            assert answer.headers["retry-after"] == "1"
            slow.sendall(b" " * 92 + b'{"id":2}')
            assert b" 200 " in slow.recv(1 << 16)
        assert served.post(" " * 1000 + '{"id":3}').status_code == 200


def test_headers_that_never_end_are_cut_off(served):
    """The server reads a bounded number of bytes of headers."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(b"POST /ingest/orders HTTP/1.1\r\nHost: localhost\r\n")
        try:
            for _ in range(2000):
                connection.sendall(b"X-Filler: " + b"x" * 1000 + b"\r\n")
            answer = connection.recv(1 << 16)
        except (ConnectionError, BrokenPipeError):
            answer = b""
        assert not answer or answer.startswith(b"HTTP/1.1 4")
