"""Calls of the Kafka client that may never come back."""

from __future__ import annotations

import threading

import confluent_kafka as ck
import pytest

from lodestream.drivers import kafka_writer
from lodestream.drivers.kafka_writer import OverrunError, within


def test_a_call_that_hangs_is_left_behind(monkeypatch):
    monkeypatch.setattr(kafka_writer, "_OVERRUN_S", 0.0)
    gate = threading.Event()
    with pytest.raises(OverrunError, match="does not come back"):
        within(0.05, gate.wait)
    gate.set()


def test_a_call_that_comes_back_gives_what_it_gives():
    assert within(5.0, divmod, 7, 2) == (3, 1)

    def refuse() -> None:
        raise ck.KafkaException(ck.KafkaError(ck.KafkaError._STATE))

    with pytest.raises(ck.KafkaException):
        within(5.0, refuse)
