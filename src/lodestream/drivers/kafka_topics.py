"""Ids of Kafka topics: a topic that was deleted and made again has another one under the same name."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient

from lodestream.drivers.kafka_connection import made
from lodestream.errors import TransientError

_NONE = "AAAAAAAAAAAAAAAAAAAAAA"
_ANSWER_S = 10.0
_NO_IDS = (ck.KafkaError._UNSUPPORTED_FEATURE, ck.KafkaError.TOPIC_AUTHORIZATION_FAILED)


class TopicIds:
    """Asks a cluster for the ids of topics.

    Args:
        settings: librdkafka properties of the connection.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._admin = made(AdminClient, {**settings, "log_level": 4})

    def of(self, topics: Sequence[str]) -> dict[str, str | None]:
        """Id by topic: None where the cluster tells none; topics that are not there are left out.

        Raises:
            TransientError: no broker answers.
        """
        found: dict[str, str | None] = {}
        if not topics:
            return found
        for name, future in self._admin.describe_topics(
            ck.TopicCollection(list(topics)), request_timeout=_ANSWER_S
        ).items():
            try:
                topic_id = str(future.result(_ANSWER_S + 1).topic_id)
            except ck.KafkaException as error:
                reason = error.args[0]
                if reason.code() in (reason.UNKNOWN_TOPIC_OR_PART, reason._UNKNOWN_TOPIC):
                    continue
                if reason.code() not in _NO_IDS:
                    raise TransientError(
                        "no Kafka broker answers about a topic", topic=name, cause=reason.str()
                    ) from error
                topic_id = _NONE
            except TimeoutError as error:
                raise TransientError("no Kafka broker answers about a topic", topic=name) from error
            found[name] = None if topic_id == _NONE else topic_id
        return found

    def close(self) -> None:
        """Nothing stays to be sent; the client goes with its last reference."""
        with contextlib.suppress(AttributeError):
            del self._admin
