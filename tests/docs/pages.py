"""The pages of the documentation and the fenced blocks in them."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
LANGUAGES = ("sh", "yaml", "python", "json", "text")
OUTPUT = "output"
"""Marks a block that shows what the block before it printed: three backticks, `text output`."""

_FENCE = re.compile(r"^(?P<fence>```+)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line of its fence, its language and marks, its text."""

    page: str
    line: int
    language: str
    marks: tuple[str, ...]
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @cached_property
    def file(self) -> str | None:
        """The path that a yaml block names in its first line."""
        found = re.match(r"# ([\w./-]+\.yaml)\n", self.text)
        return found[1] if found else None


def pages() -> list[str]:
    """Every page, as a path relative to the repository."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """The page's blocks in order; refuses fences that are indented or never closed, which nothing would check."""
    return split(page, read(page))


def split(page: str, text: str) -> list[Block]:
    found = []
    for match in _FENCE.finditer(text):
        language, *marks = match["info"].split() or [""]
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, language, tuple(marks), match["text"]))
    stray = re.search(r"^[ \t>]*(```|~~~)", _FENCE.sub("", text), re.MULTILINE)
    assert stray is None, f"{page}: a fence that is indented, not closed or made of ~~~: {stray[0] if stray else ''}"
    return found


def prose(page: str) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", read(page))
