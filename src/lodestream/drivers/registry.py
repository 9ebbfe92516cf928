"""Schema registries of a project, by name or URL: a client of the Confluent REST API with a memory for outages."""

from __future__ import annotations

import difflib
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from lodestream.drivers.registry_files import SchemaFiles, read_schema
from lodestream.errors import ConfigError, MissingDriverError, TransientError
from lodestream.ports.registry import (
    Reference,
    RegisteredSchema,
    SchemaKind,
    SchemaRefusedError,
    SchemaRegistry,
    UnknownSchemaError,
)

DEFAULT_URL = "http://127.0.0.1:8081"
_UNKNOWN_S = 5.0
"""How long an id that the registry does not have is not asked for again."""
_URL = re.compile(r"https?://[^\s/]+(/[^\s?#]*)?")


def registries(declared: Mapping[str, Mapping[str, Any]], cache: str | None) -> Callable[[str], SchemaRegistry]:
    """Opens a schema registry by name or URL; `default` is the one that `lodestream registry` serves here.

    Nothing is asked before a schema is. Each registry is opened once.

    Args:
        declared: settings by name: `url`, and for those who ask for it `user`, `password`, `ca`, `certificate`, `key`.
        cache: folder in which schemas are kept for an outage; None for nowhere.
    """
    opened: dict[str, SchemaRegistry] = {}
    lock = threading.Lock()

    def by_name(name: str) -> SchemaRegistry:
        with lock:
            if name not in opened:
                opened[name] = open_registry(_settings(declared, name), cache)
            return opened[name]

    return by_name


def open_registry(
    settings: Mapping[str, Any], cache: str | None, clock: Callable[[], float] = time.monotonic
) -> RegistryClient:
    """A registry by its settings.

    Args:
        settings: `url`, and `user`, `password`, `ca`, `certificate`, `key` where they are needed.
        cache: folder for schemas, or None.
        clock: seconds that only grow.

    Raises:
        ConfigError: the settings do not fit, or a file of them cannot be read.
        MissingDriverError: a package is missing.
    """
    try:
        from lodestream.drivers.registry_http import RegistryHttp
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("lodestream"):
            raise
        raise MissingDriverError(
            "schema registries need a package: pip install 'lodestream[kafka]'", missing=error.name
        ) from error
    http = RegistryHttp(settings, clock)
    return RegistryClient(http, SchemaFiles(cache, http.url) if cache is not None else None, clock)


def _settings(declared: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    if name in declared:
        found = declared[name]
    elif name == "default":
        found = {"url": DEFAULT_URL}
    elif "://" in name:
        found = {"url": name}
    else:
        near = difflib.get_close_matches(name, declared, 1)
        raise ConfigError(
            "no such schema registry; declare it in lodestream.yaml under registries:, or write its URL",
            registry=name, nearest=near[0] if near else None,
        )  # fmt: skip
    if not _URL.fullmatch(str(found.get("url", ""))):
        raise ConfigError(
            f"not the URL of a schema registry; it looks like {DEFAULT_URL}",
            registry=name if "://" not in name else None,
        )
    return found


class RegistryClient:
    """A schema registry; see `SchemaRegistry`. May be used by many threads.

    What was learnt stays in memory. What an earlier process learnt lies in files, which are believed only while the
    registry does not answer: a registry that was made anew may give an id to another schema.
    """

    def __init__(self, http: Any, files: SchemaFiles | None, clock: Callable[[], float]) -> None:
        self._http = http
        self._files = files
        self._clock = clock
        self._asking = threading.Lock()
        self._ids: dict[int, RegisteredSchema] = {}
        self._versions: dict[tuple[str, int], RegisteredSchema] = {}
        self._unknown: dict[object, float] = {}

    @property
    def url(self) -> str:
        """Where it is, without credentials."""
        return str(self._http.url)

    def schema(self, schema_id: int) -> RegisteredSchema:
        """The schema of an id. Raises UnknownSchemaError when there is none."""
        return self._known(self._ids, schema_id, f"/schemas/ids/{schema_id}", schema_id)

    def version(self, subject: str, version: int) -> RegisteredSchema:
        """One version of a subject. Raises UnknownSchemaError when there is none."""
        path = f"/subjects/{quote(subject, safe='')}/versions/{version}?deleted=true"
        return self._known(self._versions, (subject, version), path, None)

    def latest(self, subject: str) -> RegisteredSchema | None:
        """The newest schema of a subject, or None; in an outage the newest that was ever seen."""
        try:
            return self._ask(f"latest-{subject}", f"/subjects/{quote(subject, safe='')}/versions/latest", None)
        except UnknownSchemaError:
            return None

    def register(self, subject: str, kind: SchemaKind, text: str, references: Sequence[Reference] = ()) -> int:
        """The id of a schema under a subject, registered now if it was not. Raises SchemaRefusedError."""
        path = f"/subjects/{quote(subject, safe='')}/versions"
        found = self._http.post(path, _body(kind, text, references))
        schema_id = found.get("id")
        if not isinstance(schema_id, int) or isinstance(schema_id, bool) or schema_id < 1:
            raise ConfigError("schema registry answers without an id", registry=self.url)
        return schema_id

    def differences(
        self, subject: str, kind: SchemaKind, text: str, references: Sequence[Reference] = ()
    ) -> tuple[str, ...]:
        """Why the schema would be refused, by the subject's rule or because it is none; empty when it would not."""
        path = f"/compatibility/subjects/{quote(subject, safe='')}/versions?verbose=true"
        try:
            found = self._http.post(path, _body(kind, text, references))
        except UnknownSchemaError:  # a subject that is not there refuses nothing
            return ()
        except SchemaRefusedError as error:
            return (str(error.facts.get("said") or error.message),)
        if found.get("is_compatible") is True:
            return ()
        told = found.get("messages")
        texts = tuple(str(one) for one in told) if isinstance(told, list) else ()
        return texts or ("the registry says that it is not compatible",)

    def close(self) -> None:
        """Let go of the connections; twice is harmless."""
        self._http.close()

    def _known(
        self, known: dict[Any, RegisteredSchema], key: Any, path: str, schema_id: int | None
    ) -> RegisteredSchema:
        if (found := known.get(key)) is not None:
            return found
        with self._asking:
            if (found := known.get(key)) is not None:
                return found
            if self._clock() < self._unknown.get(key, float("-inf")):
                raise UnknownSchemaError(f"no such schema in the registry: {key}")
            try:
                found = self._ask(key, path, schema_id)
            except UnknownSchemaError:
                if len(self._unknown) > 10_000:
                    self._unknown.clear()
                self._unknown[key] = self._clock() + _UNKNOWN_S
                raise
            known[key] = found
            return found

    def _ask(self, key: object, path: str, schema_id: int | None) -> RegisteredSchema:
        """Ask the registry, or in an outage the files. Raises UnknownSchemaError or TransientError."""
        try:
            found = read_schema(self._http.get(path), schema_id, self.url)
        except TransientError:
            kept = self._files.load(key) if self._files is not None else None
            if kept is None:
                raise
            return kept
        if self._files is not None:
            self._files.keep(key, found)
        return found


def _body(kind: SchemaKind, text: str, references: Sequence[Reference]) -> dict[str, Any]:
    body: dict[str, Any] = {"schema": text, "schemaType": kind}
    if references:
        body["references"] = [{"name": r.name, "subject": r.subject, "version": r.version} for r in references]
    return body
