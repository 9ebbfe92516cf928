"""Random event streams: files of JSON lines, the tables that take them in, and what those tables mean.

A stream is made from its seed alone. It is full of what real feeds do wrong: keys that come back at other event times,
stragglers, leaps, exact and changed copies, missing times, torn lines, times before 1970, files without rows. Files are
meant to be put into the source folder one after the other, so that batches have bounds worth testing.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lodestream.model.table import (
    WINDOW_TIME,
    Changes,
    Dedup,
    EventTime,
    Join,
    Late,
    Lookup,
    OnFail,
    Session,
    TableName,
    Window,
)
from lodestream.semantics.lookups import Row
from lodestream.semantics.stages import Compute, Measure, Rule, Spec
from lodestream.testing.events import EVENT_COLUMNS, SECOND_US, USER_COLUMNS, File, event_files, user_files

BRONZE, USERS = TableName("bronze", "events"), TableName("bronze", "users")
SILVER, GOLD, DIRECT = TableName("silver", "events"), TableName("gold", "windows"), TableName("gold", "direct")
PAIRS = TableName("silver", "pairs")
LAST, HISTORY, THEN = TableName("silver", "last"), TableName("silver", "history"), TableName("gold", "then")
CHAINED, SOURCED = TableName("gold", "chained"), TableName("bronze", "sourced")


@dataclass(frozen=True, slots=True)
class Stream:
    """A project and the files that flow through it.

    Attributes:
        files: of the events, in order of arrival.
        users: of the lookup table; `users[i]` arrives with `files[i]` (some hold no line); empty without a lookup.
        declarations: texts of the project's files by path; sources read `data/events` and `data/users`.
        specs: meaning of each table that streams from another, or reads the events and knows their time.
        upstream: which table each of those streams from; the one that reads the events is not in it.
    """

    seed: int
    files: tuple[File, ...]
    users: tuple[File, ...]
    declarations: Mapping[str, str]
    specs: Mapping[TableName, Spec]
    upstream: Mapping[TableName, TableName]


def make_stream(seed: int) -> Stream:
    """The stream of that seed: 3 to 5 files, some 20 to 120 rows, and three to six tables."""
    rng = random.Random(seed)
    delay_s = rng.choice([0, 2, 10, 10, 30, 60])
    files = event_files(rng, rng.randint(3, 5), max(delay_s, 5))
    users = user_files(rng, len(files))
    silver = _Draft(SILVER, BRONZE, delay_s)
    silver.draw_rows(rng)
    gold = _Draft(GOLD, SILVER, rng.choice([delay_s, 2, 0, 0]))
    gold.declare_event_time("time")
    gold.draw_window(rng)
    drafts = [silver, gold]
    if rng.random() < 0.4:  # every stage in one table
        direct = _Draft(DIRECT, BRONZE, delay_s)
        direct.draw_rows(rng)
        direct.draw_window(rng)
        drafts.append(direct)
    if seed % 3 == 0:
        pairs = _Draft(PAIRS, SILVER, delay_s)
        pairs.draw_join(random.Random(f"join {seed}"), BRONZE)
        drafts.append(pairs)
    if (gold.parts["emit"], gold.parts["late"]) == ("final", "quarantine"):
        chained = _Draft(CHAINED, GOLD, 0)
        chained.draw_chain(rng, gold)
        drafts.append(chained)
    sources = {BRONZE: _bronze("events", EVENT_COLUMNS, keep_raw=rng.random() < 0.3)}
    if any("lookups" in draft.parts for draft in drafts):
        sources[USERS] = _bronze("users", USER_COLUMNS)
    else:
        users = ()
    return _stream(seed, files, users, sources, drafts)


def make_changes(seed: int) -> Stream:
    """The same events, taken for changes by a table of last values and one of history, which a third one looks up."""
    rng = random.Random(f"changes {seed}")
    delay_s = rng.choice([0, 10, 60, 60])
    files = event_files(rng, rng.randint(3, 5), max(delay_s, 5))
    drafts = [_Draft(name, BRONZE, delay_s) for name in (LAST, HISTORY)]
    for draft in drafts:
        draft.draw_changes(rng, history=draft.name == HISTORY)
    then = _Draft(THEN, BRONZE, delay_s)
    then.look_up_as_of(drafts[1].parts["changes"])
    drafts.append(then)
    sources = {BRONZE: _bronze("events", EVENT_COLUMNS), USERS: _bronze("users", USER_COLUMNS)}
    return _stream(seed, files, (), sources, drafts)


def make_sourced(seed: int) -> Stream:
    """The same events, read by a table that knows their time, and windows of its rows."""
    rng = random.Random(f"sourced {seed}")
    delay_s = rng.choice([0, 2, 10, 30])
    files = event_files(rng, rng.randint(3, 5), max(delay_s, 5))
    users = user_files(rng, len(files))
    sourced = _Draft(SOURCED, None, delay_s)
    while "event_time" not in sourced.parts:
        sourced = _Draft(SOURCED, None, delay_s)
        sourced.draw_rows(rng)
    gold = _Draft(GOLD, SOURCED, rng.choice([delay_s, 2, 0]))
    gold.declare_event_time("time")
    gold.draw_window(rng)
    gold.lines.append("skip_silver: true")
    if "lookups" not in sourced.parts:
        return _stream(seed, files, (), {}, (sourced, gold))
    return _stream(seed, files, users, {USERS: _bronze("users", USER_COLUMNS)}, (sourced, gold))


def _stream(
    seed: int,
    files: tuple[File, ...],
    users: tuple[File, ...],
    sources: Mapping[TableName, str],
    drafts: Sequence[_Draft],
) -> Stream:
    """The project of these tables."""
    texts = {**sources, **{draft.name: draft.text() for draft in drafts}}
    tables = {f"tables/{name.layer}/{name.name}.yaml": text for name, text in texts.items()}
    return Stream(
        seed,
        files,
        users,
        {"lodestream.yaml": "project: random\nlake: lake\n", **tables},
        {draft.name: draft.spec() for draft in drafts},
        {draft.name: draft.upstream for draft in drafts if draft.upstream},
    )


# --- tables -----------------------------------------------------------------------------------------------------------


def _upper(row: Row) -> Any:
    return None if row["region"] is None else row["region"].upper()


def _code(row: Row) -> Any:
    return None if row["code"] is None else int(row["code"])


def _in(value: Any, options: Iterable[Any]) -> bool | None:
    return None if value is None else value in options


_DERIVED: dict[str, tuple[str, Compute]] = {
    "region": ("upper(region)", _upper),
    "double": ("amount * 2", lambda r: None if r["amount"] is None else r["amount"] * 2),
    "number": ("cast(code as int)", _code),
}
_RULES: tuple[tuple[str, str, Compute], ...] = (
    ("has_key", "key is not null", lambda r: r["key"] is not None),
    ("positive", "amount >= 0", lambda r: None if r["amount"] is None else r["amount"] >= 0),
    ("known", "region in ('EU', 'US', 'AP', 'eu', 'ap')", lambda r: _in(r["region"], ("EU", "US", "AP", "eu", "ap"))),
    ("small", "cast(code as int) < 50", lambda r: None if r["code"] is None else int(r["code"]) < 50),
)


def _present(values: Sequence[Any]) -> list[Any]:
    return [value for value in values if value is not None]


_MEASURES: dict[str, tuple[str, Measure]] = {
    "orders": ("count(*)", Measure(lambda r: 1, len)),
    "revenue": ("sum(amount)", Measure(lambda r: r["amount"], lambda v: sum(_present(v)) if _present(v) else None)),
    "largest": ("max(amount)", Measure(lambda r: r["amount"], lambda v: max(_present(v), default=None))),
    "first_at": ("min(time)", Measure(lambda r: r["time"], lambda v: min(_present(v), default=None))),
    "keyed": ("count(key)", Measure(lambda r: r["key"], lambda v: len(_present(v)))),
    "codes": ("sum(cast(code as int))", Measure(_code, lambda v: sum(_present(v)) if _present(v) else None)),
}
_GROUPS: dict[str, tuple[str, Compute]] = {
    "region": ("region", lambda r: r["region"]),
    "area": ("upper(region)", _upper),
    "user_id": ("user_id", lambda r: r["user_id"]),
    "number": ("cast(code as int)", _code),
}


@dataclass
class _Draft:
    """A stream table in both its forms: text to declare it, and the parts of its `Spec`."""

    name: TableName
    upstream: TableName | None
    delay_s: int
    lines: list[str] = field(default_factory=list)
    parts: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """The declaration."""
        first = f"from: stream({self.upstream})"
        if self.upstream is None:
            first = _bronze("events", EVENT_COLUMNS).rstrip()
        return "\n".join([first, *self.lines, ""])

    def spec(self) -> Spec:
        """The meaning."""
        return Spec(**self.parts)

    def draw_rows(self, rng: random.Random) -> None:
        """Derived columns, expectations, event time, and perhaps dedup and a lookup."""
        derived = {name: _DERIVED[name] for name in _DERIVED if rng.random() < 0.35}
        derived["time"] = ("at", lambda r: r["at"])
        if rng.random() < 0.2:
            derived["time"] = ("coalesce(at, seen)", lambda r: r["seen"] if r["at"] is None else r["at"])
        self.lines += ["derive:", *(f"  {name}: {text}" for name, (text, _) in derived.items())]
        self.parts["derive"] = {name: compute for name, (_, compute) in derived.items()}
        rules = [rule for rule in _RULES if rng.random() < 0.4]
        if rules:
            effects: list[OnFail] = [rng.choice(["quarantine", "quarantine", "drop", "warn"]) for _ in rules]
            self.lines.append("expect:")
            for (name, text, _), effect in zip(rules, effects, strict=True):
                self.lines.append(f'  {name}: {{that: "{text}", else: {effect}}}')
            self.parts["expect"] = tuple(Rule(n, that, e) for (n, _, that), e in zip(rules, effects, strict=True))
        if rng.random() < 0.8:
            self.declare_event_time("time")
            if rng.random() < 0.8:
                self._draw_dedup(rng)
        if rng.random() < 0.4:
            self.lines.append(f"enrich: {{lookup: {{table: {USERS}, on: {{user_id: id}}, columns: [tier]}}}}")
            self.parts["lookups"] = (Lookup(USERS, (("user_id", "id"),), (("tier", "tier"),)),)

    def _draw_dedup(self, rng: random.Random) -> None:
        keys = rng.choice([("key",), ("key",), ("key", "region"), ("key", "time"), ("user_id", "amount")])
        within_s = rng.choice([None, None, self.delay_s * 3 + 1, max(1, self.delay_s // 3)])
        if within_s is None and not self.delay_s:
            within_s = 15
        within = f", within: {within_s} seconds" if within_s is not None else ""
        self.lines.append(f"dedup: {{keys: [{', '.join(keys)}]{within}}}")
        self.parts["dedup"] = Dedup(keys, None if within_s is None else within_s * SECOND_US)

    def draw_changes(self, rng: random.Random, *, history: bool) -> None:
        """Keys, order and deletions, perhaps a rule, perhaps a watermark; the events are changes of their keys."""
        self.lines.append("derive: {time: at, number: cast(code as int)}")
        self.parts["derive"] = {"time": lambda r: r["at"], "number": _code}
        if rng.random() < 0.3:
            self.lines.append('expect: {positive: {that: "amount >= 0", else: drop}}')
            self.parts["expect"] = (Rule("positive", _RULES[1][2], "drop"),)
        keys = rng.choice([("key",), ("qty",), ("user_id",), ("key", "region")])
        orders = [("time",), ("time",), ("time",), ("seen",), ("amount",), ("region",)]
        sequence = rng.choice(orders if history else [*orders, ("time", "amount"), ("qty", "code")])
        text, deletes = rng.choice(_DELETING)
        self.lines += [
            "changes:",
            f"  keys: [{', '.join(keys)}]",
            f"  sequence_by: [{', '.join(sequence)}]",
            f"  type: {1 + history}",
            *([f"  delete_when: {text}"] if text else []),
        ]
        self.parts |= {"changes": Changes(keys, sequence, text or None, history), "delete_when": deletes}
        if sequence[0] == "time" and rng.random() < 0.6:
            self.declare_event_time("time")

    def look_up_as_of(self, history: Changes) -> None:
        """What the history said of each event's key at the moment of the event, in the history's own order."""
        when = "at" if history.sequence_by[0] == "time" else history.sequence_by[0]
        on = ", ".join(f"{key}: {key}" for key in history.keys)
        self.lines.append(
            f"enrich: {{lookup: {{table: {HISTORY}, on: {{{on}}}, as_of: {when}, columns: {{code: code_then}}}}}}"
        )
        keys = tuple((key, key) for key in history.keys)
        self.parts["lookups"] = (Lookup(HISTORY, keys, (("code", "code_then"),), when),)

    def declare_event_time(self, column: str) -> None:
        """Event time with this table's delay."""
        self.lines.append(f"event_time: {{column: {column}, delay: {self.delay_s} seconds}}")
        self.parts["event_time"] = EventTime(column, self.delay_s * SECOND_US)

    def draw_join(self, rng: random.Random, table: TableName) -> None:
        """A join with the rows of `table`, by one or two keys and a distance that may lie on one side only."""
        self.declare_event_time("time")
        kind: Literal["inner", "left"] = rng.choice(["inner", "left"])
        on = rng.choice([("user_id",), ("key",), ("user_id", "key")])
        before_s, after_s = rng.choice([(0, 0), (0, 5), (3, 0), (10, 20), (60, 60)])
        delay_s = rng.choice([self.delay_s, 0, 20])
        self.lines += [
            "join:",
            f"  from: stream({table})",
            f"  kind: {kind}",
            f"  on: [{', '.join(on)}]",
            f"  event_time: {{column: at, delay: {delay_s} seconds}}",
            f"  within: {{before: {before_s} s, after: {after_s} s}}",
            "  columns: {amount: other_amount, key: other_key, at: other_at}",
        ]
        self.parts["join"] = Join(
            table, kind, tuple((name, name) for name in on), EventTime("at", delay_s * SECOND_US),
            -before_s * SECOND_US, after_s * SECOND_US,
            (("amount", "other_amount"), ("key", "other_key"), ("at", "other_at")),
        )  # fmt: skip

    def draw_window(self, rng: random.Random) -> None:
        """A tumbling, hopping or session window with groups and measures."""
        if "event_time" not in self.parts:
            self.declare_event_time("time")
        shape, self.parts["window"] = _window(rng)
        groups = {name: _GROUPS[name] for name in _GROUPS if rng.random() < 0.3}
        measures = {name: _MEASURES[name] for name in _MEASURES if rng.random() < 0.4} or {
            "orders": _MEASURES["orders"]
        }
        self._declare_window(rng, shape, groups, measures)

    def draw_chain(self, rng: random.Random, above: _Draft) -> None:
        """Windows of the windows of another table."""
        self.parts["event_time"] = EventTime(WINDOW_TIME, 0)
        shape, self.parts["window"] = _window(rng)
        groups = {name: _column(name) for name in above.parts["group_by"] if rng.random() < 0.6}
        measures = {
            "windows": _MEASURES["orders"],
            "ends": ("max(window_end)", Measure(lambda r: r["window_end"], max)),
        }
        for name in ("orders", "keyed"):
            if name in above.parts["measures"]:
                measures[name] = (f"sum({name})", Measure(_column(name)[1], sum))
        self._declare_window(rng, shape, groups, measures)

    def _declare_window(
        self, rng: random.Random, shape: str, groups: Mapping[str, tuple[str, Compute]],
        measures: Mapping[str, tuple[str, Measure]],
    ) -> None:  # fmt: skip
        emit: Literal["updates", "final"] = rng.choice(["updates", "final", "final"])
        late: Late = "quarantine"
        completeness = rng.random() < 0.3
        window = self.parts["window"]
        if (
            isinstance(window, Window)
            and "dedup" not in self.parts
            and rng.random() < (0.2 if window.slide_us else 0.5)
        ):
            late = "update"
        self.lines += [
            f"window: {shape}",
            *(["group_by:", *(f"  {name}: {text}" for name, (text, _) in groups.items())] if groups else []),
            "measures:",
            *(f"  {name}: {text}" for name, (text, _) in measures.items()),
            f"emit: {emit}",
            f"late: {late}",
            f"completeness: {str(completeness).lower()}",
        ]
        self.parts["group_by"] = {name: compute for name, (_, compute) in groups.items()}
        self.parts["measures"] = {name: measure for name, (_, measure) in measures.items()}
        self.parts["emit"], self.parts["late"], self.parts["completeness"] = emit, late, completeness


def _column(name: str) -> tuple[str, Compute]:
    return name, lambda r: r[name]


def _window(rng: random.Random) -> tuple[str, Window | Session]:
    """A window as declared, and what it means."""
    if rng.random() < 0.4:
        gap_s = rng.choice([1, 4, 10, 40])
        return f"{{gap: {gap_s} seconds}}", Session(gap_s * SECOND_US)
    every_s = rng.choice([5, 10, 30])
    slide_s = rng.choice([None, None, every_s // 2, 3])
    slide = f", slide: {slide_s} seconds" if slide_s else ""
    return f"{{every: {every_s} seconds{slide}}}", Window(every_s * SECOND_US, slide_s * SECOND_US if slide_s else None)


_DELETING: tuple[tuple[str, Compute], ...] = (
    ("", lambda r: False),
    ("code = '2'", lambda r: None if r["code"] is None else r["code"] == "2"),
    ("qty < 2", lambda r: None if r["qty"] is None else r["qty"] < 2),
    ("cast(code as int) = 1", lambda r: None if r["code"] is None else int(r["code"]) == 1),
)


def _bronze(name: str, columns: Mapping[str, str], *, keep_raw: bool = False) -> str:
    listed = "".join(f"  {column}: {kind}\n" for column, kind in columns.items())
    raw = "keep_raw: true\n" if keep_raw else ""
    return f"source: {{files: {{path: data/{name}, settle: 0}}}}\nformat: json\n{raw}columns:\n{listed}"
