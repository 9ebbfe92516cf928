"""What `lake:` in lodestream.yaml may say: a folder, or the URL of an object store with what it takes to use it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from types import MappingProxyType
from typing import Any

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from lodestream.ports.settings import Settings
from lodestream.project.components import check_settings
from lodestream.project.fields import Fields, wrong_kind
from lodestream.project.mistakes import Mistakes
from lodestream.project.nodes import Node
from lodestream.project.values import parse_duration

_URL = re.compile(r"[a-z][a-z0-9+.-]*://")
_FORMS = (
    re.compile(r"abfss://(?P<container>[^@/]+)@(?P<account>[^@/.]+)\.dfs\.(?P<suffix>[^@/:]+)(?:/(?P<path>.*))?\Z"),
    re.compile(r"s3://(?P<bucket>[^@/:]+)(?:/(?P<path>.*))?\Z"),
)
_VARIABLES = {
    "s3": (
        {"access_key_id": "AWS_ACCESS_KEY_ID", "secret_access_key": "AWS_SECRET_ACCESS_KEY",
         "session_token": "AWS_SESSION_TOKEN"},
        {"access_key_id": "AWS_ACCESS_KEY_ID", "secret_access_key": "AWS_SECRET_ACCESS_KEY"},
    ),
    "abfss": (
        {"account_key": "AZURE_STORAGE_ACCOUNT_KEY"},
        {"tenant_id": "AZURE_TENANT_ID", "client_id": "AZURE_CLIENT_ID", "client_secret": "AZURE_CLIENT_SECRET"},
        {"sas_token": "AZURE_STORAGE_SAS_TOKEN"},
    ),
}  # fmt: skip
"""Variables that say who we are, by kind of store: the first set of which all are there counts."""
_AZURE = ("account_key", "sas_token", "tenant_id", "client_id", "client_secret")
_S3 = ("region", "access_key_id", "secret_access_key", "session_token")


class StoreSettings(Settings):
    """An object store: how to reach it and who we are there."""

    endpoint: str | None = None
    """URL of the service, where it is not the cloud's own: an emulator, a store beside S3."""
    account_key: str | None = None
    """Azure: key of the storage account."""
    sas_token: str | None = None
    """Azure: a shared access signature, with rights to read, add, create, write, delete and list."""
    tenant_id: str | None = None
    """Azure: tenant of a service principal, with `client_id` and `client_secret`."""
    client_id: str | None = None
    """Azure: of the service principal; alone, that of a managed identity."""
    client_secret: str | None = None
    """Azure: secret of the service principal."""
    region: str = "us-east-1"
    """S3: region of the bucket."""
    access_key_id: str | None = None
    """S3: without, the environment or the machine says who we are."""
    secret_access_key: str | None = None
    """S3: comes with `access_key_id`."""
    session_token: str | None = None
    """S3: of temporary keys."""
    timeout: str = "60 seconds"
    """Longest time of one request."""
    patience: str = "1 minute"
    """How long a store that is busy or away is asked again before the flow rests."""
    home: str | None = None
    """Folder of this machine for copies of files, locks, catalog and keys; without, `.lodestream` in the project."""
    checkpoints: str | None = None
    """Folder that Spark's driver and workers see and that stays, for its checkpoints; without, `home`."""
    copies_bytes_max: int = Field(default=10 << 30, ge=1 << 20)
    """Bytes of copies that are kept; those used within ten minutes stay whatever they take."""

    @field_validator("timeout", "patience")
    @classmethod
    def _duration(cls, text: str) -> str:
        if "${" not in text:
            try:
                parse_duration(text)
            except ValueError as error:
                raise PydanticCustomError("D107", "{said}", {"said": str(error)}) from None
        return text

    @model_validator(mode="after")
    def _whole(self) -> StoreSettings:
        for one, other in (("access_key_id", "secret_access_key"), ("client_secret", "tenant_id")):
            if (getattr(self, one) is None) is not (getattr(self, other) is None) and one != "client_secret":
                raise PydanticCustomError("D105", "{one} and {other} go together", {"one": one, "other": other})
        if self.client_secret is not None and (self.tenant_id is None or self.client_id is None):
            raise PydanticCustomError("D105", "client_secret needs tenant_id and client_id", {})
        return self


def parts_of(url: str) -> dict[str, str] | None:
    """The parts of an `abfss://` or `s3://` URL by name; None when it is neither, whole and without credentials."""
    for form in _FORMS:
        if (found := form.match(url)) is not None:
            return {name: value or "" for name, value in found.groupdict().items()}
    return None


def is_url(lake: str) -> bool:
    """Whether a lake is named by URL, not by folder."""
    return _URL.match(lake) is not None


def with_variables(url: str, store: Mapping[str, Any], environment: Mapping[str, str]) -> Mapping[str, Any]:
    """The settings of a store with the credentials that variables hold, where the settings have none.

    Other machines of a run are sent the settings, and may not have the variables.
    """
    if any(store.get(name) is not None for name in (*_AZURE, *_S3[1:])):
        return store
    for names in _VARIABLES.get(url.partition("://")[0], ()):
        if all(environment.get(variable) for variable in names.values()):
            return {**store, **{name: environment[variable] for name, variable in names.items()}}
    return store


def resolve(folder: FilePath, lake: str) -> str:
    """A lake's absolute path; URLs and references such as `${env:LAKE}` stay as they are."""
    if is_url(lake) or lake.startswith("${"):
        return lake
    return str((folder / lake).absolute())


def read_lake(fields: Fields) -> tuple[str | None, Mapping[str, Any]]:
    """What `lake:` of a block says: folder or URL, None for nothing, and the settings of its store as written."""
    node = fields.nodes.get("lake")
    return (None, MappingProxyType({})) if node is None else read_place(node, "lake", fields.mistakes)


def read_place(node: Node, what: str, mistakes: Mistakes) -> tuple[str | None, Mapping[str, Any]]:
    """A folder or URL, None for none that can be read, and the settings of its store as written."""
    store: dict[str, Any] = {}
    if isinstance(node.value, dict):
        inner = Fields(node, ("url", *StoreSettings.model_fields), mistakes, what)
        text = inner.text("url") if inner.need("url") else None
        place = inner.nodes.get("url", node)
        others = {key: item for key, item in inner.nodes.items() if key != "url"}
        store = {key: item.plain() for key, item in others.items()}
        check_settings(StoreSettings, what, store, node, node.place, mistakes)
        _check_kind(text, others, node, mistakes)
    else:
        text, place = node.value if isinstance(node.value, str) else "", node
    if text is not None and not text.strip():
        wrong_kind(mistakes, place, what, "a folder or URL")
        return None, MappingProxyType(store)
    if text is not None and is_url(text) and "${" not in text and parts_of(text) is None:
        fix = "write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH or s3://BUCKET/PATH, keys beside it"
        shown = text.partition("://")[0] + "://…"
        mistakes.add(place.place, "D106", "not the URL of a store that a lake can be on", value=shown, fix=fix)
    return text, MappingProxyType(store)


def _check_kind(url: str | None, written: Mapping[str, Node], node: Node, mistakes: Mistakes) -> None:
    """Note the settings that are for the other kind of store."""
    if url is None or "${" in url:
        return
    if not is_url(url):
        for key in (key for key in written if key != "home"):
            fix = "remove it, or name a lake on an object store"
            mistakes.add(node.keys[key], "D106", "a lake in a folder has no such setting", key=key, fix=fix)
        return
    foreign = _S3 if url.startswith("abfss:") else _AZURE if url.startswith("s3:") else ()
    for key in (key for key in written if key in foreign):
        mistakes.add(node.keys[key], "D106", "setting of the other kind of store", key=key, fix="remove it")
