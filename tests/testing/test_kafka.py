"""The broker for tests: its doors, and that it comes back with what it had."""

from __future__ import annotations

import logging

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

QUIET = logging.getLogger("test.kafka")
QUIET.setLevel(logging.CRITICAL)


def topics(settings: dict[str, object]) -> set[str]:
    return set(AdminClient({"socket.timeout.ms": 3000, **settings}, logger=QUIET).list_topics(timeout=4).topics)


def test_a_client_certificate_of_the_authority_opens_the_tls_door(kafka, authority):
    mine, late = kafka.client("mine"), kafka.client("late", expired=True)
    tls = {
        "bootstrap.servers": kafka.tls,
        "security.protocol": "ssl",
        "ssl.ca.location": str(authority.certificate),
        "ssl.certificate.location": str(mine.certificate),
        "ssl.key.location": str(mine.key),
    }
    assert isinstance(topics(tls), set)
    expired = {"ssl.certificate.location": str(late.certificate), "ssl.key.location": str(late.key)}
    with pytest.raises(KafkaException):
        topics(tls | expired)


def test_what_was_written_outlives_a_kill(own_kafka):
    admin = AdminClient({"bootstrap.servers": own_kafka.plain}, logger=QUIET)
    admin.create_topics([NewTopic("kept", 1)])["kept"].result()
    producer = Producer({"bootstrap.servers": own_kafka.plain}, logger=QUIET)
    producer.produce("kept", b"1")
    assert producer.flush(10) == 0
    own_kafka.restart(kill=True)
    assert "kept" in topics({"bootstrap.servers": own_kafka.plain})
