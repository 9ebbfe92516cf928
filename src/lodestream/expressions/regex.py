"""Regular expressions that Java and RE2 read alike: a small grammar, translated piece by piece."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE_END = r"\n\r\x{85}\x{2028}\x{2029}"
_CLASSES = {
    "d": "0-9", "D": None, "w": "0-9A-Za-z_", "W": None, "s": r"\t\n\x0b\f\r ", "S": None,
}  # fmt: skip
_ESCAPED = {"t": r"\t", "n": r"\n", "r": r"\r", "f": r"\f"}
_QUANTIFIER = re.compile(r"(?:[*+?]|\{(\d{1,3})(?:,(\d{0,3}))?\})\??")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A translated pattern.

    Attributes:
        re2: the pattern for DuckDB.
        groups: how many capturing groups it has.
        empty: whether it can match an empty string.
        at_end: whether it ends with `$`, which in Java also stands before a last line break.
    """

    re2: str
    groups: int
    empty: bool
    at_end: bool


def translate(pattern: str) -> Pattern:
    """Translate a Java pattern to RE2.

    Raises:
        ValueError: a construct that the engines read differently; the message names it.
    """
    reader = _Reader(pattern)
    re2, empty = reader.alternatives(depth=0)
    if reader.at < len(pattern):
        raise ValueError(f"unbalanced {pattern[reader.at]!r}")
    return Pattern(re2, reader.groups, empty, reader.at_end)


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.groups = 0
        self.at_end = False

    def peek(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def alternatives(self, depth: int) -> tuple[str, bool]:
        branches = [self.sequence(depth)]
        while self.peek() == "|":
            self.at += 1
            branches.append(self.sequence(depth))
        if self.at_end and len(branches) > 1:
            raise ValueError("$ inside an alternative")
        return "|".join(text for text, _ in branches), any(empty for _, empty in branches)

    def sequence(self, depth: int) -> tuple[str, bool]:
        parts: list[str] = []
        empty = True
        while (char := self.peek()) and char not in "|)":
            if char == "$":
                if depth or self.at != len(self.text) - 1:
                    raise ValueError("$ before the end of the pattern")
                self.at, self.at_end = self.at + 1, True
                break
            if char == "^":
                if depth or parts:
                    raise ValueError("^ after the start of the pattern")
                self.at += 1
                parts.append("^")
                continue
            before = self.groups
            text, hollow = self.atom(depth)
            quantifier = _QUANTIFIER.match(self.text, self.at)
            if quantifier:
                if self.groups > before:
                    raise ValueError("a repeated capturing group")
                if hollow:
                    raise ValueError("a repeated part that can be empty")
                self.at = quantifier.end()
                hollow = quantifier[0][0] in "*?" or quantifier[1] == "0"
                text += quantifier[0]
                if self.peek() and self.peek() in "*+?{":
                    raise ValueError("possessive or repeated quantifier")
            parts.append(text)
            empty = empty and hollow
        return "".join(parts), empty

    def atom(self, depth: int) -> tuple[str, bool]:
        char = self.text[self.at]
        self.at += 1
        if char == "(":
            return self.group(depth)
        if char == "[":
            return self.set(), False
        if char == ".":
            return f"[^{_LINE_END}]", False
        if char == "\\":
            return self.escape(), False
        if char in "*+?{}]":
            raise ValueError(f"stray {char!r}")
        return re.escape(char) if char.isascii() and not char.isalnum() else char, False

    def group(self, depth: int) -> tuple[str, bool]:
        head = "("
        if self.text.startswith("?:", self.at):
            self.at, head = self.at + 2, "(?:"
        elif self.peek() == "?":
            raise ValueError("look-around, named groups and flags")
        else:
            self.groups += 1
        inner, empty = self.alternatives(depth + 1)
        if self.peek() != ")":
            raise ValueError("unbalanced '('")
        self.at += 1
        return f"{head}{inner})", empty

    def escape(self, inside: bool = False) -> str:
        char = self.peek()
        self.at += 1
        if char in _ESCAPED:
            return _ESCAPED[char]
        if char in _CLASSES:
            if _CLASSES[char] is None:
                if inside:
                    raise ValueError(f"\\{char} inside a set")
                return f"[^{_CLASSES[char.lower()]}]"
            return str(_CLASSES[char]) if inside else f"[{_CLASSES[char]}]"
        if not char or char.isalnum() or not char.isascii():
            raise ValueError(f"\\{char}")
        return "\\" + char

    def set(self) -> str:
        parts = ["["]
        if self.peek() == "^":
            self.at += 1
            parts.append("^")
        first = True
        while (char := self.peek()) != "]" or first:
            if not char or char == "[" or self.text.startswith("&&", self.at) or (first and char == "]"):
                raise ValueError("this set")
            self.at += 1
            if char == "\\":
                parts.append(self.escape(inside=True))
            elif char == "^":
                parts.append(r"\^")
            else:
                parts.append(char)
            first = False
        self.at += 1
        return "".join(parts) + "]"
