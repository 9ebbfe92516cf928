"""Random nested expressions over the admitted functions: typed, of a fixed seed, so that each asks for composition."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

COLUMNS: Final = {
    "int": ["i", "j"], "bigint": ["l"], "double": ["x"], "decimal": ["m"], "string": ["s", "u"], "date": ["d"],
    "timestamp": ["t"], "boolean": ["p"], "ints": ["a"], "strings": ["b"], "map": ["w"],
}  # fmt: skip
"""Columns of the input table by type; `decimal` is decimal(12,2), `map` is map<string,int>."""

LITERALS: Final = {
    "int": ["0", "1", "2", "-3", "7"], "bigint": ["0L", "5L", "-1L"], "double": ["0.5D", "2D", "-1.25D"],
    "decimal": ["cast(1.5 as decimal(12,2))"], "string": ["''", "'a'", "'Xy'", "'é,b'"],
    "date": ["date '2024-02-29'"], "timestamp": ["timestamp '2024-02-29 12:34:56.5'"], "boolean": ["true", "false"],
    "ints": ["array(3, 1, 2)"], "strings": ["array('a', 'b')"], "map": ["map('a', 1, 'k', 2)"],
}  # fmt: skip


def _read() -> dict[str, list[str]]:
    made: dict[str, list[str]] = {}
    kind = ""
    for line in Path(__file__).with_suffix(".txt").read_text("utf-8").splitlines():
        if line.startswith("["):
            kind = line[1:-1]
        elif line and not line.startswith("#"):
            made.setdefault(kind, []).append(line)
    return made


FORMS: Final = _read()
"""Result type -> forms; `{type}` is a hole."""


def expressions(seed: int, count: int) -> list[str]:
    """`count` distinct expressions, two to four forms deep at their deepest."""
    source = random.Random(seed)
    found: dict[str, None] = {}
    kinds = list(FORMS)
    while len(found) < count:
        text, depth = _expression(source, kinds[len(found) % len(kinds)], source.choice([2, 3, 3, 4]))
        if depth >= 2:
            found[text] = None
    return list(found)


def _expression(source: random.Random, kind: str, deepest: int) -> tuple[str, int]:
    """An expression of a type, and how many forms deep it is."""
    if deepest == 0 or (deepest < 3 and source.random() < 0.15):
        return source.choice(COLUMNS[kind] if source.random() < 0.8 else LITERALS[kind]), 0
    text, made, depth = source.choice(FORMS[kind]), "", 0
    while "{" in text:
        before, _, rest = text.partition("{")
        hole, _, text = rest.partition("}")
        inner, below = _expression(source, hole, deepest - 1)
        plain = " " not in inner and not inner.startswith(("-", "~"))
        made += before + (inner if plain else f"({inner})")
        depth = max(depth, below)
    return made + text, depth + 1
