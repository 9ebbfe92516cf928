"""The official client and its serializers, unchanged, against the registry."""

import asyncio
import importlib
import json
import subprocess
import sys

import pytest
from confluent_kafka.schema_registry import AsyncSchemaRegistryClient, Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry._async.avro import AsyncAvroDeserializer, AsyncAvroSerializer
from confluent_kafka.schema_registry._async.json_schema import AsyncJSONDeserializer, AsyncJSONSerializer
from confluent_kafka.schema_registry._async.protobuf import AsyncProtobufDeserializer, AsyncProtobufSerializer
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

ORDER = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}


def grown(**field):
    return json.dumps({**ORDER, "fields": [*ORDER["fields"], field]})


@pytest.fixture(scope="module")
def client(registry):
    with SchemaRegistryClient({"url": registry.url}) as found:
        yield found


def test_avro_goes_there_and_back(client, subject):
    context = SerializationContext(subject, MessageField.VALUE)
    data = AvroSerializer(client, json.dumps(ORDER))({"id": 7}, context)
    assert data[:1] == b"\x00"
    assert AvroDeserializer(client)(data, context) == {"id": 7}
    assert client.get_subjects().count(f"{subject}-value") == 1


def test_a_reader_of_the_new_schema_reads_old_messages(client, subject):
    context = SerializationContext(subject, MessageField.VALUE)
    old = AvroSerializer(client, json.dumps(ORDER))({"id": 7}, context)
    new = grown(name="tier", type="string", default="none")
    AvroSerializer(client, new)({"id": 8, "tier": "gold"}, context)
    assert AvroDeserializer(client, new)(old, context) == {"id": 7, "tier": "none"}
    assert client.get_versions(f"{subject}-value") == [1, 2]


def test_a_schema_that_breaks_readers_is_refused(client, subject):
    client.register_schema(subject, Schema(json.dumps(ORDER), "AVRO"))
    worse = Schema(grown(name="tier", type="string"), "AVRO")
    assert client.test_compatibility(subject, worse) is False
    assert client.test_compatibility_all_versions(subject, worse) is False
    with pytest.raises(SchemaRegistryError) as refused:
        client.register_schema(subject, worse)
    assert (refused.value.http_status_code, refused.value.error_code) == (409, 409)
    assert "READER_FIELD_MISSING_DEFAULT_VALUE" in str(refused.value)
    client.set_compatibility(subject, "NONE")
    assert client.register_schema(subject, worse) > 0


def test_avro_references_reach_the_deserializer(client, subject):
    client.register_schema(f"{subject}-money", Schema('{"type":"fixed","name":"shop.Money","size":4}', "AVRO"))
    reference = SchemaReference("shop.Money", f"{subject}-money", 1)
    text = json.dumps({"type": "record", "name": "Sale", "fields": [{"name": "price", "type": "shop.Money"}]})
    sale = Schema(text, "AVRO", [reference])
    client.register_schema(f"{subject}-value", sale)
    context = SerializationContext(subject, MessageField.VALUE)
    data = AvroSerializer(client, sale)({"price": b"1234"}, context)
    assert AvroDeserializer(client)(data, context) == {"price": b"1234"}
    assert client.get_referenced_by(f"{subject}-money", 1) == [client.lookup_schema(f"{subject}-value", sale).schema_id]


def test_the_async_client_and_its_serializer_work(registry, subject):
    async def talk():
        async with AsyncSchemaRegistryClient({"url": registry.url}) as client:
            context = SerializationContext(subject, MessageField.VALUE)
            serializer = await AsyncAvroSerializer(client, json.dumps(ORDER))
            data = await serializer({"id": 9}, context)
            deserializer = await AsyncAvroDeserializer(client)
            return await deserializer(data, context)

    assert asyncio.run(talk()) == {"id": 9}


def test_every_call_of_the_client_is_answered(client, subject):
    schema = Schema(json.dumps(ORDER), "AVRO")
    made = client.register_schema_full_response(subject, schema)
    assert client.get_schema(made.schema_id).schema_str == client.get_version(subject, 1).schema.schema_str
    assert client.get_schema_by_guid(made.guid).schema_str
    assert client.get_schema_types() == ["JSON", "PROTOBUF", "AVRO"]
    assert subject in client.get_subjects_by_schema_id(made.schema_id)
    assert (subject, 1) in [(v.subject, v.version) for v in client.get_schema_versions(made.schema_id)]
    assert client.lookup_schema(subject, schema).version == 1
    assert client.get_latest_version(subject).version == 1
    assert client.set_compatibility(subject, "FULL_TRANSITIVE") == {"compatibility": "FULL_TRANSITIVE"}
    assert client.get_compatibility(subject) == "FULL_TRANSITIVE"
    assert client.get_compatibility() == "BACKWARD"
    assert client.get_config(subject).compatibility_level == "FULL_TRANSITIVE"
    client.delete_config(subject)
    assert client.update_mode(subject, "READONLY") == "READONLY"
    assert client.get_mode(subject) == "READONLY"
    assert client.get_global_mode() == "READWRITE"
    client.delete_mode(subject)
    assert client.get_contexts() == ["."]
    assert client.delete_version(subject, 1) == 1
    assert client.get_versions(subject, deleted=True) == [1]
    assert client.delete_subject(subject, permanent=True) == [1]
    with pytest.raises(SchemaRegistryError) as gone:
        client.get_version(subject, 1)
    assert gone.value.error_code == 40401


def test_metadata_and_rules_come_back(client, subject):
    from confluent_kafka.schema_registry import Metadata, MetadataProperties

    owned = Schema(json.dumps(ORDER), "AVRO", metadata=Metadata(None, MetadataProperties({"owner": "shop"}), None))
    plain = Schema(grown(name="x", type="int", default=0), "AVRO")
    first = client.register_schema(subject, owned)
    assert client.register_schema(subject, plain) != first
    assert client.get_latest_with_metadata(subject, {"owner": "shop"}).schema_id == first
    assert client.get_schema(first, subject).metadata.properties.properties == {"owner": "shop"}


PERSON = {
    "$schema": "http://json-schema.org/draft-07/schema#", "title": "Person", "type": "object",
    "properties": {"name": {"type": "string"}, "home": {"$ref": "address.json"}}, "required": ["name"],
    "additionalProperties": False,
}  # fmt: skip
ADDRESS = {"title": "Address", "type": "object", "properties": {"street": {"type": "string"}}}


def test_json_goes_there_and_back_with_references(client, subject):
    client.register_schema(f"{subject}-address", Schema(json.dumps(ADDRESS), "JSON"))
    person = Schema(json.dumps(PERSON), "JSON", [SchemaReference("address.json", f"{subject}-address", 1)])
    client.register_schema(f"{subject}-value", person)
    context = SerializationContext(subject, MessageField.VALUE)
    ann = {"name": "Ann", "home": {"street": "Long Lane"}}
    data = JSONSerializer(person, client)(ann, context)
    assert JSONDeserializer(None, schema_registry_client=client)(data, context) == ann
    with pytest.raises(Exception, match="42"):
        JSONSerializer(person, client)({"name": 42}, context)


def test_a_closed_json_schema_grows_and_does_not_shrink(client, subject):
    plain = {**PERSON, "properties": {"name": {"type": "string"}}}
    grown = {**PERSON, "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    client.register_schema(subject, Schema(json.dumps(plain), "JSON"))
    client.register_schema(subject, Schema(json.dumps(grown), "JSON"))
    changed = {**PERSON, "properties": {"name": {"type": "integer"}, "age": {"type": "integer"}}}
    with pytest.raises(SchemaRegistryError, match="TYPE_NARROWED"):
        client.register_schema(subject, Schema(json.dumps(changed), "JSON"))


MONEY_PROTO = 'syntax = "proto3"; package pay; message Money { int64 units = 1; }'
SALE_PROTO = """syntax = "proto3"; package shop; import "reg_money.proto"; import "google/protobuf/timestamp.proto";
message Other { string x = 1; }
message Sale { message Line { string what = 1; } pay.Money price = 1; google.protobuf.Timestamp at = 2; Line line = 3; }
"""


@pytest.fixture(scope="module")
def sale(tmp_path_factory):
    """A module that protoc generated."""
    folder = tmp_path_factory.mktemp("proto")
    (folder / "reg_money.proto").write_text(MONEY_PROTO)
    (folder / "reg_sale.proto").write_text(SALE_PROTO)
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--python_out=.", "reg_money.proto", "reg_sale.proto"]
    subprocess.run(command, check=True, cwd=folder)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("reg_sale_pb2")
    sys.path.remove(str(folder))


@pytest.mark.parametrize("nested", [False, True])
def test_protobuf_goes_there_and_back_with_references(client, subject, sale, nested):
    kind = sale.Sale.Line if nested else sale.Sale
    message = kind(what="tea") if nested else kind(price={"units": 5}, at={"seconds": 9}, line={"what": "tea"})
    context = SerializationContext(subject, MessageField.VALUE)
    data = ProtobufSerializer(kind, client, {"use.deprecated.format": False})(message, context)
    settings = {"use.deprecated.format": False}
    assert ProtobufDeserializer(kind, settings, client)(data, context) == message
    stored = client.get_latest_version(f"{subject}-value").schema
    assert "message Sale" in stored.schema_str
    assert [one.name for one in stored.references] == ["reg_money.proto", "google/protobuf/timestamp.proto"][:1]


def test_protobuf_text_and_descriptor_have_one_id(client, subject, sale):
    context = SerializationContext(subject, MessageField.VALUE)
    ProtobufSerializer(sale.Sale, client, {"use.deprecated.format": False})(sale.Sale(), context)
    registered = client.get_latest_version(f"{subject}-value")
    text = Schema(SALE_PROTO, "PROTOBUF", registered.schema.references)
    assert client.register_schema(f"{subject}-value", text) == registered.schema_id
    worse = Schema(SALE_PROTO.replace("string x = 1", "int32 x = 1"), "PROTOBUF", registered.schema.references)
    with pytest.raises(SchemaRegistryError, match="FIELD_SCALAR_KIND_CHANGED"):
        client.register_schema(f"{subject}-value", worse)


def test_the_async_json_and_protobuf_serializers_work(registry, subject, sale):
    context = SerializationContext(subject, MessageField.VALUE)
    plain = json.dumps({**PERSON, "properties": {"name": {"type": "string"}}})

    async def talk():
        async with AsyncSchemaRegistryClient({"url": registry.url}) as client:
            writer = await AsyncJSONSerializer(plain, client)
            reader = await AsyncJSONDeserializer(None, schema_registry_client=client)
            person = await reader(await writer({"name": "Ann"}, context), context)
            other = SerializationContext(f"{subject}-sale", MessageField.VALUE)
            settings = {"use.deprecated.format": False}
            wrote = await AsyncProtobufSerializer(sale.Sale, client, settings)
            reads = await AsyncProtobufDeserializer(sale.Sale, settings, client)
            return person, await reads(await wrote(sale.Sale(price={"units": 3}), other), other)

    assert asyncio.run(talk()) == ({"name": "Ann"}, sale.Sale(price={"units": 3}))
