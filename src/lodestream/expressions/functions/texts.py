"""Functions of strings: characters are Unicode code points, order is by bytes."""

from __future__ import annotations

from lodestream.expressions.functions.case import lower, upper
from lodestream.expressions.functions.sets import concatenated, reversed_
from lodestream.expressions.registry import Call, scalar
from lodestream.expressions.typed import Typed, eager, let, strict
from lodestream.model.types import BOOLEAN, INT, STRING, DataType

_SECTION = "Strings"
_LONGEST = 10_000


@scalar(_SECTION, "upper ucase", "string", "string", "full Unicode mapping: ß becomes SS")
def _upper(call: Call) -> Typed:
    call.count(1)
    value = call.text(0)
    return strict(STRING, upper(value.duckdb), call.spark, (value,))


@scalar(_SECTION, "lower lcase", "string", "string", "full Unicode mapping: a Σ that ends a word becomes ς")
def _lower(call: Call) -> Typed:
    call.count(1)
    value = call.text(0)
    return strict(STRING, lower(value.duckdb), call.spark, (value,))


@scalar(_SECTION, "length char_length character_length len", "string", "int", "code points")
def _length(call: Call) -> Typed:
    return _over_text(call, "CAST(length({}) AS INTEGER)", INT)


@scalar(_SECTION, "octet_length", "string", "int", "bytes of UTF-8")
def _octets(call: Call) -> Typed:
    return _over_text(call, "CAST(strlen({}) AS INTEGER)", INT)


@scalar(_SECTION, "bit_length", "string", "int", "eight times the bytes of UTF-8")
def _bits(call: Call) -> Typed:
    return _over_text(call, "CAST(strlen({}) * 8 AS INTEGER)", INT)


@scalar(_SECTION, "ascii", "string", "int", "code point of the first character, 0 for an empty string")
def _ascii(call: Call) -> Typed:
    return _over_text(call, "CAST(ascii({}) AS INTEGER)", INT)


@scalar(_SECTION, "chr char", "bigint", "string", "the character of the lowest eight bits; empty below 0")
def _chr(call: Call) -> Typed:
    call.count(1)
    value = call.bigint(0)
    body = let(value.duckdb, lambda n: f"CASE WHEN {n} < 0 THEN '' ELSE chr(CAST({n} & 255 AS INTEGER)) END")
    duckdb = f"CASE WHEN {value.duckdb} IS NOT NULL THEN {body} END"
    return strict(STRING, duckdb, call.spark, (value,))


@scalar(_SECTION, "md5", "string", "string", "32 hexadecimal digits")
def _md5(call: Call) -> Typed:
    return _over_text(call, "md5({})", STRING)


@scalar(_SECTION, "sha sha1", "string", "string", "40 hexadecimal digits")
def _sha1(call: Call) -> Typed:
    return _over_text(call, "sha1({})", STRING)


@scalar(_SECTION, "sha2", "string, 256", "string", "64 hexadecimal digits; the length must be the literal 256 or 0")
def _sha2(call: Call) -> Typed:
    call.count(2)
    if call.literal_int(1) not in (0, 256):
        raise call.error("only 256 bits", "P101", "sha2(…, 256)")
    value = call.text(0)
    return strict(STRING, f"sha256({value.duckdb})", call.spark, (value,))


@scalar(_SECTION, "reverse", "string or array", "its type", "by code points; by elements")
def _reverse(call: Call) -> Typed:
    if len(call) == 1 and call[0].type.name == "array":
        return reversed_(call)
    # DuckDB keeps grapheme clusters together
    body = "array_to_string(list_reverse(regexp_extract_all({0}, '(?s).')), '')"
    return _over_text(call, f"CASE WHEN strlen({{0}}) = length({{0}}) THEN reverse({{0}}) ELSE {body} END", STRING)


def _over_text(call: Call, template: str, kind: DataType) -> Typed:
    call.count(1)
    value = call.text(0)
    body = let(value.duckdb, template.format) if template.count("{") > 1 else template.format(value.duckdb)
    return strict(kind, body, call.spark, (value,))


# Parts --------------------------------------------------------------------------------------------------------------


@scalar(_SECTION, "substring substr", "string, int[, int]", "string", "from 1; a negative start counts from the end")
def _substring(call: Call) -> Typed:
    call.count(2, 3)
    text, start = call.text(0), call.int_(1)
    size = call.int_(2) if len(call) == 3 else None
    operands = (text, start, size) if size is not None else (text, start)
    count = size.duckdb if size is not None else "2147483647"
    first = start.constant
    if isinstance(first, int) and first > 0 and (size is None or isinstance(size.constant, int)):
        duckdb = f"substring({text.duckdb}, {first}, {count})" if size is None or size.constant > 0 else (  # type: ignore[operator]
            f"CASE WHEN {text.duckdb} IS NOT NULL THEN '' END"
        )  # fmt: skip
        return strict(STRING, duckdb, call.spark, operands)

    def build(s: str) -> str:
        begin = f"CASE WHEN {start.duckdb} > 0 THEN {start.duckdb}::BIGINT - 1 WHEN {start.duckdb} < 0 "
        begin += f"THEN length({s}) + {start.duckdb} WHEN {start.duckdb} = 0 THEN 0 END"
        return let(begin, lambda b: _between(s, b, f"({b} + {count})"))

    return strict(STRING, let(text.duckdb, build), call.spark, operands)


def _between(text: str, begin: str, end: str) -> str:
    """Code points `begin` (from 0) up to `end`; NULL when a bound is."""
    inner = f"substring({text}, greatest({begin}, 0) + 1, least({end}, 4294967295) - greatest({begin}, 0))"
    unknown = f"{begin} IS NULL OR {end} IS NULL"
    return f"CASE WHEN {unknown} THEN NULL WHEN {end} <= greatest({begin}, 0) THEN left({text}, 0) ELSE {inner} END"


@scalar(_SECTION, "left", "string, int", "string", "empty for a length below 1")
def _left(call: Call) -> Typed:
    call.count(2)
    text, size = call.text(0), call.int_(1)
    duckdb = (
        f"CASE WHEN {size.duckdb} > 0 THEN substring({text.duckdb}, 1, {size.duckdb}) ELSE left({text.duckdb}, 0) END"
    )
    return strict(STRING, _both(text, size, duckdb), call.spark, (text, size))


@scalar(_SECTION, "right", "string, int", "string", "empty for a length below 1")
def _right(call: Call) -> Typed:
    call.count(2)
    text, size = call.text(0), call.int_(1)
    duckdb = f"CASE WHEN {size.duckdb} > 0 THEN right({text.duckdb}, {size.duckdb}) ELSE left({text.duckdb}, 0) END"
    return strict(STRING, _both(text, size, duckdb), call.spark, (text, size))


def _both(first: Typed, second: Typed, duckdb: str) -> str:
    """`duckdb`, but NULL where the second operand is."""
    return f"CASE WHEN {second.duckdb} IS NOT NULL THEN {duckdb} END" if second.nullable else duckdb


@scalar(_SECTION, "split_part", "string, string, int", "string", "the number must be a literal other than 0")
def _split_part(call: Call) -> Typed:
    call.count(3)
    text, mark = call.text(0), call.text(1)
    part = call.literal_int(2)
    if part == 0:
        raise call.error("part 0 does not exist", "P111", "split_part(…, 1)")
    if isinstance(mark.constant, str) and mark.constant:
        return strict(STRING, f"split_part({text.duckdb}, {mark.duckdb}, {part})", call.spark, (text, mark))
    duckdb = f"CASE WHEN {mark.duckdb} = '' THEN {text.duckdb if part in (1, -1) else _empty(text)} ELSE "
    duckdb += f"split_part({text.duckdb}, {mark.duckdb}, {part}) END"
    return strict(STRING, _both(text, mark, duckdb), call.spark, (text, mark))


def _empty(text: Typed) -> str:
    return f"left({text.duckdb}, 0)"


# Search -------------------------------------------------------------------------------------------------------------


@scalar(_SECTION, "startswith endswith contains", "string, string", "boolean", "")
def _has(call: Call) -> Typed:
    call.count(2)
    a, b = call.texts()
    name = {"startswith": "starts_with", "endswith": "ends_with"}.get(call.name, call.name)
    return strict(BOOLEAN, f"{name}({a.duckdb}, {b.duckdb})", call.spark, (a, b))


@scalar(_SECTION, "instr", "string, string", "int", "from 1; 0 when absent")
def _instr(call: Call) -> Typed:
    call.count(2)
    return _find(call, call.text(0), call.text(1), 1)


@scalar(_SECTION, "locate position", "string, string[, int]", "int", "where the first is in the second; literal start")
def _locate(call: Call) -> Typed:
    call.count(2, 3)
    start = call.literal_int(2) if len(call) == 3 else 1
    return _find(call, call.text(1), call.text(0), start)


def _find(call: Call, text: Typed, part: Typed, start: int) -> Typed:
    if start < 1:
        raise call.error("the start must be at least 1", "P111")
    found = f"instr({text.duckdb}, {part.duckdb})"
    if start > 1:
        rest = f"instr(substring({text.duckdb}, {start}), {part.duckdb})"
        found = let(
            rest, lambda i: f"CASE WHEN {part.duckdb} = '' THEN 1 WHEN {i} > 0 THEN {i} + {start - 1} ELSE {i} END"
        )
    return strict(INT, f"CAST({found} AS INTEGER)", call.spark, (text, part))


# Making -------------------------------------------------------------------------------------------------------------


@scalar(_SECTION, "concat", "string, …; array, …", "string; array", "NULL when a part is; also `||`")
def _concat(call: Call) -> Typed:
    call.count(1, 100)
    if call[0].type.name == "array":
        return concatenated(call)
    parts = call.texts()
    return strict(STRING, "(" + " || ".join(part.duckdb for part in parts) + ")", call.spark, parts)


@scalar(_SECTION, "concat_ws", "string, string, …", "string", "NULL parts are left out")
def _concat_ws(call: Call) -> Typed:
    call.count(2, 100)
    parts = call.texts()
    duckdb = f"concat_ws({', '.join(part.duckdb for part in parts)})"
    return eager(STRING, duckdb, call.spark, parts, nullable=parts[0].nullable)


@scalar(_SECTION, "replace", "string, string[, string]", "string", "every occurrence; nothing for an empty search")
def _replace(call: Call) -> Typed:
    call.count(2, 3)
    parts = call.texts()
    to = parts[2].duckdb if len(parts) == 3 else "''"
    return strict(STRING, f"replace({parts[0].duckdb}, {parts[1].duckdb}, {to})", call.spark, parts)


@scalar(_SECTION, "translate", "string, string, string", "string", "character by character; both sets are literals")
def _translate(call: Call) -> Typed:
    call.count(3)
    text, of, to = call.texts()
    call.literal_text(1), call.literal_text(2)
    return strict(STRING, f"translate({text.duckdb}, {of.duckdb}, {to.duckdb})", call.spark, (text, of, to))


@scalar(_SECTION, "repeat", "string, int", "string", f"the number is a literal up to {_LONGEST}")
def _repeat(call: Call) -> Typed:
    call.count(2)
    text = call.text(0)
    times = max(0, bounded(call, 1))
    return strict(STRING, f"repeat({text.duckdb}, {times})", call.spark, (text,))


@scalar(_SECTION, "lpad rpad", "string, int[, string]", "string", f"literal length up to {_LONGEST}; literal padding")
def _pad(call: Call) -> Typed:
    call.count(2, 3)
    text = call.text(0)
    size = max(0, bounded(call, 1))
    padding = call.literal_text(2) if len(call) == 3 else " "
    if padding == "":
        return strict(STRING, f"left({text.duckdb}, {size})", call.spark, (text,))
    fill = call.text(2).duckdb if len(call) == 3 else "' '"
    return strict(STRING, f"{call.name}({text.duckdb}, {size}, {fill})", call.spark, (text,))


def bounded(call: Call, index: int) -> int:
    """A literal length that keeps results small. Raises P114 beyond the bound."""
    size = call.literal_int(index)
    if size > _LONGEST:
        raise call.error(f"at most {_LONGEST}", "P114")
    return size


@scalar(_SECTION, "trim btrim", "string[, string]", "string", "spaces, or any of the given characters")
def _trim(call: Call) -> Typed:
    call.count(1, 2 if call.name == "btrim" else 1)
    parts = call.texts()
    return strip("trim", parts[0], parts[1] if len(parts) > 1 else None, call.spark)


@scalar(_SECTION, "ltrim rtrim", "[string, ]string", "string", "spaces, or any character of the first argument")
def _trim_side(call: Call) -> Typed:
    call.count(1, 2)
    parts = call.texts()
    return strip(call.name, parts[-1], parts[0] if len(parts) > 1 else None, call.spark)


def strip(name: str, text: Typed, characters: Typed | None, spark: str) -> Typed:
    """TRIM in its three directions."""
    if characters is None:
        return strict(STRING, f"{name}({text.duckdb}, ' ')", spark, (text,))
    return strict(STRING, f"{name}({text.duckdb}, {characters.duckdb})", spark, (text, characters))
