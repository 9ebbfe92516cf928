"""Protobuf schemas: what we read is what protoc reads; what changes the wire is found."""

import base64
import subprocess
import sys

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestream.apis.registry.languages import LANGUAGES
from lodestream.apis.registry.languages.parsed import InvalidSchemaError
from lodestream.apis.registry.languages.proto_print import print_proto

PROTOBUF = LANGUAGES["PROTOBUF"]
FILES = {
    "order": """syntax = "proto3";
        package shop.v1;  // a comment
        import "google/protobuf/timestamp.proto";
        import public "money.proto";
        option java_package = "x.y";
        option optimize_for = CODE_SIZE;
        /* another */
        message Order {
          reserved 4, 10 to 12, 100 to max; reserved "old", "older";
          int64 id = 1 [json_name = "ID", deprecated = true];
          optional string note = 2;
          repeated Line lines = 3;
          map<string, Line> lines_by_name = 5;
          oneof pay { string card = 6; bytes cash = 7; .shop.Money money = 13; }
          google.protobuf.Timestamp at = 8;
          enum Kind { option allow_alias = true; UNKNOWN = 0; A = 1; B = 1 [deprecated = true]; C = -5; }
          Kind kind = 9;
          message Line { double price = 1; Order.Kind kind = 2; Line inner = 3; }
        }
        service Shop {
          rpc Buy (Order) returns (stream Order) { option deprecated = true; }
          rpc Give (stream .shop.v1.Order) returns (shop.Money);
        }""",
    "old": r"""syntax = "proto2";
        import "google/protobuf/descriptor.proto";
        message M {
          required int32 a = 1 [default = 0x1F]; optional bytes b = 2 [default = "a\001\"'\xff\377é"];
          optional string s = 3 [default = "x\ny" "z"]; extensions 100 to 200, 300;
          repeated group G = 4 { optional int32 z = 1; enum Inner { I = 0; } }
          repeated int32 packed = 5 [packed = true]; optional double d = 6 [default = -inf];
          optional E e = 7 [default = Y, lazy = false]; enum E { X = 0; Y = 2; reserved 5 to 9, -3; reserved "W"; }
          optional bool yes = 8 [default = true]; optional float f = 9 [default = 1.5e3];
          oneof one { option (once) = true; int32 message = 10; string optional = 11; }
        }
        extend M { optional string more = 101; repeated M again = 102; }
        extend google.protobuf.FieldOptions { optional string mine = 50001; }
        extend google.protobuf.OneofOptions { optional bool once = 50002; }
        message N { optional string q = 1 [ctype = CORD]; extend M { optional N here = 103; } }
        """,
    "edition": """edition = "2023"; package p;
        option features.field_presence = IMPLICIT;
        message A { int32 x = 1 [features.field_presence = EXPLICIT]; repeated int32 y = 2; }""",
}
MONEY = 'syntax = "proto3"; package shop; message Money { int64 units = 1; }'


def compiled(folder, name, text):
    """What protoc makes of a file."""
    (folder / "money.proto").write_text(MONEY)
    (folder / f"{name}.proto").write_text(text)
    out = folder / f"{name}.set"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"--descriptor_set_out={out}", f"{name}.proto"]
    subprocess.run(command, check=True, cwd=folder)
    return FileDescriptorSet.FromString(out.read_bytes()).file[0]


@pytest.mark.parametrize("name", FILES)
def test_a_text_means_what_protoc_says(name, tmp_path):
    references = [("money.proto", MONEY)]
    ours = PROTOBUF.parse(FILES[name], references)
    theirs = compiled(tmp_path, name, FILES[name])
    mine = PROTOBUF.parse(FILES[name], references).model.file
    for one in (mine, theirs):
        one.name = name
    for message in mine.message_type:  # what protoc keeps in unknown form, we keep as written
        for oneof in message.oneof_decl:
            del oneof.options.uninterpreted_option[:]
    assert print_proto(mine).replace("{\n    option (once) = true;", "{") == print_proto(theirs)
    again = PROTOBUF.parse(ours.identity, references)
    assert again.identity == ours.identity
    assert PROTOBUF.parse(PROTOBUF.form(ours, "serialized"), references).identity == ours.identity


def test_layout_does_not_matter_and_the_text_stays_as_it_was():
    spaced = 'syntax = "proto3";\n\n// why\nmessage  A {\n int32 x=1; }'
    one, two = PROTOBUF.parse(spaced), PROTOBUF.parse('syntax = "proto3"; message A { int32 x = 1; }')
    assert one.identity == two.identity
    assert one.text == spaced


@pytest.mark.parametrize(
    "text",
    [
        "", "message", "message A {", 'syntax = "proto9";', 'syntax = "proto3"; message A { B b = 1; }', "!!",
        'syntax = "proto3"; message A { int32 x = 1; int32 y = 1; }', "message A { optional int32 x = 0; }", "AAAA",
        'import "other.proto";', "message A {} message A {}", 'syntax = "proto3"; enum E { A = 1; }',
        "message A { optional int32 x = 99999999999999999999; }", "message A { optional int32 x = 1 [nosuch = 3]; }",
        "message A {" * 40, 'message A { optional string x = 1 [default = "\\xff"]; }', "/* open", '"\\ud800"',
    ],
)  # fmt: skip
def test_what_is_no_schema_is_refused(text):
    if text:
        with pytest.raises(InvalidSchemaError):
            PROTOBUF.parse(text)


WORDS = [*FILES["old"].split(), *"{};=[](),.-<>", "1", '"x"', "message", "oneof", "map"]


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60) | st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join))
def test_any_text_is_a_schema_or_refused(text):
    try:
        found = PROTOBUF.parse(text)
    except InvalidSchemaError:
        return
    assert PROTOBUF.parse(found.identity).identity == found.identity


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["order", "old", "edition"]),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=4),
)
def test_any_descriptor_is_a_schema_or_refused(name, changes):
    references = [("money.proto", MONEY)]
    data = bytearray(base64.b64decode(PROTOBUF.form(PROTOBUF.parse(FILES[name], references), "serialized")))
    for at, byte in changes:
        data[at % len(data)] = byte
    try:
        found = PROTOBUF.parse(base64.b64encode(bytes(data)).decode(), references)
    except InvalidSchemaError:
        return
    again = PROTOBUF.parse(found.text, references)
    assert PROTOBUF.differences(again, found) == []
    assert PROTOBUF.parse(PROTOBUF.form(found, "serialized"), references).identity == found.identity


def message(body, *, syntax="proto3", package=""):
    return f'syntax = "{syntax}"; {package} message A {{ {body} }}'


@pytest.mark.parametrize(
    ("reader", "writer", "wanted"),
    [
        ("int32 x = 1; string y = 2;", "int32 x = 1;", []),
        ("int32 x = 1;", "int32 x = 1; string y = 2;", []),
        ("int64 renamed = 1;", "int32 x = 1;", []),
        ("bool x = 1;", "uint64 x = 1;", []),
        ("sint32 x = 1;", "int32 x = 1;", ["FIELD_SCALAR_KIND_CHANGED"]),
        ("fixed32 x = 1;", "sfixed32 x = 1;", []),
        ("bytes x = 1;", "string x = 1;", []),
        ("float x = 1;", "double x = 1;", ["FIELD_SCALAR_KIND_CHANGED"]),
        ("A x = 1;", "string x = 1;", ["FIELD_KIND_CHANGED"]),
        ("repeated int32 x = 1;", "int32 x = 1;", ["FIELD_NUMERIC_LABEL_CHANGED"]),
        ("repeated string x = 1;", "string x = 1;", []),
        ("message B {} message C {} C x = 1;", "message B {} message C {} B x = 1;", ["FIELD_NAMED_TYPE_CHANGED"]),
        ("", "message B {}", ["MESSAGE_REMOVED"]),
        ("message B {}", "", []),
        ("message B { string y = 1; } B x = 1;", "message B { int32 y = 1; } B x = 1;", ["FIELD_SCALAR_KIND_CHANGED"]),
        ("enum E { X = 0; } E x = 1;", "enum E { X = 0; Y = 1; } E x = 1;", []),
        ("int32 x = 1;", "enum E { X = 0; } E x = 1;", []),
        ("map<string, int32> x = 1;", "map<string, string> x = 1;", ["FIELD_SCALAR_KIND_CHANGED"]),
        ("oneof o { int32 x = 1; }", "int32 x = 1;", []),
        ("oneof o { int32 x = 1; int32 y = 2; }", "int32 x = 1; int32 y = 2;", ["MULTIPLE_FIELDS_MOVED_TO_ONEOF"]),
        ("oneof o { int32 x = 1; int32 y = 2; }", "oneof o { int32 x = 1; } int32 y = 2;",
         ["MULTIPLE_FIELDS_MOVED_TO_ONEOF"]),
        ("oneof p { int32 x = 1; int32 y = 2; int32 z = 3; }", "oneof o { int32 x = 1; int32 y = 2; }", []),
        ("oneof o { int32 x = 1; }", "oneof o { int32 x = 1; int32 y = 2; }", ["ONEOF_FIELD_REMOVED"]),
        ("int32 x = 1;", "optional int32 x = 1; optional int32 y = 2;", []),
    ],
)  # fmt: skip
def test_known_changes(reader, writer, wanted):
    found = PROTOBUF.differences(PROTOBUF.parse(message(reader)), PROTOBUF.parse(message(writer, package="package p;")))
    assert sorted({one.rule for one in found}) == wanted


@pytest.mark.parametrize(
    ("reader", "writer", "wanted"),
    [
        ("required int32 x = 1;", "", ["REQUIRED_FIELD_ADDED"]),
        ("", "required int32 x = 1;", ["REQUIRED_FIELD_REMOVED"]),
        ("required int32 x = 1;", "optional int32 x = 1;", ["REQUIRED_FIELD_ADDED"]),
        ("optional int32 x = 1;", "required int32 x = 1;", []),
    ],
)
def test_required_fields(reader, writer, wanted):
    told = [PROTOBUF.parse(message(one, syntax="proto2")) for one in (reader, writer)]
    assert [one.rule for one in PROTOBUF.differences(*told)] == wanted


def test_normal_texts_do_not_depend_on_order():
    one, two = (PROTOBUF.parse(message(body)) for body in ("int32 x = 1; int32 y = 2;", "int32 y = 2; int32 x = 1;"))
    assert one.identity != two.identity
    assert PROTOBUF.normal(one) == PROTOBUF.normal(two)
