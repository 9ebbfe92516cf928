"""What an aggregate call is made of: mergeable pieces and a final formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lodestream.expressions.typed import Typed
from lodestream.model.types import DataType

OVER = "\x01"
"""Marks where a window goes in a piece."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One partial before it has a name; `{}` in `merge` stands for it, `OVER` in `template` for a window."""

    template: str
    merge: str
    type: DataType

    @property
    def initial(self) -> str:
        """The aggregate over input rows."""
        return self.template.replace(OVER, "")

    def over(self, window: str) -> str:
        """The aggregate over a window."""
        return self.template.replace(OVER, f" OVER ({window})")


@dataclass(frozen=True, slots=True)
class Made:
    """A compiled aggregate call: its pieces, the error of its input row, and the result over the pieces' names.

    `merges` is False when its pieces hold every value of a group.
    """

    pieces: tuple[Piece, ...]
    input_error: str | None
    final: Callable[[Sequence[str]], Typed]
    merges: bool = True
