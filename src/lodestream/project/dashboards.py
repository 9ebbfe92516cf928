"""Reads dashboards as code: `dashboards/<name>.yaml`, with every mistake by file and line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Literal

from lodestream.model.diagnostic import Diagnostic, Place
from lodestream.project.fields import Fields, wrong_kind
from lodestream.project.mistakes import Mistakes
from lodestream.project.nodes import Node, from_yaml
from lodestream.project.values import NAME

FOLDER = "dashboards"
Kind = Literal["number", "line", "bar", "table", "text"]
KINDS: tuple[Kind, ...] = ("number", "line", "bar", "table", "text")
_KEYS = ("title", "comment", "refresh", "panels")
_PANEL_KEYS = ("title", "kind", "sql", "text", "x", "y", "series", "unit", "width", "height")
_REFRESH_US = 2_000_000
_REFRESH_MIN_US = 500_000
_WIDTH_MAX, _HEIGHT_MAX = 12, 24


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: above it.
        kind: how it is drawn.
        sql: what it shows; empty for `text`.
        text: what a `text` panel says.
        x: column of the horizontal axis, for `line` and `bar`.
        y: columns that are drawn.
        series: column whose values part the rows into lines or colours.
        unit: after a number, such as `%`.
        width: in twelfths of the page.
        height: in rows of the grid.
    """

    title: str
    kind: Kind
    sql: str = ""
    text: str = ""
    x: str | None = None
    y: tuple[str, ...] = ()
    series: str | None = None
    unit: str | None = None
    width: int = 6
    height: int = 4

    def to_json(self) -> dict[str, Any]:
        """The panel as JSON values."""
        return {
            "title": self.title, "kind": self.kind, "sql": self.sql or None, "text": self.text or None, "x": self.x,
            "y": list(self.y), "series": self.series, "unit": self.unit, "width": self.width, "height": self.height,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard: its file's name, what it says, its panels in reading order, how often it is asked for anew."""

    name: str
    title: str
    comment: str = ""
    refresh_us: int = _REFRESH_US
    panels: tuple[Panel, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The dashboard as JSON values."""
        return {
            "name": self.name, "title": self.title, "comment": self.comment, "refresh_s": self.refresh_us / 1e6,
            "panels": [panel.to_json() for panel in self.panels],
        }  # fmt: skip


def read_dashboards(root: str) -> tuple[dict[str, Dashboard], Sequence[Diagnostic]]:
    """The dashboards of a project by name, those that can be read, and what is wrong with the others."""
    folder = FilePath(root, FOLDER)
    mistakes = Mistakes()
    found: dict[str, Dashboard] = {}
    for file in sorted(folder.glob("*")) if folder.is_dir() else ():
        relative = f"{FOLDER}/{file.name}"
        if file.name.startswith(".") or file.suffix not in (".yaml", ".yml"):
            continue
        if file.suffix == ".yml":
            mistakes.add(Place(relative, 1), "D112", "dashboard files end in .yaml", fix="rename the file")
            continue
        if not NAME.fullmatch(file.stem):
            mistakes.add(Place(relative, 1), "D110", "not a dashboard name", name=file.stem)
            continue
        before = len(mistakes.found)
        node = from_yaml(file.read_bytes(), relative, mistakes)
        made = read_dashboard(file.stem, node, mistakes) if node is not None else None
        if made is not None and len(mistakes.found) == before:
            found[file.stem] = made
    return found, mistakes.found


def read_dashboard(name: str, node: Node, mistakes: Mistakes) -> Dashboard | None:
    """One dashboard; None where nothing can be made of it. Mistakes are noted."""
    fields = Fields(node, _KEYS, mistakes, "a dashboard")
    if not fields.need("title", "panels"):
        return None
    refresh = fields.duration("refresh") or _REFRESH_US
    if refresh < _REFRESH_MIN_US:
        mistakes.add(fields.place("refresh"), "D106", "a dashboard is asked for anew every 500 ms at most")
    listed = fields.nodes["panels"]
    if not isinstance(listed.value, list) or not listed.value:
        wrong_kind(mistakes, listed, "panels", "a list of panels")
        return None
    panels = [_panel(one, mistakes) for one in listed.value]
    return Dashboard(
        name, fields.text("title") or name, fields.text("comment") or "", refresh,
        tuple(panel for panel in panels if panel is not None),
    )  # fmt: skip


def _panel(node: Node, mistakes: Mistakes) -> Panel | None:
    fields = Fields(node, _PANEL_KEYS, mistakes, "a panel")
    if not fields.need("title", "kind"):
        return None
    kind = fields.choice("kind", KINDS)
    if kind is None:
        return None
    needed = "text" if kind == "text" else "sql"
    if not fields.need(needed):
        return None
    for key in ("sql", "x", "y", "series") if kind == "text" else ("text",):
        if key in fields:
            mistakes.add(fields.place(key), "D207", f"{key} has no meaning in a panel of this kind", kind=kind)
    if kind in ("line", "bar"):
        fields.need("x", "y")
    width, height = fields.whole("width") or 6, fields.whole("height") or 4
    for key, size, most in (("width", width, _WIDTH_MAX), ("height", height, _HEIGHT_MAX)):
        if size > most:
            mistakes.add(fields.place(key), "D106", f"{key} is {most} at most", value=size)
    y = fields.nodes.get("y")
    ys = (y.value,) if y is not None and isinstance(y.value, str) else tuple(text for text, _ in fields.strings("y"))
    return Panel(
        fields.text("title") or "", _kind(kind), fields.text("sql") or "", fields.text("text") or "", fields.text("x"),
        ys, fields.text("series"), fields.text("unit"), width, height,
    )  # fmt: skip


def _kind(text: str) -> Kind:
    return next(kind for kind in KINDS if kind == text)


class Dashboards:
    """The dashboards of a project as they are declared now; files are read again when they have changed.

    Args:
        root: project folder.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._seen: object = None
        self._found: tuple[dict[str, Dashboard], Sequence[Diagnostic]] = {}, ()

    def current(self) -> dict[str, Dashboard]:
        """Those that can be read, by name."""
        self._look()
        return self._found[0]

    def mistakes(self) -> Sequence[Diagnostic]:
        """What is wrong with the others."""
        self._look()
        return self._found[1]

    def _look(self) -> None:
        folder = FilePath(self._root, FOLDER)
        files = sorted(folder.glob("*")) if folder.is_dir() else []
        seen = [(file.name, (stat := file.stat()).st_mtime_ns, stat.st_size) for file in files]
        if seen != self._seen:
            self._found = read_dashboards(self._root)
            self._seen = seen
