"""Functions of JSON texts. Where Spark's lenient reader might read what is no JSON by RFC 8259, the row fails."""

from __future__ import annotations

import re

from lodestream.expressions.casts import common_era
from lodestream.expressions.functions.nested import EACH, array_of, element, parts
from lodestream.expressions.registry import Call, scalar
from lodestream.expressions.typed import Typed, duckdb_text, let, strict, unless_null
from lodestream.model.types import DATE, INT, STRING, TIMESTAMP, DataType

_SECTION = "JSON"
_STRINGS = r'"(?:[^"\\]|\\.)*"'
# what DuckDB's reader takes beyond JSON: a comma before a bracket, NaN and Infinity
_BEYOND = r"(?i),[ \t\r\n]*[\]}]|nan|inf"
# what Jackson reads and DuckDB does not: single quotes, control characters in strings, halves of surrogate pairs
_LENIENT = r"(?i)['\x00-\x1f]|\\ud[89a-f]"
_BEYOND_PLANE = r"[\x{10000}-\x{10FFFF}]"
_PATH = re.compile(r"\$((?:\.[A-Za-z_][A-Za-z0-9_]*|\[[0-9]{1,6}\])+)\Z")
_PLAIN_NUMBER = r"^-?(?:[0-9]+|0\.0|0\.00?[1-9][0-9]*|0\.[1-9][0-9]*|[1-9][0-9]{0,6}\.[0-9]+)$"


def _proper(s: str) -> str:
    """Whether a text is JSON."""
    return f"(json_valid({s}) AND NOT regexp_matches(regexp_replace({s}, '{_STRINGS}', '', 'g'), '{_BEYOND}'))"


def _doubtful(s: str) -> str:
    """Whether Spark might read a text that is no JSON: by its leniency, or up to where the first value ends."""
    ends = f"list_filter(range(1, length({s}) + 1), lambda {EACH}: substring({s}, {EACH}, 1) IN ('}}', ']'))"
    begun = f"len(list_filter({ends}, lambda {EACH}: {_proper(f'left({s}, {EACH})')})) > 0"
    opened = f"regexp_matches({s}, '^[ \\t\\r\\n]*[{{\\[]')"
    return f"({opened} AND NOT {_proper(s)} AND (regexp_matches({s}, {duckdb_text(_LENIENT)}) OR {begun}))"


def _read(call: Call, value: Typed, kind: DataType, form: str, own: str = "false") -> Typed:
    """A call over JSON: `form` where the text is JSON, NULL where it is none, an error where it is doubtful.

    `form` and `own` (true where a JSON text errs) have `{s}` for the text.
    """
    # the text is NULL where it is no JSON, not only guarded: DuckDB may compute a part of a CASE for every row
    proper = let(value.duckdb, lambda s: f"CASE WHEN {_proper(s)} THEN {s} END")
    whole = form if own == "false" else f"CASE WHEN NOT {own} THEN {form} END"
    duckdb = let(proper, lambda s: whole.replace("{s}", s), above=0)
    doubtful = let(value.duckdb, _doubtful)
    error = let(proper, lambda s: own.replace("{s}", s), above=0)
    return strict(kind, duckdb, call.spark, (value,), own=f"coalesce({doubtful} OR {error}, false)", nullable=True)


@scalar(_SECTION, "get_json_object", "string, path", "string", "literal path such as $.a.b[0]; NULL when absent")
def _get(call: Call) -> Typed:
    call.count(2)
    value, path = call.text(0), call.literal_text(1)
    if not _PATH.match(path):
        raise call.error(f"path {path!r}", "P101", "$.name[0].name")
    steps = re.findall(r"\.\w+|\[\d+\]", path)
    at = duckdb_text(path)
    found, kind = f"json_extract({{s}}, {at})", f"json_type({{s}}, {at})"
    text = f"WHEN 'VARCHAR' THEN json_extract_string({{s}}, {at})"
    shown = f"CASE {kind} {text} WHEN 'NULL' THEN NULL ELSE CAST({found} AS VARCHAR) END"
    # Spark writes fractions as Java does, and inside of objects and arrays halves of surrogate pairs
    floats = f"regexp_matches(regexp_replace(CAST({found} AS VARCHAR), '{_STRINGS}', '', 'g'), '[0-9][.eE]')"
    pairs = f"regexp_matches(CAST({found} AS VARCHAR), '{_BEYOND_PLANE}')"
    broken = f"({kind} IN ('OBJECT', 'ARRAY') AND ({floats} OR {pairs}))"
    far = f"({kind} = 'DOUBLE' AND NOT regexp_matches(CAST({found} AS VARCHAR), '{_PLAIN_NUMBER}'))"
    # Spark goes on to the next key of the same name when the first one leads nowhere
    twice = " OR ".join(
        f"len(list_filter(json_keys({{s}}, {duckdb_text('$' + ''.join(steps[:i]))}), "
        f"lambda {EACH}: {EACH} = '{step[1:]}')) > 1"
        for i, step in enumerate(steps)
        if step.startswith(".")
    )
    lost = f"(coalesce({kind}, 'NULL') = 'NULL' AND ({twice or 'false'}))"
    own = f"(coalesce({broken}, false) OR coalesce({far}, false) OR coalesce({lost}, false))"
    return _read(call, value, STRING, shown, own)


@scalar(_SECTION, "json_array_length", "string", "int", "NULL for what is no array")
def _length(call: Call) -> Typed:
    call.count(1)
    form = "CASE WHEN json_type({s}) = 'ARRAY' THEN CAST(json_array_length({s}) AS INTEGER) END"
    return _read(call, call.text(0), INT, form)


@scalar(
    _SECTION, "json_object_keys", "string", "array<string>", "outermost keys in their order; NULL for what is no object"
)
def _keys(call: Call) -> Typed:
    call.count(1)
    form = "CASE WHEN json_type({s}) = 'OBJECT' THEN json_keys({s}) END"
    return _read(call, call.text(0), array_of(STRING), form)


@scalar(
    _SECTION, "to_json", "struct, array or map", "string", "NULL fields are left out; no float, double or binary inside"
)
def _to_json(call: Call) -> Typed:
    call.count(1)
    value = call[0]
    if value.type.name not in ("struct", "array", "map"):
        raise call.error(f"takes a struct, array or map, not {value.type}", nearest="to_json(struct(…))")
    made = _text_of(call, value.type, value.duckdb, 0)
    return strict(STRING, unless_null((value,), lambda _: made), call.spark, (value,))


def _text_of(call: Call, kind: DataType, value: str, depth: int) -> str:
    """DuckDB text of a value as JSON; NULL for NULL."""
    name = f'"→j{depth}"'
    if kind.name == "struct":
        fields = [
            f"{duckdb_text(_quoted(f.name) + ':')} || "
            + _text_of(call, f.type, f"struct_extract({value}, {duckdb_text(f.name)})", depth + 1)
            for f in kind.fields
        ]
        inner = f"array_to_string(list_filter([{', '.join(fields)}], lambda {EACH}: {EACH} IS NOT NULL), ',')"
        return f"CASE WHEN {value} IS NOT NULL THEN '{{' || {inner} || '}}' END"
    if kind.name == "array":
        item = _text_of(call, _element(kind), name, depth + 1)
        items = f"list_transform({value}, lambda {name}: coalesce({item}, 'null'))"
        return f"CASE WHEN {value} IS NOT NULL THEN '[' || coalesce(array_to_string({items}, ','), '') || ']' END"
    if kind.name == "map":
        key, inside = parts(kind)
        if key != STRING:
            raise call.error(f"a map with keys of {key}", "P106", "transform_keys(…, (k, v) -> cast(k as string))")
        text = _text_of(call, inside, f"struct_extract({name}, 'value')", depth + 1)
        pair = f"CAST(to_json(struct_extract({name}, 'key')) AS VARCHAR) || ':' || coalesce({text}, 'null')"
        items = f"list_transform(map_entries({value}), lambda {name}: {pair})"
        return f"CASE WHEN {value} IS NOT NULL THEN '{{' || coalesce(array_to_string({items}, ','), '') || '}}' END"
    if kind == STRING:
        return f"CAST(to_json({value}) AS VARCHAR)"
    if kind.is_integer or kind.name in ("boolean", "decimal"):
        return f"CAST({value} AS VARCHAR)"
    if kind in (DATE, TIMESTAMP):
        pattern = "%Y-%m-%d" if kind == DATE else "%Y-%m-%dT%H:%M:%S.%gZ"
        return "'\"' || " + common_era(Typed(kind, value, ""), f"strftime({value}, '{pattern}')") + " || '\"'"
    raise call.error(f"holds {kind}", "P106", "cast(… as decimal(…))")


def _element(kind: DataType) -> DataType:
    return element(Typed(kind, "", ""))


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
