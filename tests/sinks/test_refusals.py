"""A cluster that does not allow what a sink needs: the error says what to grant, and nothing is lost."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from lodestream.errors import AccessError, ConfigError
from lodestream.testing.kafka import PASSWORD, USER, KafkaBroker
from tests.sinks.reading import messages
from tests.sinks.test_kafka import at, change, sink
from tests.sources.kafka_topics import Topic


@pytest.fixture(scope="module")
def guarded(needs_java, authority, tmp_path_factory):
    """A broker that lets nobody but the plain door do anything, unless a rule says so."""
    rules = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    broker = KafkaBroker(tmp_path_factory.mktemp("guarded"), authority, properties=rules).start()
    yield broker
    broker.stop()


def grant(broker, kind, name, operation):
    rule = AclBinding(
        kind, name, ResourcePatternType.LITERAL, f"User:{USER}", "*", operation, AclPermissionType.ALLOW
    )  # fmt: skip
    admin = AdminClient({"bootstrap.servers": broker.plain})
    (done,) = admin.create_acls([rule]).values()
    done.result(10)


def open_and_publish(made):
    made.open()
    made.publish(change([{"a": 1}]), at(1))


def test_each_missing_right_is_named(guarded):
    topic = Topic(guarded, partitions=1)
    login = {
        "servers": guarded.sasl,
        "user": USER,
        "password": PASSWORD,
        "tls": {"ca": str(guarded.authority.certificate)},
    }
    needed = [
        ("no such topic|WRITE and DESCRIBE on the topic", ResourceType.TOPIC, topic.name, AclOperation.DESCRIBE),
        ("on the transactional id", ResourceType.TRANSACTIONAL_ID, f"sink-{topic.name}", AclOperation.WRITE),
        ("READ on the consumer group", ResourceType.GROUP, f"sink-{topic.name}", AclOperation.READ),
        ("READ|WRITE and DESCRIBE on the topic", ResourceType.TOPIC, topic.name, AclOperation.READ),
        ("WRITE and DESCRIBE on the topic", ResourceType.TOPIC, topic.name, AclOperation.WRITE),
    ]
    for wanted, kind, name, operation in needed:
        made = sink(topic, **login)
        with pytest.raises((AccessError, ConfigError), match=wanted):
            open_and_publish(made)
        made.close()
        grant(guarded, kind, name, operation)
    made = sink(topic, **login)
    assert made.open() is None
    made.publish(change([{"a": 1}]), at(1))
    made.close()
    assert [one.value for one in messages(guarded.plain, topic.name)] == [b'{"a":1}']


@pytest.mark.parametrize("wrong", [{"client": {"acks": 1}}, {"tls": {"ca": "nowhere.pem"}}], ids=["acks", "ca"])
def test_settings_that_the_client_refuses_are_told(guarded, wrong):
    made = sink(Topic(guarded), **wrong)
    with pytest.raises(ConfigError, match="does not take its settings"):
        made.open()
    made.close()


def test_a_wrong_password_and_an_unknown_authority_are_told(guarded, tmp_path):
    topic = Topic(guarded, partitions=1)
    ca = str(guarded.authority.certificate)
    for tls in ({"ca": ca}, {}):
        made = sink(topic, servers=guarded.sasl, user=USER, password="wrong", tls=tls)
        with pytest.raises(ConfigError, match="does not let us in"):
            made.open()
        made.close()
