"""Reads `lodestream.yaml`: the project's name, its lake, its environments, its bounds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from types import MappingProxyType
from typing import Any

from lodestream.model.batch import BatchLimit
from lodestream.model.project import BatchSettings, Environment, Project
from lodestream.ports import plugins
from lodestream.project.components import check_settings, component_class
from lodestream.project.deploying import read_deploy
from lodestream.project.fields import Fields, wrong_kind
from lodestream.project.lakes import read_lake, read_place, resolve
from lodestream.project.mistakes import Mistakes, nearest
from lodestream.project.nodes import Node
from lodestream.project.serving import ServingSettings

CONFIG_KEYS = (
    "project", "lake", "environments", "batch", "state", "server", "registries", "connections", "catalog", "stores",
    "deploy",
)  # fmt: skip
REGISTRY_KEYS = ("url", "user", "password", "ca", "certificate", "key")
CATALOG_KEYS = ("url",)
SERVER_KEYS = ("metrics_port", *ServingSettings.model_fields)
_STATE_BYTES_MIN = 1 << 20


def read_config(node: Node | None, folder: FilePath, mistakes: Mistakes) -> Project:
    """A project without tables yet; what is not written has its default."""
    root = str(folder)
    if node is None:
        return Project(folder.name, root, resolve(folder, "lake"))
    fields = Fields(node, CONFIG_KEYS, mistakes, "the project")
    fields.need("project")
    written, store = read_lake(fields)
    lake = resolve(folder, written or "lake")
    deploy, places = read_deploy(fields.nodes.get("deploy"), mistakes)
    return Project(
        name=fields.text("project") or folder.name,
        root=root,
        lake=lake,
        store=store,
        environments=MappingProxyType(_environments(fields, folder, lake, store, mistakes)),
        batch=_batch(fields, mistakes),
        state_bytes_max=_state(fields, mistakes),
        server=MappingProxyType(_server(fields, mistakes)),
        registries=MappingProxyType(_registries(fields, mistakes)),
        connections=MappingProxyType(_connections(fields, mistakes)),
        catalog=MappingProxyType(_catalog(fields, mistakes)),
        stores=MappingProxyType(_stores(fields, folder, mistakes)),
        deploy=MappingProxyType(deploy),
        deploy_locations=MappingProxyType(places),
    )


def _environments(
    fields: Fields, folder: FilePath, lake: str, store: Mapping[str, Any], mistakes: Mistakes
) -> dict[str, Environment]:
    node = fields.nodes.get("environments")
    if node is None:
        return {}
    if not isinstance(node.value, dict):
        wrong_kind(mistakes, node, "environments", "a mapping of names to what differs there")
        return {}
    found: dict[str, Environment] = {}
    for name, item in node.value.items():
        inner = Fields(item, ("lake",), mistakes, f"environment {name}")
        own, settings = read_lake(inner)
        given = (lake, store) if own is None else (resolve(folder, own), settings)
        found[name] = Environment(name, *given)
    return found


def _batch(fields: Fields, mistakes: Mistakes) -> BatchSettings:
    node = fields.nodes.get("batch")
    if node is None:
        return BatchSettings()
    inner = Fields(node, ("rows_max", "bytes_max", "interval"), mistakes, "batch")
    default = BatchLimit()
    limit = BatchLimit(inner.whole("rows_max") or default.rows_max, inner.whole("bytes_max") or default.bytes_max)
    return BatchSettings(limit, inner.duration("interval"))


def _state(fields: Fields, mistakes: Mistakes) -> int | None:
    """How much state may lie in memory: `{memory: 4 GiB}`."""
    node = fields.nodes.get("state")
    return None if node is None else Fields(node, ("memory",), mistakes, "state").size("memory", _STATE_BYTES_MIN)


def _server(fields: Fields, mistakes: Mistakes) -> dict[str, Any]:
    node = fields.nodes.get("server")
    if node is None:
        return {}
    inner = Fields(node, SERVER_KEYS, mistakes, "server")
    found: dict[str, Any] = {"host": inner.text("host")}
    for key in ("port", "metrics_port"):
        found[key] = inner.whole(key, least=0)
        if (found[key] or 0) > 65_535:
            wrong_kind(mistakes, inner.nodes[key], key, "a port, at most 65535")
    others = {key: item for key, item in inner.nodes.items() if key not in found}
    plain = {key: item.plain() for key, item in others.items()}
    check_settings(ServingSettings, "server", plain, node, node.place, mistakes)
    return {key: value for key, value in (found | plain).items() if value is not None}


def _registries(fields: Fields, mistakes: Mistakes) -> dict[str, dict[str, str]]:
    """Schema registries by name: `{default: {url: http://127.0.0.1:8081}}`, or the URL alone."""
    node = fields.nodes.get("registries")
    if node is None:
        return {}
    if not isinstance(node.value, dict):
        wrong_kind(mistakes, node, "registries", "a mapping of names to settings, such as {default: {url: …}}")
        return {}
    found: dict[str, dict[str, str]] = {}
    for name, item in node.value.items():
        if isinstance(item.value, str):
            found[name] = {"url": item.value}
            continue
        inner = Fields(item, REGISTRY_KEYS, mistakes, f"registry {name}")
        inner.need("url")
        texts = {key: inner.text(key) for key in REGISTRY_KEYS}
        found[name] = {key: text for key, text in texts.items() if text is not None}
    return found


def _catalog(fields: Fields, mistakes: Mistakes) -> dict[str, str]:
    """Where the catalog is kept: `{url: postgresql://…}`; in a file of the lake when nothing is written."""
    node = fields.nodes.get("catalog")
    if node is None:
        return {}
    inner = Fields(node, CATALOG_KEYS, mistakes, "catalog")
    url = inner.text("url") if inner.need("url") else None
    if url is not None and not url.startswith(("postgresql://", "postgres://", "${")):
        shown = url.partition("://")[0] + "://…" if "://" in url else url
        fix = "write postgresql://…, or a reference such as ${env:CATALOG_URL}"
        mistakes.add(inner.nodes["url"].place, "D106", "not the URL of a PostgreSQL database", value=shown, fix=fix)
        return {}
    return {} if url is None else {"url": url}


def _stores(fields: Fields, folder: FilePath, mistakes: Mistakes) -> dict[str, Environment]:
    """Places for copies of the lake, by name, each written as `lake:` is."""
    node = fields.nodes.get("stores")
    if node is None:
        return {}
    if not isinstance(node.value, dict):
        wrong_kind(mistakes, node, "stores", "a mapping of names to folders or URLs")
        return {}
    found: dict[str, Environment] = {}
    for name, item in node.value.items():
        place, settings = read_place(item, f"store {name}", mistakes)
        if place is not None:
            found[name] = Environment(name, resolve(folder, place), settings)
    return found


def _connections(fields: Fields, mistakes: Mistakes) -> dict[str, Mapping[str, Any]]:
    """Settings that components of a name share: `{kafka: {servers: …, tls: {…}}}`."""
    node = fields.nodes.get("connections")
    if node is None:
        return {}
    if not isinstance(node.value, dict):
        wrong_kind(mistakes, node, "connections", "a mapping of components to settings, such as {kafka: {servers: …}}")
        return {}
    found: dict[str, Mapping[str, Any]] = {}
    for name, item in node.value.items():
        known = [component_class(room, name) for room in ("sources", "sinks") if name in plugins.names(room)]
        if not known:
            every = sorted({*plugins.names("sources")})
            mistakes.add(node.keys[name], "D202", "no such component", name=name, nearest=nearest(name, every))
        elif not isinstance(item.value, dict):
            wrong_kind(mistakes, item, f"connection {name}", "a mapping of settings")
        else:
            fields_known = {key for one in known if one is not None for key in one.settings.model_fields}
            for key in item.value:
                if fields_known and key not in fields_known:
                    near = nearest(key, fields_known)
                    mistakes.add(item.keys[key], "D103", f"unknown key in {name}", key=key, nearest=near)
            found[name] = MappingProxyType(item.plain())
    return found
