"""Finds tables, columns, saved queries and dashboards by what they are called, what they are for and whose they are."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lodestream.catalog.lineage import Sees
from lodestream.model.table import TableName

ItemKind = Literal["table", "column", "saved_query", "dashboard"]

_WORDS = re.compile(r"[^\W_]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_FIELDS = {"name": 10.0, "tags": 6.0, "owner": 4.0, "comment": 3.0, "of": 2.0}
_KINDS = {"table": 1.2, "dashboard": 1.15, "saved_query": 1.1, "column": 1.0}
_EXACT, _PREFIX, _WITHIN, _TYPO = 1.0, 0.7, 0.45, 0.4
_WITHIN_MIN, _TYPO_MIN, _TYPO2_MIN = 3, 4, 8


@dataclass(frozen=True, slots=True)
class Item:
    """Something that can be found.

    Attributes:
        kind: what it is.
        name: `layer.table`, `layer.table.column`, or the name of a query or dashboard.
        tables: what one must be allowed to know of, to find it.
        column: the column that it is, of the only table.
        comment: what it is for.
        tags: its tags.
        owner: who answers for it.
    """

    kind: ItemKind
    name: str
    tables: tuple[TableName, ...]
    column: str | None = None
    comment: str = ""
    tags: tuple[str, ...] = ()
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """Something that was found: the better, the higher its score; `fields` are where the words stand."""

    item: Item
    score: float
    fields: tuple[str, ...]


class Index:
    """An index over items; made anew when they change.

    A word finds what holds it, what begins with it, what holds it inside a word, and, when nothing else does, what
    differs from it in one letter (two, from eight letters on). Every word of a question must be found in an item.

    Args:
        items: everything that can be found.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = tuple(items)
        places: dict[str, dict[int, str]] = defaultdict(dict)
        for number, item in enumerate(self._items):
            for field, word in _words_of(item):
                known = places[word].get(number)
                if known is None or _FIELDS[field] > _FIELDS[known]:
                    places[word][number] = field
        self._places = dict(places)
        self._sorted = sorted(self._places)
        self._pairs: dict[str, list[str]] = defaultdict(list)
        for word in self._sorted:
            for pair in {word[i : i + 2] for i in range(len(word) - 1)}:
                self._pairs[pair].append(word)

    def find(self, text: str, sees: Sees, *, limit: int = 20) -> list[Hit]:
        """What matches a question, the best first.

        Args:
            text: words; case and punctuation do not matter.
            sees: what the asker may know of.
            limit: so many at most.
        """
        words = list(dict.fromkeys(split(text)))
        if not words:
            return []
        scores, fields = self._scored(words[0])
        for word in words[1:]:
            more, places = self._scored(word)
            scores = {number: scores[number] + more[number] for number in scores.keys() & more.keys()}
            fields = {number: fields[number] | places[number] for number in scores}
        whole = "_".join(words)
        ranked = sorted(scores, key=lambda number: self._rank(number, scores[number], whole))
        found = (
            Hit(self._items[number], round(scores[number], 3), tuple(sorted(fields[number])))
            for number in ranked
            if _may_know(self._items[number], sees)
        )
        return [hit for hit, _ in zip(found, range(limit), strict=False)]

    def _rank(self, number: int, score: float, whole: str) -> tuple[float, int, str]:
        item = self._items[number]
        last = item.name.rpartition(".")[2].lower()
        same = 2.0 if whole in (last, item.name.lower().replace(".", "_")) else 1.0
        return -score * _KINDS[item.kind] * same, len(item.name), item.name

    def _scored(self, word: str) -> tuple[dict[int, float], dict[int, frozenset[str]]]:
        """Score and fields of each item that one word finds."""
        scores: dict[int, float] = {}
        fields: dict[int, frozenset[str]] = {}
        for found, quality in self._alike(word):
            for number, field in self._places[found].items():
                score = _FIELDS[field] * quality
                fields[number] = fields.get(number, frozenset()) | {field}
                scores[number] = max(scores.get(number, 0.0), score)
        return scores, fields

    def _alike(self, word: str) -> list[tuple[str, float]]:
        found: dict[str, float] = {word: _EXACT} if word in self._places else {}
        for at in range(bisect_left(self._sorted, word), len(self._sorted)):
            if not self._sorted[at].startswith(word):
                break
            found.setdefault(self._sorted[at], _PREFIX)
        if len(word) >= _WITHIN_MIN:
            for one in self._pairs.get(word[:2], ()):
                if word in one:
                    found.setdefault(one, _WITHIN)
        if not found and len(word) >= _TYPO_MIN:
            found = self._nearly(word)
        return list(found.items())

    def _nearly(self, word: str) -> dict[str, float]:
        """Words that differ in a letter or two, or begin so; they have two letters in a row in common."""
        most = 2 if len(word) >= _TYPO2_MIN else 1
        found: dict[str, float] = {}
        for one in {one for i in range(len(word) - 1) for one in self._pairs.get(word[i : i + 2], ())}:
            if len(one) < len(word) - most:
                continue
            if differs(word, one, most) <= most:
                found[one] = _TYPO
            elif any(differs(word, one[: len(word) + more], most) <= most for more in (0, 1)):
                found[one] = _TYPO * _PREFIX
        return found


def split(text: str) -> list[str]:
    """The words of a name or sentence in lower case: parted at blanks, punctuation, underscores and capitals."""
    return [part.lower() for word in _WORDS.findall(text) for part in _CAMEL.split(word)]


def differs(one: str, other: str, most: int) -> int:
    """In how many letters two words differ: put in, left out, changed or swapped with the next; `most` + 1 for more."""
    before: Sequence[int] = ()
    row: list[int] = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        last, before, row = before, row, [i]
        for j, right in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (left != right))
            if i > 1 and j > 1 and left == other[j - 2] and one[i - 2] == right:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return row[-1]


def _words_of(item: Item) -> Iterator[tuple[str, str]]:
    own, table = item.column or item.name, item.name if item.column is None else str(item.tables[0])
    name = own if item.column is not None else table.rpartition(".")[2]
    for field, text in (
        ("name", name), ("of", table if item.kind in ("table", "column") else ""), ("comment", item.comment),
        ("tags", " ".join(item.tags)), ("owner", item.owner),
    ):  # fmt: skip
        for word in split(text):
            yield field, word


def _may_know(item: Item, sees: Sees) -> bool:
    for table in item.tables:
        columns = sees(table)
        if columns is None or (item.column is not None and item.column not in columns):
            return False
    return True
