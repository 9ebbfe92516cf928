"""Avro files: fastavro's are read in every codec, however they are cut; what is broken is rejected, and only that."""

import io
import json
import random
import zlib
from itertools import pairwise

import fastavro
import pyarrow as pa
import pytest

from lodestream.errors import ConfigError
from lodestream.formats._avro_resolve import zigzag
from lodestream.formats.avro import AvroFormat, AvroSettings
from lodestream.model.types import Column, Schema, parse_type
from lodestream.operations.positions import avro_rows
from tests.formats.avro_cases import columns_of, reading

SCHEMA = {
    "type": "record", "name": "R",
    "fields": [
        {"name": "id", "type": "long"}, {"name": "name", "type": ["null", "string"]},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
    ],
}  # fmt: skip
ROWS = [{"id": i, "name": None if i % 3 else f"n{i}", "tags": ["t"] * (i % 4)} for i in range(1000)]
SYNC = bytes(range(16))


def file_of(path, rows=ROWS, codec="null", interval=400, schema=SCHEMA):
    with open(path, "wb") as file:
        fastavro.writer(file, schema, rows, codec=codec, sync_interval=interval, sync_marker=SYNC)
    return str(path)


def made(drift="quarantine", columns=None, **settings):
    return AvroFormat(AvroSettings(**settings), reading(columns or columns_of(SCHEMA), drift=drift, keep_raw=True))


def outcome(pieces):
    found, reasons = {}, {}
    for piece in pieces:
        piece.rows.validate(full=True)
        for row in piece.rows.to_pylist():
            assert row.pop("_raw") is None
            position = row.pop("_position")
            found[position] = {k: v for k, v in row.items() if k != "_source"}
        reasons |= {r["_position"]: r["_reasons"] for r in piece.rejects.to_pylist()}
    assert not set(found) & set(reasons)
    return found | reasons


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
def test_files_of_fastavro_are_read(tmp_path, codec):
    path = file_of(tmp_path / "f.avro", codec=codec)
    form = made()
    parts = form.parts(path)
    assert sum(part.rows for part in parts) == 1000
    assert len(parts) > 20
    assert outcome(form.read(path, "f", 0, 1000)) == dict(enumerate(ROWS))
    assert form.infer_file(path) == columns_of(SCHEMA)


@pytest.mark.parametrize("codec", ["snappy", "zstandard"])
def test_codecs_that_arrow_has_are_read(tmp_path, codec):
    file_of(tmp_path / "plain.avro")
    data = (tmp_path / "plain.avro").read_bytes()
    head, *blocks = data.split(SYNC)
    out = head.replace(zigzag(4) + b"null", zigzag(len(codec)) + codec.encode()) + SYNC
    for block in blocks[:-1]:
        buffer = io.BytesIO(block)
        rows, _ = (fastavro.schemaless_reader(buffer, "long", None) for _ in range(2))
        body = buffer.read()
        packed = pa.Codec("zstd" if codec == "zstandard" else codec).compress(body, asbytes=True)
        packed += zlib.crc32(body).to_bytes(4, "big") if codec == "snappy" else b""
        out += zigzag(rows) + zigzag(len(packed)) + packed + SYNC
    path = tmp_path / "packed.avro"
    path.write_bytes(out)
    assert outcome(made().read(str(path), "f", 0, 1000)) == dict(enumerate(ROWS))
    broken = bytearray(out)
    broken[len(out) - 40] ^= 0x55
    path.write_bytes(bytes(broken))
    got = outcome(made().read(str(path), "f", 0, 1000))
    assert len(got) == 1000
    if codec == "snappy":
        assert got[999] == ["parse:file"]
        assert got[0] == ROWS[0]


def test_any_cut_gives_the_same_rows(tmp_path):
    path = file_of(tmp_path / "f.avro", codec="deflate")
    rng = random.Random(5)
    for _ in range(10):
        cuts = sorted({0, 1000, *(rng.randrange(1000) for _ in range(5))})
        pieces = [piece for low, high in pairwise(cuts) for piece in made().read(path, "f", low, high)]
        assert outcome(pieces) == dict(enumerate(ROWS))


def test_one_block_and_no_rows_are_read(tmp_path):
    path = file_of(tmp_path / "one.avro", interval=1 << 20)
    assert len(made().parts(path)) == 1
    assert outcome(made().read(path, "f", 3, 900)) == {i: ROWS[i] for i in range(3, 900)}
    path = file_of(tmp_path / "none.avro", rows=[])
    assert list(made().parts(path)) == []
    assert outcome(made().read(path, "f", 0, 0)) == {}


@pytest.mark.parametrize("data", [b"", b"PAR1", b"Obj\x01", b"Obj\x01\x00" + SYNC[1:], b"Obj\x01" + zigzag(2**40)])
def test_what_is_no_file_of_avro_is_one_reject(tmp_path, data):
    path = tmp_path / "f.avro"
    path.write_bytes(data)
    assert [part.rows for part in made().parts(str(path))] == [avro_rows(str(path))] == [1]
    assert outcome(made().read(str(path), "f", 0, 1)) == {0: ["parse:file"]}
    with pytest.raises(ConfigError, match="not a readable Avro file"):
        made().infer_file(str(path))


def test_a_codec_that_is_unknown_is_named(tmp_path):
    path = tmp_path / "f.avro"
    file_of(path)
    path.write_bytes(path.read_bytes().replace(b"\x08null", b"\x08lzma"))
    with pytest.raises(ConfigError, match="codec is not one of null, deflate, snappy"):
        made().infer_file(str(path))


def test_a_torn_or_damaged_file_gives_every_row_before_and_a_reject(tmp_path):
    path = tmp_path / "f.avro"
    file_of(path)
    data = path.read_bytes()
    for cut in (len(data) - 1, len(data) - 17, len(data) // 2, data.index(SYNC) + 17):
        path.write_bytes(data[:cut])
        rows = sum(part.rows for part in made().parts(str(path)))
        assert rows == avro_rows(str(path))
        got = outcome(made().read(str(path), "f", 0, rows))
        assert sorted(got) == list(range(rows))
        assert got[rows - 1] == ["parse:file"]
        assert all(got[i] == ROWS[i] for i in range(rows - 1))


def test_any_byte_flipped_is_rows_and_rejects_that_add_up(tmp_path):
    path = tmp_path / "f.avro"
    file_of(path, rows=ROWS[:60])
    data = path.read_bytes()
    rng = random.Random(3)
    for _ in range(150):
        at = rng.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
        rows = sum(part.rows for part in made().parts(str(path)))
        assert rows == avro_rows(str(path))
        got = outcome(made(drift="add").read(str(path), "f", 0, rows))
        assert sorted(got) == list(range(rows))


def block(rows, body, declared=None):
    return zigzag(rows) + zigzag(len(body) if declared is None else declared) + body + SYNC


def header(codec, schema=SCHEMA):
    text = json.dumps(schema).encode()
    return (
        b"Obj\x01\x04\x16avro.schema"
        + zigzag(len(text))
        + text
        + b"\x14avro.codec"
        + zigzag(len(codec))
        + codec
        + b"\0"
        + SYNC
    )


@pytest.mark.parametrize(
    ("codec", "blocks", "expected"),
    [
        (b"null", block(10**12, b"\2\0\0"), 1),
        (b"null", block(2, b"\2\0\0"), 2),
        (b"null", block(1, b"\2\0\0\0"), 1),
        (b"null", block(-5, b"\2\0\0"), 1),
        (b"null", block(1, b"", declared=2**62), 1),
        (b"null", block(1, b"", declared=-3), 1),
        (b"deflate", block(10**12, zlib.compress(b"\2\0\0", wbits=-15)), 1),
        (b"deflate", block(5, zlib.compress(b"\0" * (200 << 20), wbits=-15)), 5),
        (b"snappy", block(5, b"\xff\xff\xff\xff\x0f" + b"\0" * 20), 5),
        (b"deflate", block(5, b"\xff" * 20), 5),
    ],
)
def test_a_block_that_lies_costs_little_and_stands_alone(tmp_path, codec, blocks, expected):
    path = tmp_path / "f.avro"
    path.write_bytes(header(codec) + blocks)
    rows = sum(part.rows for part in made().parts(str(path)))
    assert rows == expected == avro_rows(str(path))
    assert outcome(made().read(str(path), "f", 0, rows)) == {i: ["parse:file"] for i in range(rows)}
    good = block(1, b"\x0e\0\0") if codec == b"null" else b""
    if good and b"\2\0\0" in blocks and not blocks.startswith(zigzag(-5)):
        path.write_bytes(header(codec) + good + blocks + good)
        got = outcome(made().read(str(path), "f", 0, 2 + rows))
        assert got[0] == got[1 + rows] == {"id": 7, "name": None, "tags": []}


def test_values_and_drift_follow_the_columns(tmp_path):
    path = file_of(tmp_path / "f.avro")
    small = Schema((Column("id", parse_type("tinyint")), Column("more", parse_type("string"))))
    pieces = list(made("add", small).read(path, "f", 0, 200))
    got = outcome(pieces)
    assert got[5] == {"id": 5, "more": None}
    assert got[128] == ["parse:id:range"]
    assert json.loads(pieces[-1].rejects["_raw"][0].as_py()) == {"id": 128}
    assert [c.name for c in pieces[0].found] == ["name", "tags"]
    assert outcome(made("quarantine", small).read(path, "f", 0, 2)) == {i: ["drift:name", "drift:tags"] for i in (0, 1)}
    with pytest.raises(ConfigError, match="drift is stop"):
        list(made("stop", small).read(path, "f", 0, 2))
