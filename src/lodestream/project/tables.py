"""Reads the declaration of one table into the model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, get_args

from lodestream.model.diagnostic import Place
from lodestream.model.project import Path
from lodestream.model.table import (
    WINDOW_END,
    WINDOW_START,
    Component,
    Drift,
    Expectation,
    Late,
    Named,
    OnFail,
    PythonStep,
    Table,
    TableName,
)
from lodestream.project.columns import read_columns
from lodestream.project.components import read_component
from lodestream.project.fields import Fields, column_name, expression, wrong_kind
from lodestream.project.joins import read_join
from lodestream.project.keys import INPUTS, KEYS, check_keys
from lodestream.project.maintain import read_maintain, read_retention
from lodestream.project.mistakes import Mistakes, nearest
from lodestream.project.nodes import Node
from lodestream.project.steps import (
    distinct,
    read_changes,
    read_dedup,
    read_enrichers,
    read_event_time,
    read_lookups,
    read_window,
)
from lodestream.project.values import COLUMN, check_schedule

ENGINES = ("any", "embedded", "spark")
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class TableReading:
    """One table as far as it could be read.

    Attributes:
        table: the table; what could not be read is left out.
        locations: place of every value, by its path; lookups also as `("lookups", i)` in the model's order, and
            grouping columns as `("group_by", name)`, however they were written.
        unsure: names that stand for something left out; `*` when its columns cannot be known.
    """

    table: Table
    locations: dict[Path, Place]
    unsure: frozenset[str]


def read_table(name: TableName, node: Node, mistakes: Mistakes) -> TableReading:
    """Read one table file (or the same keys given in Python); never raises, every mistake is noted."""
    reader = _TableReader(node, mistakes)
    table = reader.read(name)
    locations = node.places()
    for alias, path in reader.aliases.items():
        for written, place in list(locations.items()):
            if written[: len(path)] == path:
                locations[(*alias, *written[len(path) :])] = place
    return TableReading(table, locations, frozenset(reader.unsure))


class _TableReader:
    def __init__(self, node: Node, mistakes: Mistakes) -> None:
        self.mistakes = mistakes
        self.fields = Fields(node, KEYS, mistakes, "the table")
        self.unsure: set[str] = set()
        self.aliases: dict[Path, Path] = {}
        if not isinstance(node.value, dict) or not check_keys(self.fields):
            self.unsure.add("*")

    def read(self, name: TableName) -> Table:
        fields, nodes = self.fields, self.fields.nodes
        values: dict[str, Any] = {"comment": fields.text("comment") or ""}
        values |= {key: fields.flag(key) for key in ("keep_raw", "skip_silver", "completeness")}
        for key, room in (("source", "sources"), ("format", "formats")):
            if key in nodes:
                values[key] = read_component(nodes[key], room, self.mistakes)
        values["sinks"] = self.sinks()
        values["columns"] = self.columns()
        values["from_"] = fields.stream("from")
        chosen = fields.strings("select")
        values["select"] = distinct(chosen, self.mistakes, "select")
        if "select" in nodes and not (
            isinstance(nodes["select"].value, list) and len(nodes["select"].value) == len(chosen)
        ):
            self.unsure.add("*")
        values["derive"] = self.named("derive", strict=True)
        values["expect"] = self.expectations()
        if "event_time" in nodes:
            values["event_time"] = read_event_time(nodes["event_time"], self.mistakes)
        if "dedup" in nodes:
            values["dedup"] = read_dedup(nodes["dedup"], self.mistakes)
        values["lookups"] = self.lookups()
        if "join" in nodes:
            values["join"], broken = read_join(nodes["join"], self.mistakes)
            self.unsure |= broken if values["join"] is None else set()
        values["enrichers"] = self.enrichers()
        values["python"] = self.python()
        if "window" in nodes:
            values["window"] = read_window(nodes["window"], self.mistakes)
            self.unsure |= {"*"} if values["window"] is None else set()
        if "changes" in nodes:
            values["changes"] = read_changes(nodes["changes"], self.mistakes)
            self.unsure |= {"*"} if values["changes"] is None else set()
        values["group_by"] = self.group_by()
        values["measures"] = self.named("measures", strict=True)
        if values.get("window") is not None and "measures" in nodes and nodes["measures"].value == {}:
            wrong_kind(self.mistakes, nodes["measures"], "measures", "at least one measure, such as {rows: count(*)}")
        values["sql"] = fields.expression("sql")
        values["schedule"] = self.schedule()
        values["partition_by"] = distinct(fields.strings("partition_by"), self.mistakes, "partition_by")
        values["retention_us"] = read_retention(fields)
        if "maintain" in nodes:
            values["maintain"] = read_maintain(nodes["maintain"], self.mistakes)
        choices = {"drift": get_args(Drift), "emit": ("updates", "final"), "late": get_args(Late), "engine": ENGINES}
        for key, options in choices.items():
            if (choice := fields.choice(key, options)) is not None:
                values[key] = choice
        if not any(values.get(key) for key in ("source", "from_", "sql")) and any(key in nodes for key in INPUTS):
            self.unsure.add("*")
        return Table(name=name, declared_at=self.fields.node.place, **values)

    def sinks(self) -> tuple[Component, ...]:
        """One sink, or a list of them; their places are at `("sinks", i)`, however they were written."""
        node = self.fields.nodes.get("sink")
        if node is None:
            return ()
        written = [(item, ("sink", i)) for i, item in enumerate(node.value)] if isinstance(node.value, list) else None
        found: list[Component] = []
        for item, path in written if written is not None else [(node, ("sink",))]:
            if (sink := read_component(item, "sinks", self.mistakes)) is not None:
                self.aliases["sinks", len(found)] = path
                found.append(sink)
        return tuple(found)

    def columns(self) -> Any:
        if "columns" not in self.fields:
            return None
        schema, broken = read_columns(self.fields.nodes["columns"], self.mistakes)
        self.unsure |= broken if schema is not None else {"*"}
        return schema

    def named(self, key: str, *, strict: bool) -> tuple[Named, ...]:
        """`{name: expression}`."""
        node = self.fields.nodes.get(key)
        if node is None:
            return ()
        if not isinstance(node.value, dict):
            wrong_kind(self.mistakes, node, key, "a mapping of names to expressions")
            self.unsure.add("*")
            return ()
        found: list[Named] = []
        for name, item in node.value.items():
            text = expression(self.mistakes, item, f"{key}.{name}")
            place = node.keys[name]
            twin = next((one.name for one in found if one.name.lower() == name.lower()), None)
            if twin is not None:
                self.mistakes.add(place, "D113", "column appears twice", column=name, first=twin)
            elif not column_name(self.mistakes, place, name, strict=strict) or text is None:
                self.unsure.add(name)
            else:
                found.append(Named(name, text))
            if key in ("measures", "group_by") and name in (WINDOW_START, WINDOW_END):
                self.mistakes.add(place, "D111", "this name is taken by the window", column=name)
        return tuple(found)

    def expectations(self) -> tuple[Expectation, ...]:
        """`{name: expression}` or `{name: {that: expression, else: quarantine}}`."""
        node = self.fields.nodes.get("expect")
        if node is None:
            return ()
        if not isinstance(node.value, dict):
            wrong_kind(self.mistakes, node, "expect", "a mapping of rule names to expressions")
            return ()
        found: list[Expectation] = []
        for name, item in node.value.items():
            column_name(self.mistakes, node.keys[name], name)
            if not isinstance(item.value, dict):
                if (text := expression(self.mistakes, item, f"expect.{name}")) is not None:
                    found.append(Expectation(name, text))
                continue
            fields = Fields(item, ("that", "else"), self.mistakes, f"rule {name}")
            complete = fields.need("that")
            that, otherwise = fields.expression("that"), fields.choice("else", get_args(OnFail))
            if complete and that is not None:
                found.append(Expectation(name, that, otherwise or "quarantine"))  # type: ignore[arg-type]
        return tuple(found)

    def lookups(self) -> tuple[Any, ...]:
        if "enrich" not in self.fields:
            return ()
        found = read_lookups(self.fields.nodes["enrich"], self.mistakes)
        for lookup, columns, _ in found:
            self.unsure |= columns if lookup is None else set()
        good = [(lookup, path) for lookup, _, path in found if lookup is not None]
        self.aliases |= {("lookups", i): path for i, (_, path) in enumerate(good)}
        return tuple(lookup for lookup, _ in good)

    def enrichers(self) -> tuple[Component, ...]:
        """Their places are at `("enrichers", i)`, however they were written."""
        found = read_enrichers(self.fields.nodes["enrich"], self.mistakes) if "enrich" in self.fields else []
        self.unsure |= {"*"} if any(one is None for one, _ in found) else set()
        good = [(one, path) for one, path in found if one is not None]
        self.aliases |= {("enrichers", i): path for i, (_, path) in enumerate(good)}
        return tuple(one for one, _ in good)

    def python(self) -> PythonStep | None:
        text = self.fields.text("python")
        if text is None:
            return None
        if not _FUNCTION.fullmatch(text):
            place, near = self.fields.nodes["python"].place, re.sub(r"\.(\w+)$", r":\1", text)
            good = near if near != text and _FUNCTION.fullmatch(near) else None
            self.mistakes.add(place, "D211", "not module:function", value=text, nearest=good)
            return None
        return PythonStep(text)

    def group_by(self) -> tuple[Named, ...]:
        """A list of columns, or `{name: expression}`."""
        node = self.fields.nodes.get("group_by")
        if node is None or isinstance(node.value, dict):
            return self.named("group_by", strict=True)
        written = self.fields.strings("group_by")
        self.aliases |= {("group_by", name): ("group_by", i) for i, (name, _) in enumerate(written)}
        names = distinct(written, self.mistakes, "group_by")
        for name in names:
            if name in (WINDOW_START, WINDOW_END):
                fix = "remove it: rows are grouped by their window anyway"
                self.mistakes.add(node.place, "D111", "this name is taken by the window", column=name, fix=fix)
        return tuple(Named(name, name if COLUMN.fullmatch(name) else f"`{name}`") for name in names)

    def schedule(self) -> str | None:
        text = self.fields.text("schedule")
        if text is None:
            return None
        try:
            return check_schedule(text)
        except ValueError as error:
            options = ("@hourly", "@daily", "@weekly", "@monthly", "@yearly")
            place = self.fields.nodes["schedule"].place
            self.mistakes.add(place, "D114", f"not a schedule: {error}", value=text, nearest=nearest(text, options))
            return None
