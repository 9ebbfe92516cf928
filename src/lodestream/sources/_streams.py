"""The made-up event streams of the generator: orders, sensors and clicks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lodestream.model.types import BIGINT, DOUBLE, INT, STRING, TIMESTAMP, Column, Schema, parse_type
from lodestream.sources._random import Ints, below, cents, choice, hexadecimal, uniform, words

_COUNTRIES = ["DE", "FR", "GB", "US", "BR", "IN", "JP", "NG", "PL", "SE", "ES", "IT", "NL", "CA", "AU", "MX"]
_PRODUCTS = ["kettle", "lamp", "chair", "desk", "mug", "rug", "clock", "shelf", "plant", "radio"]
_STATES = ["placed", "paid", "packed", "shipped"]
_ACTIONS = ["view", "view", "view", "search", "click", "cart", "purchase", "share"]

ORDERS = Schema(
    (
        Column("order_id", STRING, comment="unique per order"),
        Column("ordered_at", TIMESTAMP, comment="event time"),
        Column("customer_id", BIGINT),
        Column("country", STRING),
        Column("product", STRING),
        Column("quantity", INT),
        Column("amount", parse_type("decimal(12,2)")),
        Column("status", STRING),
    )
)
SENSORS = Schema(
    (
        Column("reading_id", STRING, comment="unique per reading"),
        Column("measured_at", TIMESTAMP, comment="event time"),
        Column("sensor_id", STRING),
        Column("temperature", DOUBLE, comment="degrees Celsius"),
        Column("humidity", DOUBLE, comment="percent"),
        Column("battery", INT, comment="percent"),
    )
)
CLICKS = Schema(
    (
        Column("event_id", STRING, comment="unique per event"),
        Column("event_time", TIMESTAMP, comment="event time"),
        Column("user_id", BIGINT),
        Column("type", STRING),
        Column("amount", DOUBLE),
        Column("country", STRING),
        Column("url", STRING),
    )
)

Make = Callable[[int, Ints, Ints], dict[str, pa.Array]]


def _times(event_us: Ints) -> pa.Array:
    return pa.array(event_us, pa.timestamp("us", tz="UTC"))


def _orders(seed: int, index: Ints, event_us: Ints) -> dict[str, pa.Array]:
    quantity = below(seed, 5, index, 5) + 1
    return {
        "order_id": hexadecimal(words(seed, 1, index), 16),
        "ordered_at": _times(event_us),
        "customer_id": pa.array(below(seed, 2, index, 50_000) + 1),
        "country": choice(seed, 3, index, _COUNTRIES),
        "product": choice(seed, 4, index, _PRODUCTS),
        "quantity": pa.array(quantity.astype(np.int32)),
        "amount": cents(quantity * (below(seed, 6, index, 20_000) + 100), 12),
        "status": choice(seed, 7, index, _STATES),
    }


def _sensors(seed: int, index: Ints, event_us: Ints) -> dict[str, pa.Array]:
    hours: npt.NDArray[np.float64] = event_us / 3_600_000_000
    daily = np.sin(hours * (2 * np.pi / 24))
    sensor = pc.binary_join_element_wise("sensor-", hexadecimal(below(seed, 2, index, 500).astype(np.uint64), 4), "")
    return {
        "reading_id": hexadecimal(words(seed, 1, index), 16),
        "measured_at": _times(event_us),
        "sensor_id": sensor,
        "temperature": pa.array(np.round(18 + 6 * daily + 4 * uniform(seed, 3, index), 2)),
        "humidity": pa.array(np.round(55 - 15 * daily + 10 * uniform(seed, 4, index), 1)),
        "battery": pa.array((below(seed, 5, index, 81) + 20).astype(np.int32)),
    }


def _clicks(seed: int, index: Ints, event_us: Ints) -> dict[str, pa.Array]:
    high, low = words(seed, 1, index), words(seed, 2, index)
    identity = pc.binary_join_element_wise(
        hexadecimal(high >> np.uint64(32), 8), hexadecimal(high >> np.uint64(16), 4), hexadecimal(high, 4),
        hexadecimal(low >> np.uint64(48), 4), hexadecimal(low, 12), "-",
    )  # fmt: skip
    page = hexadecimal(words(seed, 7, index), 16)
    return {
        "event_id": identity,
        "event_time": _times(event_us),
        "user_id": pa.array(below(seed, 3, index, 100_000)),
        "type": choice(seed, 4, index, _ACTIONS),
        "amount": pa.array(below(seed, 5, index, 50_000) / 100.0),
        "country": choice(seed, 6, index, _COUNTRIES),
        "url": pc.binary_join_element_wise("https://shop.example.com/p/", page, ""),
    }


STREAMS: dict[str, tuple[Schema, str, Make]] = {
    "orders": (ORDERS, "ordered_at", _orders),
    "sensors": (SENSORS, "measured_at", _sensors),
    "clicks": (CLICKS, "event_time", _clicks),
}
"""For each stream: its columns, which of them is the event time, and what makes its rows."""
