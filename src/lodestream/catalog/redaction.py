"""Takes values out of SQL, so that the audit log can keep what was asked without what was asked for."""

from __future__ import annotations

import functools
import re

TEXT_MAX = 4_096
"""Characters of a query that are kept."""

_TOKENS = re.compile(
    r"""
      (?P<name> [^\W\d]\w*(?!['\w]) )
    | (?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<quoted> "(?:[^"]|"")*" )
    | (?P<dollar> \$(?P<tag>[A-Za-z_]\w*)?\$ .*? (?: \$(?P=tag)\$ | \Z) | \$\$ .*? (?: \$\$ | \Z) )
    | (?P<escaped> \b[eE]'(?:[^'\\]|''|\\.)*(?:'|\Z) )
    | (?P<text> (?:\b[bBxXuUnN]&?)?'(?:[^']|'')*(?:'|\Z) )
    | (?P<broken> " .* )
    | (?P<parameter> \$\d+ )
    | (?P<number> (?:\d[\w.]*|\.\d[\w.]*)(?:(?<=[eE])[+-]?\d+)? )
    """,
    re.VERBOSE | re.DOTALL,
)
_KEPT = ("quoted", "parameter", "name")


@functools.lru_cache(maxsize=512)
def without_values(sql: str) -> str:
    """A query with `?` for each number and each text in it, without comments, on one line.

    Names stay, quoted ones too. What does not end (a text without its closing quote) is a value up to the end.
    """
    told = _TOKENS.sub(lambda found: found[0] if found.lastgroup in _KEPT else _mark(found), sql)
    told = " ".join(told.split())
    return told if len(told) <= TEXT_MAX else told[:TEXT_MAX] + "…"


def _mark(found: re.Match[str]) -> str:
    return " " if found["comment"] is not None else "?"
