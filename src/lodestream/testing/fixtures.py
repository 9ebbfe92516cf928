"""Pytest fixtures for tests against a real broker; installed as a plugin of pytest."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest

from lodestream.testing import maven
from lodestream.testing.kafka import KafkaBroker
from lodestream.testing.pki import Authority

# One broker for all tests of a process: topics tell them apart. A test that stops or kills it makes one of its own.


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority of the test session."""
    from lodestream.app import now_us

    return Authority(tmp_path_factory.mktemp("authority"), dt.datetime.fromtimestamp(now_us() / 1e6, dt.UTC))


@pytest.fixture(scope="session")
def needs_java() -> None:
    """Skips, with the reason, where Java programs cannot be started."""
    if reason := maven.missing():
        pytest.skip(f"needs Java and Maven: {reason}")


@pytest.fixture(scope="session")
def kafka(needs_java: None, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A running Apache Kafka broker."""
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"), authority).start()
    yield broker
    broker.stop()


@pytest.fixture
def own_kafka(
    needs_java: None, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KafkaBroker]:
    """A broker for one test, which may stop, kill and restart it."""
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"), authority).start()
    yield broker
    broker.stop()
