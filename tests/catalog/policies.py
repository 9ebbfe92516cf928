"""Random policies with their meaning in plain Python: what a row filter or mask says is worked out twice."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lodestream.model.types import BIGINT, BOOLEAN, INT, STRING, Column, Schema

SCHEMA = Schema(
    (
        Column("id", BIGINT),
        Column("country", STRING),
        Column("email", STRING),
        Column("amount", INT),
        Column("flag", BOOLEAN),
    )
)
TEXTS, NUMBERS = ("country", "email"), ("amount",)
WORDS = ("DE", "FR", "it's", "", "x@y.z", "12", "ß%_", "\\", '"; drop table t; --')
GROUPS, NAMES, ATTRIBUTES = ("admins", "ops"), ("alice", "bob"), ("country", "least", "missing")
INT_MAX = 2**31 - 1


class RaisesError(Exception):
    """Where Spark would raise."""


@dataclass
class Said:
    """An expression: its Spark text, and what it gives for a row and a reader."""

    text: str
    value: Callable[[dict[str, Any], Any], Any]


def quoted(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def text_value(rng):
    """An expression of text without operators."""
    kind = rng.randrange(5)
    if kind == 0:
        word = rng.choice(WORDS)
        return Said(quoted(word), lambda row, who: word)
    if kind == 1:
        name = rng.choice(ATTRIBUTES)
        return Said(f"attribute('{name}')", lambda row, who: who.attributes.get(name))
    if kind == 2:
        return Said("current_user()", lambda row, who: who.name)
    column = rng.choice(TEXTS)
    return Said(column, lambda row, who: row[column])


def condition(rng, depth=3):
    """A condition; some of them err on some rows."""
    kind = rng.randrange(9 if depth else 6)
    if kind == 0:
        left, right = text_value(rng), text_value(rng)
        return Said(f"{left.text} = {right.text}", _both(left, right, lambda a, b: a == b))
    if kind == 1:
        group = rng.choice(GROUPS)
        return Said(f"is_member('{group}')", lambda row, who: group in who.groups)
    if kind == 2:
        column, negated = rng.choice(SCHEMA.names), rng.choice(("", "not "))
        return Said(f"{column} is {negated}null", lambda row, who: (row[column] is None) != bool(negated))
    if kind == 3:
        add, least = rng.choice((0, 1, INT_MAX)), rng.randrange(-5, 5)
        return Said(f"amount + {add} > {least}", lambda row, who: _greater(row["amount"], add, least))
    if kind == 4:
        return Said("flag", lambda row, who: row["flag"])
    if kind == 5:
        source = text_value(rng)
        return Said(f"cast({source.text} as int) >= 12", lambda row, who: _number(source.value(row, who), 12))
    if kind == 6:
        inner = condition(rng, depth - 1)
        return Said(f"not ({inner.text})", lambda row, who: _not(inner.value(row, who)))
    left, right = condition(rng, depth - 1), condition(rng, depth - 1)
    decides = kind == 7
    word = "or" if decides else "and"
    return Said(f"({left.text}) {word} ({right.text})", lambda row, who: _logic(left, right, row, who, decides))


def text_mask(rng):
    """What a text column may be masked with."""
    kind = rng.randrange(7)
    if kind == 6:
        return Said("concat(value(), '!')", lambda row, who: None if row["value()"] is None else row["value()"] + "!")
    if kind == 0:
        return Said("null", lambda row, who: None)
    if kind == 1:
        inner = text_value(rng)
        return Said(
            f"coalesce({inner.text}, '?')",
            lambda row, who: "?" if inner.value(row, who) is None else inner.value(row, who),
        )
    if kind == 2:
        inner = text_value(rng)
        return Said(
            f"concat({inner.text}, '…')",
            lambda row, who: None if inner.value(row, who) is None else inner.value(row, who) + "…",
        )
    if kind == 3:
        return Said("amount", lambda row, who: None if row["amount"] is None else str(row["amount"]))
    if kind == 4:
        test, then, other = condition(rng, 1), text_value(rng), text_value(rng)
        return Said(f"if({test.text}, {then.text}, {other.text})",
                    lambda row, who: (then if test.value(row, who) else other).value(row, who))  # fmt: skip
    return text_value(rng)


def number_mask(rng):
    """What an int column may be masked with."""
    kind = rng.randrange(4)
    if kind == 0:
        return Said("null", lambda row, who: None)
    if kind == 1:
        return Said("value() + 1", lambda row, who: _sum(row["value()"], 1))
    if kind == 2:
        inner = text_value(rng)
        return Said(inner.text, lambda row, who: _int(inner.value(row, who)))
    digits = rng.randrange(100)
    return Said(str(digits), lambda row, who: digits)


def shown(said, row, who, column):
    """What a mask shows in place of a column: NULL where it errs."""
    try:
        return said.value(row | {"value()": row[column]}, who)
    except RaisesError:
        return None


def passes(said, row, who):
    """Whether a row filter shows a row: only when the condition is true and nothing errs."""
    try:
        return said.value(row, who) is True
    except RaisesError:
        return False


def rows(rng, count=12):
    """Rows with everything that policies look at, NULLs included."""

    def some(options):
        return rng.choice((*options, None))

    def row(number):
        country, email, amount = some(WORDS), some(WORDS), some((0, 1, -3, 7, INT_MAX))
        return {"id": number, "country": country, "email": email, "amount": amount, "flag": some((True, False))}

    return [row(i) for i in range(count)]


def _both(left, right, then):
    def value(row, who):
        a, b = left.value(row, who), right.value(row, who)
        return None if a is None or b is None else then(a, b)

    return value


def _sum(amount, add):
    if amount is None:
        return None
    if not -INT_MAX - 1 <= amount + add <= INT_MAX:
        raise RaisesError
    return amount + add


def _greater(amount, add, least):
    total = _sum(amount, add)
    return None if total is None else total > least


def _int(text):
    if text is None:
        return None
    bare = text.strip()
    return (
        int(bare)
        if bare.lstrip("+-").isdecimal() and bare.isascii() and len(bare.lstrip("+-")) >= len(bare) - 1
        else None
    )


def _number(text, least):
    if text is None:
        return None
    if (found := _int(text)) is None:
        raise RaisesError
    return found >= least


def _not(value):
    return None if value is None else not value


def _logic(left, right, row, who, decides):
    a = left.value(row, who)
    if a is decides:
        return decides
    b = right.value(row, who)
    if b is decides:
        return decides
    return None if a is None or b is None else (not decides)
