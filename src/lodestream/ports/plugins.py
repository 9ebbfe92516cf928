"""Finds a component by its name: the file name in its room, or an entry point of another package."""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import EntryPoints, entry_points
from typing import Any

from lodestream.errors import ConfigError, MissingDriverError
from lodestream.model.table import Component
from lodestream.model.types import Schema
from lodestream.ports.enricher import Enricher, EnricherWants
from lodestream.ports.sink import Publishing, Sink, SinkWants
from lodestream.ports.source import Reading, Source

Resolve = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Puts values in the place of references such as `${env:NAME}` in a component's settings."""


@functools.cache
def _entries(room: str) -> EntryPoints:
    """Components of other packages; installed packages are searched once, for that takes milliseconds."""
    return entry_points(group=f"lodestream.{room}")


def names(room: str) -> list[str]:
    """Names of all components in a room (`sources`, `formats`, …); imports none of them."""
    package = importlib.import_module(f"lodestream.{room}")
    own = [m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]
    return sorted({*own, *(e.name for e in _entries(room))})


def load(room: str, name: str) -> Any:
    """The component class of that name: the `component` attribute of its module.

    Raises:
        ConfigError: there is none of that name.
        MissingDriverError: it needs a package that is not installed.
    """
    for entry in _entries(room):
        if entry.name == name:
            return entry.load()
    if name not in names(room):
        nearest = difflib.get_close_matches(name, names(room), 1)
        raise ConfigError(f"no such component in {room}", name=name, nearest=nearest[0] if nearest else None)
    try:
        return importlib.import_module(f"lodestream.{room}.{name}").component
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("lodestream"):
            raise
        raise MissingDriverError(
            f"{room} component needs a package: pip install 'lodestream[{name}]'",
            name=name,
            missing=error.name,
        ) from error


def added_columns(source_class: Any, settings: Mapping[str, object]) -> Schema:
    """The columns that a source adds to those that its format decodes, such as a message's key; settings as written."""
    adds = getattr(source_class, "adds", None)
    return adds(settings) if adds is not None else Schema()


def make_source(source: Component, form: Component, reading: Reading, resolve: Resolve = lambda given: given) -> Source:
    """The source of a table with its format, opened.

    Args:
        source: which source, with its settings as written.
        form: which format.
        reading: what the table wants; the format is told of the columns that are its own.
        resolve: puts values in the place of references.

    Raises:
        ConfigError: there is no such component, or source and format do not go together.
        pydantic.ValidationError: settings that are not possible, once references are resolved.
    """
    source_class, format_class = load("sources", source.name), load("formats", form.name)
    own = replace(reading, schema=reading.schema.without(*added_columns(source_class, source.settings).names))
    made: Source = source_class(
        source_class.settings(**resolve(source.settings)),
        format_class(format_class.settings(**resolve(form.settings)), own),
        reading,
    )
    return made


def sink_wants(sink: Component) -> SinkWants:
    """What a sink asks of its table; raises what `load` raises."""
    wants: SinkWants = load("sinks", sink.name).wants(sink.settings)
    return wants


def make_sink(sink: Component, publishing: Publishing, resolve: Resolve = lambda given: given) -> Sink:
    """A sink, not yet open.

    Args:
        sink: which, with its settings as written.
        publishing: what it is told about the table.
        resolve: puts values in the place of references.

    Raises:
        ConfigError: there is no such component.
        pydantic.ValidationError: settings that are not possible, once references are resolved.
    """
    sink_class = load("sinks", sink.name)
    made: Sink = sink_class(sink_class.settings(**resolve(sink.settings)), publishing)
    return made


def enricher_wants(enricher: Component) -> EnricherWants:
    """What an enricher asks of its table; settings as written.

    Raises:
        ConfigError: there is no such component.
        pydantic.ValidationError: settings that are not possible.
    """
    enricher_class = load("enrichers", enricher.name)
    wants: EnricherWants = enricher_class.wants(enricher_class.settings(**enricher.settings))
    return wants


def make_enricher(enricher: Component, resolve: Resolve = lambda given: given) -> Enricher:
    """An enricher; raises what `enricher_wants` does, and ConfigError for a reference to nothing."""
    enricher_class = load("enrichers", enricher.name)
    made: Enricher = enricher_class(enricher_class.settings(**resolve(enricher.settings)))
    return made
