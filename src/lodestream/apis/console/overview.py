"""How the tables stand, in the shape that the console shows: one entry a table, sums by layer, the last minutes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lodestream.apis.console.sight import Sight
from lodestream.model.live import FATES, LiveLake, TableLive
from lodestream.model.table import LAYERS

_COUNTS = ("input", *FATES, "late_window")
_GROWING = ("freshness_s", "age_s")
"""Members that change with the time alone; they tell nobody that something has happened."""
_NAMED = 3
_MOVED_S = 60.0
"""How old what came last is says nothing of a table that nothing has come to for so long."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What somebody sees at one moment.

    Attributes:
        now_us: the moment.
        sentence: how all is, in words.
        tables: entries by name.
        totals: sums by layer.
        history: `t_us`, and rates by layer.
    """

    now_us: int
    sentence: str
    tables: Mapping[str, Mapping[str, Any]]
    totals: Mapping[str, Any]
    history: Mapping[str, Any]

    def to_json(self, project: str) -> dict[str, Any]:
        """All of it."""
        return {
            "project": project, "now_us": self.now_us, "sentence": self.sentence, "tables": list(self.tables.values()),
            "totals": self.totals, "history": self.history,
        }  # fmt: skip

    def since(self, before: Frame) -> dict[str, Any] | None:
        """What has changed: whole entries of tables, names of those that are gone, new steps of the history."""
        changed = [entry for name, entry in self.tables.items() if _fixed(entry) != _fixed(before.tables.get(name))]
        removed = [name for name in before.tables if name not in self.tables]
        last = before.history["t_us"][-1] if before.history["t_us"] else 0
        first = next((i for i, t in enumerate(self.history["t_us"]) if t > last), len(self.history["t_us"]))
        told: dict[str, Any] = {"now_us": self.now_us}
        if changed:
            told["tables"] = changed
        if removed:
            told["removed"] = removed
        if _without_time(self.totals) != _without_time(before.totals) or changed:
            told["totals"] = self.totals
        if self.sentence != before.sentence:
            told["sentence"] = self.sentence
        if first < len(self.history["t_us"]):
            told["history"] = {
                "t_us": self.history["t_us"][first:],
                "rate": {layer: rates[first:] for layer, rates in self.history["rate"].items()},
            }
        return told if len(told) > 1 else None


def frame(live: LiveLake, sight: Sight, now_us: int, seconds: int = 600) -> Frame:
    """What somebody with this sight sees now."""
    tables = live.tables()
    seen = [tables[name] for name in sight.tables if name in tables]
    entries = {str(one.table): _entry(one, sight, now_us) for one in seen}
    history: dict[str, Any] = {"t_us": [], "rate": {}}
    for layer in LAYERS:
        found = live.history([name for name in sight.counted if name.layer == layer], seconds)
        history["t_us"], history["rate"][layer] = found.t_us, found.per_s
    return Frame(now_us, sentence(seen), entries, _totals(entries.values()), history)


def sentence(tables: Iterable[TableLive]) -> str:
    """How all is, in words."""
    by_state: dict[str, list[str]] = {}
    for one in tables:
        by_state.setdefault(one.state, []).append(str(one.table))
    total = sum(map(len, by_state.values()))
    if not total:
        return "There is no table to see yet."
    wrong = [
        f"{_listed(by_state[state])} {says}"
        for state, says in (
            ("damaged", "cannot be read"), ("failed", "failed"), ("stalled", "stands still while rows wait"),
        )
        if state in by_state
    ]  # fmt: skip
    if wrong:
        return "; ".join(wrong) + "."
    missing = len(by_state.get("missing", ()))
    if missing:
        return f"{missing} of {total} tables are not in the lake yet." if missing < total else "No table is filled yet."
    moving = len(by_state.get("running", ()))
    return f"All {total} tables are up to date" + (f"; {moving} moving." if moving else ".")


def _entry(one: TableLive, sight: Sight, now_us: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        "table": str(one.table), "layer": one.table.layer, "state": one.state,
        "version": one.version if one.version >= 0 else None, "filtered": one.table not in sight.counted,
        "last_commit_us": one.last_commit_us, "age_s": _since(one.last_commit_us, now_us),
        "error": _error(one, sight),
    }  # fmt: skip
    if one.table not in sight.counted:
        figures = ("rows", "files", "size_bytes", "rate_per_s", "max_event_us", "freshness_s", "watermark_us",
                   "accounted", "quarantine_open", "backlog")  # fmt: skip
        return told | dict.fromkeys(figures) | {"counts": {}}
    return told | {
        "rows": one.rows, "files": one.files, "size_bytes": one.size_bytes, "rate_per_s": round(one.rate_per_s, 2),
        "max_event_us": one.max_event_us, "freshness_s": _since(one.max_event_us, now_us),
        "watermark_us": one.watermark_us, "accounted": one.accounted, "quarantine_open": one.quarantine_open,
        "backlog": one.backlog, "counts": {kind: one.counts[kind] for kind in _COUNTS if kind in one.counts},
    }  # fmt: skip


def _error(one: TableLive, sight: Sight) -> str | None:
    """Why a table stands still; the words may name files and values, so only who sees all of it is told them."""
    if one.error is None or one.table in sight.whole:
        return one.error
    return "the table cannot be read" if one.state == "damaged" else "its pipeline met an error"


def _since(then_us: int | None, now_us: int) -> float | None:
    return None if then_us is None else round((now_us - then_us) / 1e6, 1)


def _totals(entries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    rates: dict[str, float] = {}
    freshness: dict[str, float] = {}
    aside = 0
    for entry in entries:
        layer = entry["layer"]
        rates[layer] = round(rates.get(layer, 0.0) + (entry["rate_per_s"] or 0.0), 2)
        if entry["freshness_s"] is not None and (entry["age_s"] or 0.0) <= _MOVED_S:
            freshness[layer] = max(freshness.get(layer, entry["freshness_s"]), entry["freshness_s"])
        aside += entry["quarantine_open"] or 0
    return {"rate_per_s": rates, "freshness_s": freshness, "quarantine_open": aside}


def _fixed(entry: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if entry is None else {name: value for name, value in entry.items() if name not in _GROWING}


def _without_time(totals: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in totals.items() if name != "freshness_s"}


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(sorted(names)[:_NAMED]) + (f" and {more} more" if more > 0 else "")
