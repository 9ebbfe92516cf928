"""The reference page of functions, made from the whitelist itself."""

from __future__ import annotations

from lodestream.expressions.errors import CODES
from lodestream.expressions.functions import AGGREGATES, REFUSED, SCALARS

_HEAD = """# Functions and operators

Made by `make function-rows`; do not edit. COUNT functions are admitted. Expressions are Spark SQL in ANSI mode, in UTC.
What stands here gives the same value, the same type and the same error on the embedded engine as on Spark 4.2: each
name has rows in `tests/expressions/rows/` whose answers Spark itself gave, and random compositions of them do too.
Whatever does not stand here is refused by `plan`.

A row on which an expression fails (an overflow, a division by zero, a text that is no number) goes to quarantine with
reason `derive:<column>:error` or `expect:<rule>:error`; in a measure or a `sql:` table the refresh fails.

Types: `boolean`, `tinyint`, `smallint`, `int`, `bigint`, `float`, `double`, `decimal(p,s)`, `string`, `binary`, `date`,
`timestamp` (microseconds, UTC), arrays, maps and structs. Numbers widen by themselves, a date becomes a timestamp,
NULL becomes anything; strings become nothing without a cast, except a literal in ISO form beside a date or timestamp.

## Operators

| operator | operands | result | notes |
|---|---|---|---|
"""
OPERATORS = [
    (
        "= <> != == < <= > >=",
        "two values that meet in one type",
        "boolean",
        "NaN equals itself and is the largest number",
    ),
    ("<=>", "the same", "boolean", "NULL equals NULL; never NULL"),
    ("+ - *", "numbers", "the wider type; decimals grow", "raises on overflow"),
    ("/", "numbers", "double; decimal when one side is", "raises for 0; decimals must be exact in 38 digits"),
    ("% div", "numbers; integers for div", "the wider type; bigint for div", "sign of the dividend; raises for 0"),
    ("-a +a", "number", "its type", "raises for the smallest integer"),
    ("& | ^ ~", "integers", "the wider type", "put parentheses around mixed ones"),
    ("and or not !", "booleans", "boolean", "the right side counts only when the left one does not decide"),
    ("is [not] null, is [not] true, is [not] false", "value; boolean", "boolean", "never NULL"),
    ("[not] in (…)", "values that meet in one type", "boolean", "NULL when absent beside a NULL"),
    ("[not] between a and b", "the same", "boolean", "both bounds belong to it"),
    ("[not] like, ilike [escape 'c']", "string, literal pattern", "boolean", "% and _"),
    ("[not] rlike, regexp", "string, literal pattern", "boolean", "the patterns that Java and RE2 read alike"),
    ("||", "strings", "string", "NULL when a part is"),
    ("case … end", "conditions and values", "the common type", "branches not taken cannot fail"),
    ("if(a, b, c)", "boolean, values", "the common type", "the same"),
    ("cast(a as t), a::t", "value", "t", "raises when it does not fit; double to integer cuts"),
    ("try_cast(a as t)", "value", "t", "NULL when it does not fit"),
    (
        "array[i], map[key], struct.field",
        "array, int; map, key; struct",
        "element; value; field",
        "from 0; raises outside; NULL for no such key",
    ),
    ("x -> value, (x, y) -> value", "in a function that takes one", "", "a parameter hides a column of its name"),
    (
        "moment + interval 5 minutes",
        "date or timestamp",
        "its type; timestamp for hours and less",
        "one whole number and one unit",
    ),
    (
        "extract(field from moment)",
        "date or timestamp",
        "int; decimal(8,6) for second",
        "year quarter month week day doy dow dow_iso yearofweek hour minute second",
    ),
    ("trim(both x from s), position(a in s)", "strings", "string; int", "also leading and trailing"),
    ("date '…', timestamp '…', 1L 1S 1Y 1D 1F 1BD", "", "", "literals; digits with a point are decimals"),
]
_RULES = """
## Rules

- Operands are evaluated left to right, divisors before dividends, and nothing after a NULL; `and`, `or`, `case`, `if`,
  `coalesce` and `in` stop as soon as they know. An error on a part that is not evaluated is none.
- The text of a date or timestamp outside the years 1 to 9999 fails.
- `date_add` and its kin raise where Spark wraps around, beyond the year 5,800,000.
- `lower` of a Σ beside U+0295 or U+1171E may choose the other of σ and ς.
- A cast of a string to a decimal reads ASCII digits only; Spark also reads the digits of other scripts.
- A cast of a string to a timestamp reads ISO forms with or without `Z`, `UTC` or an offset `+hh:mm`; a bare time of day
  and zones by name, which Spark reads too, fail.
- `get_json_object`, `json_array_length` and `json_object_keys` read RFC 8259. A row fails where Spark reads on: single
  quotes, control characters in strings, text after the first value, halves of surrogate pairs, an object that has a
  name of the path twice. It also fails for a fraction that Java writes with an exponent, and for fractions and
  characters beyond U+FFFF inside of an object or array that is returned whole.
- `sequence` raises beyond 10,000 elements, where Spark goes on.
- `from_unixtime` and `date_format` fail outside the years 1 to 9999; patterns read years of four digits.
- Moments (`stddev`, `corr`, `regr_slope` and their kin) depend on the order of rows in the last digits, as sums do.
- `row_number`, `lag`, `lead`, `rows between` and `limit` break ties by all remaining columns, on both engines.
- Sums and averages of doubles depend on the order of rows in the last digits; money is decimal.
- The sum of a bigint column raises when the result does not fit; Spark also when an intermediate sum does not.
"""


def page() -> str:
    """The whole page as Markdown."""
    lines = [_HEAD.replace("COUNT", str(len(SCALARS) + len(AGGREGATES))).rstrip("\n")]
    lines += [f"| `{_cell(name)}` | {_cell(a)} | {_cell(r)} | {_cell(n)} |" for name, a, r, n in OPERATORS]
    for section in dict.fromkeys(function.section for function in SCALARS.values()):
        lines += ["", f"## {section}", "", "| function | arguments | result | notes |", "|---|---|---|---|"]
        for function in SCALARS.values():
            if function.section == section:
                cells = (_cell(function.arguments), _cell(function.result), _cell(function.note))
                lines.append(f"| `{function.name}` | {' | '.join(cells)} |")
    lines += [
        "",
        "## Aggregates",
        "",
        "In measures and in `sql:` tables, with `filter (where …)`; `distinct` in `sql:` only.",
        "",
    ]
    lines += ["| function | arguments | result | notes |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {line} |" for name, line in AGGREGATES.items()]
    lines += [
        "",
        "Over windows in `sql:` tables: `row_number`, `rank`, `dense_rank`, `lag`, `lead` and count, count_if, sum,",
    ]
    lines += [
        "avg, min and max of these.",
        _RULES.rstrip("\n"),
        "",
        "## Refused",
        "",
        "| function | code | why | instead |",
        "|---|---|---|---|",
    ]
    for name, (code, why, instead) in sorted(REFUSED.items()):
        lines.append(f"| `{name}` | {code} | {_cell(why)} | {_cell(instead or '')} |")
    lines += ["", "## Codes", "", "| code | what to do |", "|---|---|"]
    lines += [f"| {code} | {_cell(remedy)} |" for code, remedy in CODES.items()]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
