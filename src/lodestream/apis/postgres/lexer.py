"""Cuts text into statements and statements into words, knowing PostgreSQL's quotes and comments."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lodestream.apis.postgres.failures import PgError

_TOKEN = re.compile(
    r"""
      (?P<space>\s+|--[^\n]*)
    | (?P<comment>/\*)
    | (?P<string>[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*')
    | (?P<quoted>"(?:[^"]|"")*")
    | (?P<dollar>\$(?:[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?\$)
    | (?P<parameter>\$\d+)
    | (?P<word>[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*)
    | (?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)
    | (?P<mark>::|:=|=>|<=|>=|<>|!=|.)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a statement.

    Attributes:
        kind: `string`, `quoted`, `parameter`, `word`, `number` or `mark`.
        text: as written; the content of a string or quoted name, words in lower case.
        start: where it begins.
        end: where it ends.
    """

    kind: str
    text: str
    start: int
    end: int


def tokens(text: str) -> list[Token]:
    """The tokens of a text, without space and comments. Raises PgError for a quote or comment without an end."""
    found = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match is not None
        kind, piece, end = match.lastgroup or "mark", match[0], match.end()
        if kind == "comment":
            at = _comment_end(text, at)
            continue
        if kind == "dollar":
            close = text.find(piece, end)
            if close < 0:
                raise PgError("42601", "unterminated dollar-quoted string", position=at + 1)
            kind, piece, end = "string", text[end:close], close + len(piece)
        elif (kind == "mark" and piece in "'\"") or (kind == "word" and piece in "eE" and text[end : end + 1] == "'"):
            raise PgError("42601", "unterminated quoted string or identifier", position=at + 1)
        elif kind == "string":
            piece = _unquoted(piece)
        elif kind == "quoted":
            piece = piece[1:-1].replace('""', '"')
        elif kind == "word":
            piece = piece.lower()
        if kind != "space":
            found.append(Token(kind, piece, at, end))
        at = end
    return found


def statements(text: str) -> list[str]:
    """The statements of a text, without the semicolons between them; empty ones are left out."""
    cut, start = [], 0
    pieces = tokens(text)
    for token in [*pieces, Token("mark", ";", len(text), len(text))]:
        if token.kind == "mark" and token.text == ";":
            inner = [piece for piece in pieces if start <= piece.start < token.start]
            if inner:
                cut.append(text[inner[0].start : inner[-1].end])
            start = token.end
    return cut


def _comment_end(text: str, start: int) -> int:
    """Comments nest."""
    depth, at = 0, start
    for mark in re.compile(r"/\*|\*/").finditer(text, start):
        depth += 1 if mark[0] == "/*" else -1
        at = mark.end()
        if depth == 0:
            return at
    raise PgError("42601", "unterminated /* comment", position=start + 1)


_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def _unquoted(piece: str) -> str:
    if piece[0] in "eE":
        inner = piece[2:-1].replace("''", "'")
        return re.sub(
            r"\\(?:x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|([0-7]{1,3})|(.))", _escaped, inner, flags=re.DOTALL
        )  # fmt: skip
    return piece[1:-1].replace("''", "'")


def _escaped(match: re.Match[str]) -> str:
    if match[1] or match[2]:
        return chr(int(match[1] or match[2], 16))
    if match[3]:
        return chr(int(match[3], 8) & 0xFF)
    return _ESCAPES.get(match[4], match[4])
