"""A sink for tests: a file of JSON lines, which with its position is replaced as a whole by each publication."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

from lodestream.ports import settings as base
from lodestream.ports.sink import SinkPosition, SinkWants


class ListingSettings(base.Settings):
    path: str


class ListingSink:
    settings: ClassVar[type[base.Settings]] = ListingSettings

    def __init__(self, settings, publishing):
        self._path, self._publishing = Path(settings.path), publishing

    @classmethod
    def wants(cls, settings):
        return SinkWants(str(settings["path"]))

    @property
    def identity(self):
        return self._publishing.identity

    @property
    def place(self):
        return str(self._path)

    def open(self):
        told = self._read()
        return SinkPosition(**told["position"]) if told else None

    def publish(self, changes, position):
        lines = list(self._read().get("lines", ()))
        for change in changes:
            gone = change.gone if change.gone is not None else [False] * len(change.rows)
            for row, left in zip(change.rows.to_pylist(), gone, strict=True):
                key = [row[name] for name in self._publishing.key]
                lines.append([*map(str, key), None if left else json.loads(json.dumps(row, default=str))])
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps({"position": asdict(position), "lines": lines}))
        os.replace(fresh, self._path)
        return sum(len(change.rows) for change in changes)

    def close(self):
        pass

    def _read(self):
        return json.loads(self._path.read_text()) if self._path.exists() else {}


component = ListingSink
