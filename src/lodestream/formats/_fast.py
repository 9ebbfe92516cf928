"""Decodes JSON lines of known shapes with no Python object per record; leaves every other line to the exact path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lodestream.formats._lines import Ints, Lines, Mask, is_utf8, mark, slices
from lodestream.formats._parse import BadRecordError, Parser
from lodestream.formats._records import rows_table
from lodestream.formats._scan import Scan
from lodestream.formats._template import Path, Template, Walk, learn
from lodestream.formats._text import text_converter
from lodestream.formats._text_times import Converted
from lodestream.model.arrow import to_arrow_type
from lodestream.model.types import DataType, Schema
from lodestream.ports.source import Reading

_ROWS_MIN = 32
_TRIES_MAX = 8
_TEMPLATES_MAX = 32


@dataclass(frozen=True, slots=True)
class _Leaf:
    kind: DataType
    convert: Callable[[pa.Array], Converted]
    nullable: bool


@dataclass(frozen=True, slots=True)
class _Group:
    rows: Ints
    template: Template
    walk: Walk


class FastDecoder:
    """Keeps the templates it has learnt; they change the speed, never the result."""

    def __init__(self, reading: Reading, timestamps: str, depth_max: int, row_bytes_max: int) -> None:
        self._reading = reading
        self._bare_times = timestamps != "iso"
        self._row_bytes_max = row_bytes_max
        self._parse = Parser(depth_max, exact=False)
        self._templates: list[Template] = []
        self._leaves: dict[Path, _Leaf] = {}
        self._collect_leaves((), reading.schema, timestamps)

    def _collect_leaves(self, path: Path, schema: Schema, timestamps: str) -> None:
        for column in schema:
            at = (*path, column.name)
            if column.type.name == "struct":
                self._collect_leaves(at, Schema(column.type.fields), timestamps)
            elif convert := text_converter(column.type, timestamps):
                self._leaves[at] = _Leaf(column.type, convert, column.nullable)

    def decode(self, lines: Lines, scan: Scan, unit: str) -> tuple[pa.Table | None, Ints]:
        """Rows of the lines that have a template, in order (None for none), and the indices of all other lines."""
        groups = self._match(lines, scan, self._regular(lines, scan))
        if not groups:
            return None, np.arange(len(lines))
        rows = groups[0].rows if len(groups) == 1 else np.sort(np.concatenate([group.rows for group in groups]))
        columns, keep = _Assembly(self._reading.schema, self._leaves, lines, rows, groups).build()
        rows = rows if keep is None else rows[keep]
        taken = lines if len(rows) == len(lines) else lines.some(rows)
        raw = slices(taken.block, taken.starts, taken.ends, pa.binary()) if self._reading.keep_raw else None
        left = np.ones(len(lines), np.bool_)
        left[rows] = False
        return rows_table(self._reading, columns, unit, taken.positions, raw), np.flatnonzero(left)

    def _regular(self, lines: Lines, scan: Scan) -> Ints:
        """Lines without backslash, control byte, invalid UTF-8 or excessive length."""
        good = lines.ends - lines.starts <= self._row_bytes_max
        mark(good, lines, scan.odd)
        if len(scan.high) and not is_utf8(lines.block):
            rows = np.unique(np.searchsorted(lines.starts, scan.high, "right") - 1)
            for i in rows[rows >= 0].tolist():
                if not is_utf8(lines.block[lines.starts[i] : lines.ends[i]]):
                    good[i] = False
        return np.arange(len(lines)) if good.all() else np.flatnonzero(good)

    def _match(self, lines: Lines, scan: Scan, todo: Ints) -> list[_Group]:
        """Groups of lines by template, learning new ones from lines that have none yet."""
        if not len(todo):
            return []
        edges = scan.quotes_before(np.append(lines.starts, lines.ends[-1:]))
        quotes = np.diff(edges)
        groups: list[_Group] = []
        used: list[Template] = []
        for template in self._templates:
            todo = self._take(template, lines, scan, todo, quotes, groups)
            if groups and groups[-1].template is template:
                used.append(template)
        for attempt in range(_TRIES_MAX):
            if len(todo) < _ROWS_MIN:
                break
            i = int(todo[attempt * 7919 % len(todo)])
            learnt = self._learn(lines.block[lines.starts[i] : lines.ends[i]].tobytes())
            if learnt is not None:
                todo = self._take(learnt, lines, scan, todo, quotes, groups)
                used.append(learnt)
        self._templates = [*used, *(t for t in self._templates if t not in used)][:_TEMPLATES_MAX]
        return groups

    def _take(
        self, template: Template, lines: Lines, scan: Scan, todo: Ints, quotes: Ints, groups: list[_Group]
    ) -> Ints:
        """Add the lines of this template to the groups; gives the lines still to do."""
        if not len(todo):
            return todo
        same = quotes[todo] == template.quotes if len(todo) < len(lines) else quotes == template.quotes
        fit = todo if same.all() else todo[same]
        if not len(fit):
            return todo
        chosen = lines if len(fit) == len(lines) else lines.some(fit)
        walk = Walk(template, lines.block, scan, chosen.starts, chosen.ends)
        if not len(walk.rows):
            return todo
        rows = fit if len(walk.rows) == len(fit) else fit[walk.rows]
        groups.append(_Group(rows, template, walk))
        if len(rows) == len(todo):
            return todo[:0]
        left = np.zeros(len(lines), np.bool_)
        left[todo] = True
        left[rows] = False
        return np.flatnonzero(left)

    def _learn(self, line: bytes) -> Template | None:
        try:
            self._parse(line)
        except BadRecordError:
            return None
        return learn(line, self._reading.schema, self._bare_times)


class _Assembly:
    """Builds the declared columns from where the values stand."""

    def __init__(
        self, schema: Schema, leaves: Mapping[Path, _Leaf], lines: Lines, rows: Ints, groups: list[_Group]
    ) -> None:
        self._schema = schema
        self._leaves = leaves
        self._lines = lines
        self._rows = rows
        self._groups = groups
        self._places = [{slot.path: i for i, slot in enumerate(group.template.slots)} for group in groups]
        self._made: dict[Path, pa.Array] = {}
        self._keep: Ints | None = None

    def build(self) -> tuple[list[pa.Array], Ints | None]:
        """One array per declared column, and which of the rows they hold (None for all)."""
        hard: Mask | None = None
        for path, leaf in self._leaves.items():
            if leaf.kind.name != "string" and any(path in places for places in self._places):
                made, bad = self._convert(path, leaf)
                self._made[path] = made
                if bad is not None:
                    hard = bad if hard is None else hard | bad
        if hard is not None and hard.any():
            self._keep = np.flatnonzero(~hard)
            chosen = pa.array(self._keep)
            self._made = {path: made.take(chosen) for path, made in self._made.items()}
        return [self._column((c.name,), c.type) for c in self._schema], self._keep

    def _column(self, path: Path, kind: DataType) -> pa.Array:
        count = len(self._rows) if self._keep is None else len(self._keep)
        if kind.name == "struct":
            present = self._present(path)
            if not present.any():
                return pa.nulls(count, to_arrow_type(kind))
            inner = [self._column((*path, f.name), f.type) for f in kind.fields]
            fields = list(to_arrow_type(kind))
            return pa.StructArray.from_arrays(inner, fields=fields, mask=pa.array(~present))
        if path in self._made:
            return self._made[path]
        if kind.name == "string" and any(path in places for places in self._places):
            begins, ends, valid = self._where(path, self._keep)
            return slices(self._lines.block, begins, ends, pa.string(), valid)
        return pa.nulls(count, to_arrow_type(kind))

    def _convert(self, path: Path, leaf: _Leaf) -> tuple[pa.Array, Mask | None]:
        begins, ends, valid = self._where(path, None)
        texts = slices(self._lines.block, begins, ends, pa.string(), valid)
        made, hard = leaf.convert(texts)
        if hard is None or not leaf.nullable:
            return made, hard
        maybe = np.flatnonzero(hard & (ends - begins == 4))  # a bare value may be null, which is already there
        maybe = maybe[self._lines.block[begins[maybe]] == ord("n")]
        if len(maybe):
            word = self._lines.block[begins[maybe][:, None] + np.arange(4)]
            hard[maybe[(word == np.frombuffer(b"null", np.uint8)).all(axis=1)]] = False
        return made, hard

    def _where(self, path: Path, keep: Ints | None) -> tuple[Ints, Ints, Mask | None]:
        """Begin and end of each row's value at `path`, and which rows have one (None: all)."""
        if len(self._groups) == 1:
            i = self._places[0][path]
            begins, ends = self._groups[0].walk.begins[i], self._groups[0].walk.ends[i]
            return (begins, ends, None) if keep is None else (begins[keep], ends[keep], None)
        begins = self._lines.starts.copy()
        ends = begins.copy()
        valid = np.zeros(len(begins), np.bool_)
        for group, places in zip(self._groups, self._places, strict=True):
            if path in places:
                begins[group.rows] = group.walk.begins[places[path]]
                ends[group.rows] = group.walk.ends[places[path]]
                valid[group.rows] = True
        rows = self._rows if keep is None else self._rows[keep]
        return begins[rows], ends[rows], None if valid[rows].all() else valid[rows]

    def _present(self, path: Path) -> Mask:
        present = np.zeros(len(self._lines), np.bool_)
        for group in self._groups:
            if path in group.template.structs:
                present[group.rows] = True
        return present[self._rows if self._keep is None else self._rows[self._keep]]
