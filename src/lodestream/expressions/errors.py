"""Why an expression is refused at plan time: one code per remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CODES: dict[str, str] = {
    "P101": "use a function or operator of docs/reference/functions.md, or mark the table `engine: embedded`",
    "P102": "use the exact function; approximate ones differ between engines",
    "P103": "cast the operands to smaller decimals or to double so that no digit is lost",
    "P104": "order by enough columns to make the order total",
    "P105": "all times are UTC: drop the time zone",
    "P106": "cast to a type that tables store",
    "P107": "take the value from a column: the result would change from run to run",
    "P109": "name a table of this project or a CTE of this query",
    "P110": "name a column of the input",
    "P111": "cast the argument to the type that is asked for",
    "P112": "correct the syntax",
    "P113": "use aggregates in measures and queries only, and everything else inside them or in group by",
    "P114": "write the argument as a literal",
}
"""Code -> what to do about it, one sentence each."""


class ExpressionError(ValueError):
    """An expression that cannot be compiled.

    Attributes:
        code: a key of `CODES`.
        message: lower case, what is wrong, without code and position.
        nearest: the nearest thing that would be right, if there is one.
        offset: characters from the start of the text to where it goes wrong, if known.
        item: which of several texts it is about (0 first), if there were several.
    """

    item: int | None = None

    def __init__(self, code: str, message: str, *, nearest: str | None = None, offset: int | None = None) -> None:
        self.code = code
        self.message = message
        self.nearest = nearest
        self.offset = offset
        hint = f" nearest={nearest!r}" if nearest else ""
        super().__init__(f"{code} {message}{hint}; {CODES[code]}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like `name`, or None when none does."""
    found = difflib.get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.6)
    return found[0] if found else None
