"""Components of our own, so that these tests do not change when a real one does."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from lodestream.errors import ConfigError, MissingDriverError
from lodestream.model.types import Column, Schema, parse_type
from lodestream.ports import plugins
from lodestream.ports.settings import Settings


class FilesSettings(Settings):
    path: str
    settle: float = 2.0


class GeneratorSettings(Settings):
    events: int = 10


class Empty(Settings):
    pass


class Generator:
    settings = GeneratorSettings

    @classmethod
    def declares(cls, settings):
        return Schema((Column("event_id", parse_type("bigint")), Column("happened_at", parse_type("timestamp"))))


ROOMS = {
    "sources": {"files": SimpleNamespace(settings=FilesSettings), "generator": Generator, "kafka": None},
    "formats": {"json": SimpleNamespace(settings=Empty), "csv": SimpleNamespace(settings=Empty)},
    "sinks": {},
    "enrichers": {},
}

FILES = {
    "lodestream.yaml": "project: shop\nlake: lake\n",
    "tables/bronze/orders.yaml": """\
source: {files: {path: data}}
format: json
columns:
  order_id: string
  customer_id: string
  amount: decimal(12,2)
  country: string
  items: array<string>
  ordered_at: timestamp
  day: date
""",
    "tables/bronze/customers.yaml": """\
source: {files: {path: customers}}
columns: {customer_id: string, tier: string, since: timestamp, score: double}
""",
    "tables/silver/orders.yaml": """\
from: stream(bronze.orders)
derive:
  big: amount > 100
expect:
  has_id: {that: order_id is not null, else: quarantine}
event_time: {column: ordered_at, delay: 30 seconds}
dedup: {keys: [order_id]}
enrich: {lookup: {table: bronze.customers, on: customer_id, columns: [tier]}}
partition_by: [date(ordered_at)]
retention: 2 years
""",
    "tables/gold/revenue.yaml": """\
from: stream(silver.orders)
event_time: {column: ordered_at, delay: 30 seconds}
window: {every: 1 minute}
group_by: [country]
measures: {orders: count(*), revenue: sum(amount)}
emit: updates
""",
}


@pytest.fixture(autouse=True)
def _components(monkeypatch):
    def load(room, name):
        if name not in ROOMS[room]:
            raise ConfigError("no such component", name=name)
        if ROOMS[room][name] is None:
            raise MissingDriverError(
                "sources component needs a package: pip install 'lodestream[kafka]'", missing="kafka"
            )
        return ROOMS[room][name]

    monkeypatch.setattr(plugins, "names", lambda room: sorted(ROOMS[room]))
    monkeypatch.setattr(plugins, "load", load)


@pytest.fixture
def write(tmp_path):
    """Write the sample project with some files replaced (None leaves one out); gives its folder."""

    def write_files(changes: dict[str, str | bytes | None] | None = None) -> str:
        for name, text in {**FILES, **(changes or {})}.items():
            if text is None:
                continue
            path = Path(tmp_path, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(tmp_path)

    return write_files


@pytest.fixture
def sample():
    """Texts of the sample project's files."""
    return dict(FILES)
