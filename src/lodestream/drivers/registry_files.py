"""Keeps schemas of a registry in files for an outage, and reads them from what a registry says."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from typing import Any

from lodestream.errors import ConfigError
from lodestream.ports.registry import Reference, RegisteredSchema, SchemaKind

_KINDS: tuple[SchemaKind, ...] = ("AVRO", "JSON", "PROTOBUF")


class SchemaFiles:
    """Schemas of one registry in a folder; what cannot be read or written is as if it were not there.

    Args:
        folder: the cache's folder; each registry has a folder in it.
        url: the registry.
    """

    def __init__(self, folder: str, url: str) -> None:
        self._folder = os.path.join(folder, "schemas", hashlib.sha256(url.encode()).hexdigest()[:16])

    def load(self, key: object) -> RegisteredSchema | None:
        """What was kept under a key."""
        try:
            with open(self._file(key), encoding="utf-8") as file:
                return read_schema(json.load(file), None, self._folder)
        except (OSError, ValueError, ConfigError):
            return None

    def keep(self, key: object, schema: RegisteredSchema) -> None:
        """Keep a schema; readers see all of it or the one before."""
        told = {
            "id": schema.id, "schemaType": schema.kind, "schema": schema.text,
            "references": [{"name": r.name, "subject": r.subject, "version": r.version} for r in schema.references],
        }  # fmt: skip
        text = json.dumps(told, ensure_ascii=False)
        file = self._file(key)
        fresh = f"{file}.{secrets.token_hex(4)}"
        try:
            os.makedirs(self._folder, exist_ok=True)
            with open(fresh, "w", encoding="utf-8") as out:
                out.write(text)
            os.replace(fresh, file)
        except OSError:  # a full disk does not stop a schema from being used
            with contextlib.suppress(OSError):
                os.unlink(fresh)

    def _file(self, key: object) -> str:
        name = str(key) if isinstance(key, int) else hashlib.sha256(repr(key).encode()).hexdigest()[:32]
        return os.path.join(self._folder, f"{name}.json")


def read_schema(told: Any, schema_id: int | None, where: str) -> RegisteredSchema:
    """The schema in an answer; nothing in it is taken on trust.

    Args:
        told: the answer's JSON.
        schema_id: its id; None when the answer says it.
        where: for messages.

    Raises:
        ConfigError: this is no schema.
    """
    try:
        found_id = told["id"] if schema_id is None else schema_id
        kind, text = told.get("schemaType") or "AVRO", told["schema"]
        references = tuple(_reference(one) for one in told.get("references") or ())
        whole = isinstance(found_id, int) and not isinstance(found_id, bool) and 1 <= found_id < 1 << 31
        if whole and kind in _KINDS and isinstance(text, str) and text:
            text.encode()
            return RegisteredSchema(found_id, kind, text, references)
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    raise ConfigError("answer of the schema registry is no schema; is this the address of a registry?", registry=where)


def _reference(one: Any) -> Reference:
    name, subject, version = one["name"], one["subject"], one["version"]
    if not (isinstance(name, str) and isinstance(subject, str) and isinstance(version, int)):
        raise TypeError(one)
    return Reference(name, subject, version)
