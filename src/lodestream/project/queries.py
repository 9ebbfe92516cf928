"""Reads saved queries: `queries/<name>.sql`, whose first comment lines say what they take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FilePath

from lodestream.model.diagnostic import Diagnostic, Place
from lodestream.model.query import KINDS, NAME, RESERVED, QueryParameter, SavedQuery, problems
from lodestream.project.fields import Fields, wrong_kind
from lodestream.project.mistakes import Mistakes
from lodestream.project.nodes import Node, from_yaml

FOLDER = "queries"
_KEYS = ("title", "description", "parameters")
_PARAMETER_KEYS = ("type", "default", "description")


def read_queries(root: str) -> tuple[dict[str, SavedQuery], Sequence[Diagnostic]]:
    """The queries of a project by name, those that can be read, and what is wrong with the others."""
    folder = FilePath(root, FOLDER)
    mistakes = Mistakes()
    found: dict[str, SavedQuery] = {}
    for file in sorted(folder.glob("*.sql")) if folder.is_dir() else ():
        relative = f"{FOLDER}/{file.name}"
        before = len(mistakes.found)
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            mistakes.add(Place(relative, 1), "D101", "the file is not UTF-8")
            continue
        made = read_query(file.stem, text, relative, mistakes)
        if made is not None and len(mistakes.found) == before:
            found[made.name] = made
    return found, mistakes.found


def read_query(name: str, text: str, file: str, mistakes: Mistakes) -> SavedQuery | None:
    """One query; None where nothing can be made of it. Mistakes are noted."""
    if not NAME.fullmatch(name):
        mistakes.add(Place(file, 1), "D110", "not a query name", name=name)
        return None
    lines = text.splitlines()
    count = next((place for place, line in enumerate(lines) if not line.startswith("--")), len(lines))
    title, description, parameters = "", "", {}
    if count:
        head = "\n".join(line[2:].removeprefix(" ") for line in lines[:count])
        node = from_yaml(head.encode(), file, mistakes)
        if node is None:
            return None
        fields = Fields(node, _KEYS, mistakes, "a query")
        title, description = fields.text("title") or "", fields.text("description") or ""
        parameters = _parameters(fields.nodes.get("parameters"), mistakes)
    sql = "\n".join(lines[count:]).strip()
    if not sql:
        mistakes.add(Place(file, len(lines) or 1), "D105", "the file holds no query")
        return None
    body = "\n".join(lines[count:])
    for wrong, what, start in problems(body, parameters):
        line = count + 1 + body.count("\n", 0, start) if wrong != "parameter is not used by the query" else 1
        mistakes.add(Place(file, line), "D103" if line > 1 else "D207", wrong, parameter=what)
    return SavedQuery(name, sql, tuple(parameters.values()), title, description, file)


def _parameters(node: Node | None, mistakes: Mistakes) -> dict[str, QueryParameter]:
    if node is None:
        return {}
    if not isinstance(node.value, dict):
        wrong_kind(mistakes, node, "parameters", "a mapping of names to types")
        return {}
    found = {}
    for name, told in node.value.items():
        place = node.keys[name]
        if not NAME.fullmatch(name):
            mistakes.add(place, "D110", "not a parameter name", name=name)
        elif name in RESERVED:
            mistakes.add(place, "D111", "this name says how the answer should be; use another", name=name)
        else:
            found[name] = _parameter(name, told, mistakes)
    return found


def _parameter(name: str, node: Node, mistakes: Mistakes) -> QueryParameter:
    """`name: type`, or `name: {type: …, default: …, description: …}`."""
    default, description = None, ""
    place = node.place
    if isinstance(node.value, dict):
        fields = Fields(node, _PARAMETER_KEYS, mistakes, "a parameter")
        kind, description = fields.text("type") or "string", fields.text("description") or ""
        given = fields.nodes.get("default")
        default = None if given is None else given.text
        place = fields.place("type")
    else:
        kind = node.text
    if kind.partition("(")[0] not in KINDS:
        mistakes.add(place, "D108", "not a type that a parameter may have", type=kind, fix=f"one of {', '.join(KINDS)}")
    return QueryParameter(name, kind, default, description)


class Queries:
    """The queries of a project as they are declared now; files are read again when they have changed.

    Args:
        root: project folder.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._seen: object = None
        self._found: tuple[dict[str, SavedQuery], Sequence[Diagnostic]] = {}, ()

    def current(self) -> dict[str, SavedQuery]:
        """Those that can be read, by name."""
        folder = FilePath(self._root, FOLDER)
        files = sorted(folder.glob("*.sql")) if folder.is_dir() else []
        seen = [(file.name, (stat := file.stat()).st_mtime_ns, stat.st_size) for file in files]
        if seen != self._seen:
            self._found = read_queries(self._root)
            self._seen = seen
        return self._found[0]
