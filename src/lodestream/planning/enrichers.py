"""Checks a table's enrichers against its columns: those that compute in line in their order, then the one that asks."""

from __future__ import annotations

from pydantic import ValidationError

from lodestream.errors import ConfigError
from lodestream.model.diagnostic import Place
from lodestream.model.steps import Annotate, Ask, Step
from lodestream.model.table import ENRICH_ERROR, Component
from lodestream.model.types import STRING, Column, Schema
from lodestream.planning.scope import Scope, Shape
from lodestream.ports.enricher import EnricherWants
from lodestream.ports.plugins import enricher_wants

_REASON = Column(ENRICH_ERROR, STRING, comment="why there is no answer")


def compile_enrichers(scope: Scope) -> list[Step]:
    """The steps of the table's enrichers; the scope ends with their columns."""
    known: list[tuple[int, Component, EnricherWants]] = []
    for i, enricher in enumerate(scope.table.enrichers):
        wants = _wants(scope, i, enricher)
        if wants is None:
            scope.shape = Shape(lost=True)
            return []
        known.append((i, enricher, wants))
    asking = [one for one in known if one[2].asking is not None]
    for i, enricher, _ in asking[1:]:
        message = "two enrichers that ask"
        scope.mistakes.add(_place(scope, i, enricher), "D214", message, first=asking[0][1].name, second=enricher.name)
    if asking and scope.table.window is not None:
        i, enricher, _ = asking[0]
        scope.mistakes.add(_place(scope, i, enricher), "D214", "windows over rows that wait", enricher=enricher.name)
    if asking and scope.table.changes is not None:
        i, enricher, _ = asking[0]
        scope.mistakes.add(_place(scope, i, enricher), "D214", "changes that wait", enricher=enricher.name)
    if asking and scope.table.join is not None:
        i, enricher, _ = asking[0]
        scope.mistakes.add(_place(scope, i, enricher), "D214", "joined rows that wait", enricher=enricher.name)
    if asking and scope.table.source is not None:
        i, enricher, _ = asking[0]
        fix = f"keep the source here, and ask in a table with from: stream({scope.table.name})"
        message = "a source whose rows wait"
        scope.mistakes.add(_place(scope, i, enricher), "D214", message, enricher=enricher.name, fix=fix)
    inline = [one for one in known if one[2].asking is None]
    return [_compile(scope, *one) for one in (*inline, *asking[:1])]


def _wants(scope: Scope, i: int, enricher: Component) -> EnricherWants | None:
    """What the enricher asks for; None when its settings are not possible."""
    try:
        return enricher_wants(enricher)
    except ConfigError:  # noted where the declaration was read
        return None
    except ValidationError as error:
        # Noted where it was read, but for settings that hold a reference: only some may.
        for one in error.errors(include_url=False, include_context=False):
            if "${" in str(one["input"]):
                place, key = scope.place("enrichers", i, enricher.name, *one["loc"]), str(one["loc"][0])
                scope.mistakes.add(place, "D203", "this setting cannot be a reference", key=key)
        return None


def _compile(scope: Scope, i: int, enricher: Component, wants: EnricherWants) -> Step:
    at = ("enrichers", i, enricher.name)
    for path in wants.written_out:
        scope.mistakes.add(scope.place(*at, *path), "D213", "secret written out", key=str(path[-1]))
    for path, name in wants.reads:
        column = scope.column(name, (*at, *path))
        if column is not None and wants.types and column.type.name not in wants.types:
            scope.mistakes.add(
                scope.place(*at, *path), "D308", "enricher cannot read this type", column=name, type=column.type,
                fix=f"derive a column of type {' or '.join(wants.types)}",
            )  # fmt: skip
    added: list[Column] = []
    unknown: set[str] = set()
    for column in wants.adds:
        taken = {one.lower() for one in scope.shape.schema.names}
        if column.name.lower() in taken:
            fix = "name the added column differently, or the one that is there in the table above"
            scope.mistakes.add(scope.place(*at), "D307", "column appears twice", column=column.name, fix=fix)
            unknown.add(column.name)
        else:
            added.append(column)
    if wants.asking is not None:
        added.append(_REASON)
    scope.add(added, unknown)
    if wants.asking is not None:
        scope.notes.append((scope.place(*at), f"enrich.{enricher.name}"))
    reads = tuple(dict.fromkeys(name for _, name in wants.reads))
    schema = Schema(tuple(added))
    if wants.asking is None:
        return Annotate(enricher, reads, schema)
    asking = wants.asking
    return Ask(
        enricher, reads, schema, asking.version, asking.timeout_us, asking.waiting_max, asking.parallel,
        asking.rate_per_s,
    )  # fmt: skip


def _place(scope: Scope, i: int, enricher: Component) -> Place:
    return scope.place("enrichers", i, enricher.name)
