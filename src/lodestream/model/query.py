"""A saved query: SQL with a name and parameters that have types."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

RESERVED = frozenset({"format", "rows_max", "csv_guard", "as_of"})
"""Names that a parameter cannot have, because they say how the answer should be."""
KINDS = ("tinyint", "smallint", "int", "bigint", "decimal", "float", "double", "boolean", "date", "timestamp", "string")
"""Types that a parameter may have; `decimal` with precision and scale."""
NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
_TOKEN = re.compile(
    r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$\$.*?\$\$|\$(\d+)|\$([A-Za-z_]\w*)|(\?)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class QueryParameter:
    """What a saved query takes.

    Attributes:
        name: as `$name` in the SQL.
        type: name of its type.
        default: text of the value when none is given; None when one has to be.
        description: what it means.
    """

    name: str
    type: str = "string"
    default: str | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class SavedQuery:
    """One saved query.

    Attributes:
        name: under which it is asked.
        sql: as written, with `$name` for parameters.
        parameters: all that it takes.
        title: what it gives, in a few words.
        description: more of that.
        origin: the file that declares it, or empty for one that somebody saved.
        who: who saved it.
    """

    name: str
    sql: str
    parameters: tuple[QueryParameter, ...] = ()
    title: str = ""
    description: str = ""
    origin: str = ""
    who: str = ""

    def positional(self) -> str:
        """The SQL with `$1`, `$2`, … for the parameters in their order."""
        numbers = {parameter.name: place + 1 for place, parameter in enumerate(self.parameters)}

        def number(match: re.Match[str]) -> str:
            name = match[2]
            return f"${numbers[name]}" if name in numbers else match[0]

        return _TOKEN.sub(number, self.sql)


def named(sql: str) -> Iterator[tuple[str, int]]:
    """Each `$name`, `$1` or `?` in a query and where it stands; what is quoted or a comment is none."""
    for match in _TOKEN.finditer(sql):
        if found := match[1] or match[2] or match[3]:
            yield found, match.start()


def problems(sql: str, declared: Mapping[str, object]) -> Iterator[tuple[str, str, int]]:
    """(what is wrong, the parameter, where) of the parameters of a query against those that are declared."""
    used: set[str] = set()
    for name, start in named(sql):
        used.add(name)
        if name == "?" or name.isdigit():
            yield "parameters of a saved query have names, as $name", name, start
        elif name not in declared:
            yield "parameter is not declared", name, start
    for name in declared:
        if name not in used:
            yield "parameter is not used by the query", name, 0
