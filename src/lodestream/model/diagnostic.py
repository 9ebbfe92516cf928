"""Where something was declared, and what is wrong with it, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """A spot in a file that a person wrote.

    Attributes:
        file: path relative to the project folder, or as Python names it.
        line: from 1.
        column: from 1.
        raw: the text of the value as it stands in the file, from (line, column) on; empty when not known.
    """

    file: str
    line: int
    column: int = 1
    raw: str = ""

    def at(self, value: str, offset: int | None) -> Place:
        """The place of character `offset` of `value`, which was read from `raw`.

        Quotes, escapes, indentation and folding stand in `raw` and not in `value`, so the two are walked side
        by side over their non-blank characters.
        """
        if offset is None or not self.raw:
            return self
        raw, i = self.raw, 0
        if raw[0] in "|>":  # the header of a block scalar is not content
            i = raw.find("\n") + 1
        elif raw[0] in "'\"":
            i = 1
        for char in value[: offset + 1]:
            if char.isspace():
                continue
            found = raw.find(char, i)
            if found < 0:
                return self
            i = found + 1
        i = max(i - 1, 0)
        newline = raw.rfind("\n", 0, i)
        line = self.line + raw.count("\n", 0, i)
        return Place(self.file, line, i - newline if newline >= 0 else self.column + i)


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake: where, which code, what is wrong, what would be right.

    Attributes:
        file: path relative to the project folder.
        line: from 1.
        column: from 1.
        code: `D…` for declarations, `P…` for expressions and plans.
        message: lower case, specific.
        nearest: the nearest thing that would be right, if any.
        fix: what to do, one sentence.
        facts: values that belong to the message, as (name, text).
    """

    file: str
    line: int
    column: int
    code: str
    message: str
    nearest: str | None = None
    fix: str = ""
    facts: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        facts = [f"{name}={text!r}" for name, text in self.facts]
        if self.nearest is not None:
            facts.append(f"nearest={self.nearest!r}")
        tail = f". {' '.join(facts)}" if facts else ""
        return f"{self.file}:{self.line}:{self.column} {self.code} {self.message}{tail}"
