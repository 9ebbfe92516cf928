"""Reads `{name: settings}` of a source or format and checks it against the installed component."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from lodestream.errors import ConfigError, MissingDriverError
from lodestream.model.diagnostic import Place
from lodestream.model.table import Component, Table
from lodestream.ports import plugins
from lodestream.ports.settings import Settings
from lodestream.project.codes import CODES
from lodestream.project.fields import wrong_kind
from lodestream.project.mistakes import Mistakes, nearest
from lodestream.project.nodes import Node


def read_component(node: Node, room: str, mistakes: Mistakes) -> Component | None:
    """The component of `kafka`, `{kafka: }` or `{kafka: {topic: orders}}`; None when it cannot be read."""
    what = room.removesuffix("s")
    if isinstance(node.value, str):
        name, settings = node.value, Node(node.place, {})
    elif isinstance(node.value, dict) and len(node.value) == 1:
        ((name, settings),) = node.value.items()
        settings = Node(settings.place, {}) if settings.value is None else settings
    elif isinstance(node.value, dict) and node.value:
        second = list(node.value)[1]
        fix = f"keep one, or indent the settings under it: {what}: {{{next(iter(node.value))}: {{…}}}}"
        mistakes.add(node.keys[second], "D106", f"{what} takes one component", found=", ".join(node.value), fix=fix)
        return None
    else:
        wrong_kind(mistakes, node, what, "one component with its settings, such as {name: {…}}")
        return None
    if not isinstance(settings.value, dict):
        wrong_kind(mistakes, settings, f"settings of {name}", "a mapping")
        return None
    place = node.keys.get(name, node.place)
    plain = settings.plain()
    known = plugins.names(room)
    if known and name not in known:  # an empty room cannot judge
        fix = f"use one of: {', '.join(known)}"
        mistakes.add(place, "D202", f"no such {what}", name=name, nearest=nearest(name, known), fix=fix)
        return None
    if known:
        _check(room, name, plain, settings, place, mistakes)
    return Component(name, MappingProxyType(plain))


def connected(table: Table, connections: Mapping[str, Mapping[str, Any]]) -> Table:
    """The table with what `connections:` says of its source and sinks under what the table itself says."""
    source = table.source and _connected("sources", table.source, connections)
    return replace(table, source=source, sinks=tuple(_connected("sinks", sink, connections) for sink in table.sinks))


def _connected(room: str, component: Component, connections: Mapping[str, Mapping[str, Any]]) -> Component:
    shared = connections.get(component.name)
    if shared is None:
        return component
    known = component_class(room, component.name)
    fitting = {key: value for key, value in shared.items() if known is None or key in known.settings.model_fields}
    return Component(component.name, MappingProxyType({**fitting, **component.settings}))


def component_class(room: str, name: str) -> Any | None:
    """The class of a component, or None when it is not installed."""
    try:
        return plugins.load(room, name) if name in plugins.names(room) else None
    except ConfigError:
        return None


def _check(room: str, name: str, plain: Mapping[str, Any], node: Node, place: Place, mistakes: Mistakes) -> None:
    try:
        settings = plugins.load(room, name).settings
    except MissingDriverError as error:
        missing, fix = error.facts.get("missing"), error.message.partition(": ")[2]
        mistakes.add(place, "D204", "component needs a package", name=name, missing=missing, fix=fix)
        return
    check_settings(settings, name, plain, node, place, mistakes)


def check_settings(
    settings: type[Settings], name: str, plain: Mapping[str, Any], node: Node, place: Place, mistakes: Mistakes
) -> None:
    """Note what is wrong with settings as written; a validator may raise PydanticCustomError with a code of ours.

    Args:
        settings: what they should be.
        name: of the block, for messages.
        plain: the settings.
        node: where they were written.
        place: where the block begins.
        mistakes: where mistakes go.
    """
    try:
        settings.model_validate(dict(plain))
    except ValidationError as error:
        for one in error.errors(include_url=False, include_context=False):
            named = one["type"] in ("extra_forbidden", "missing") or one["type"] in CODES
            if not named and "${" in str(one["input"]):  # a reference is resolved when the system starts
                continue
            loc = one["loc"]
            at, nearest_key = _locate(node, loc), None
            if one["type"] == "extra_forbidden":
                block = _block(settings, loc[:-1]).model_fields.items()
                nearest_key = nearest(str(loc[-1]), (one.alias or name for name, one in block))
                code, message = "D103", f"unknown key in {name}"
            elif one["type"] == "missing":
                code, message = "D105", f"missing key in {name}"
            elif one["type"] in CODES:
                code, message = one["type"], one["msg"]
            else:
                code, message = "D203", one["msg"][:1].lower() + one["msg"][1:]
            key = ".".join(str(part) for part in loc) or None
            mistakes.add(at if loc else place, code, message, key=key, nearest=nearest_key)


def _block(settings: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel]:
    """The settings of the block at `loc`; those around it where it is not one of ours."""
    held: Any = settings
    for part in loc:
        if _is_block(held):
            settings = held
            held = next((one.annotation for name, one in held.model_fields.items() if part in (name, one.alias)), None)
        else:  # an item of a list or mapping
            held = get_args(held)[-1] if get_args(held) else None
        if get_origin(held) in (Union, UnionType):
            held = next((one for one in get_args(held) if one is not type(None)), None)
    return held if _is_block(held) else settings


def _is_block(held: Any) -> bool:
    return inspect.isclass(held) and issubclass(held, BaseModel)


def _locate(node: Node, loc: tuple[int | str, ...]) -> Place:
    """Where the setting stands that pydantic names; as deep as it was written."""
    place = node.place
    for part in loc:
        if isinstance(node.value, dict) and part in node.value:
            place, node = node.keys[str(part)], node.value[str(part)]
        elif isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            place = node.place
        else:
            break
    return place
