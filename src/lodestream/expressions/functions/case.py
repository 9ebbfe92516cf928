r"""Upper and lower case as ICU (which Spark uses) has them, over DuckDB, which maps one code point to one.

Where they differ was found by asking Spark 4.2 for every code point: full mappings (`ß` to `SS`), the dotted `İ`, a
`Σ` at the end of a word, and scripts younger than DuckDB's tables. Only a text that holds such a character takes the
slow path. Left over are U+0295 and U+1171E beside a `Σ`, which RE2 and ICU class differently.
"""

from __future__ import annotations

from lodestream.expressions.typed import duckdb_text, let

# Blocks whose characters become several in upper case; Python's own tables hold the mapping (SpecialCasing.txt).
_SPECIAL = (
    (0xDF, 0xDF), (0x149, 0x149), (0x1F0, 0x1F0), (0x390, 0x390), (0x3B0, 0x3B0), (0x587, 0x587), (0x1E96, 0x1E9A),
    (0x1F50, 0x1F56), (0x1F80, 0x1FFC), (0xFB00, 0xFB06), (0xFB13, 0xFB17),
)  # fmt: skip
_SEVERAL = {chr(c): chr(c).upper() for low, high in _SPECIAL for c in range(low, high + 1) if len(chr(c).upper()) > 1}
_YOUNG = "".join(
    lower + upper
    for lower, upper in [
        ("\u019b", "\ua7dc"), ("\u0264", "\ua7cb"), ("\u1c8a", "\u1c89"), ("\ua7cd", "\ua7cc"), ("\ua7cf", "\ua7ce"),
        ("\ua7d3", "\ua7d2"), ("\ua7d5", "\ua7d4"), ("\ua7db", "\ua7da"),
        *((chr(c), chr(c - 0x20)) for c in range(0x10D70, 0x10D86)),
        *((chr(c), chr(c - 0x1B)) for c in range(0x16EBB, 0x16ED4)),
    ]
)  # fmt: skip
_YOUNG_LOWER, _YOUNG_UPPER = _YOUNG[::2], _YOUNG[1::2]

# A Σ is final when a cased letter stands before it and none after it, whatever ignorable characters lie between.
_IGNORABLE = (
    r"\p{Mn}\p{Me}\p{Cf}\p{Lm}\p{Sk}'.:\x{b7}\x{387}\x{55f}\x{5f4}\x{897}\x{1acf}-\x{1add}\x{1ae0}-\x{1aeb}\x{2018}"
    r"\x{2019}\x{2024}\x{2027}\x{a7f1}\x{fe13}\x{fe52}\x{fe55}\x{ff07}\x{ff0e}\x{ff1a}\x{10d4e}\x{10d69}-\x{10d6d}"
    r"\x{10d6f}\x{10ec5}\x{10efa}-\x{10efc}\x{113bb}-\x{113c0}\x{113ce}\x{113d0}\x{113d2}\x{113e1}\x{113e2}\x{11b60}"
    r"\x{11b62}-\x{11b64}\x{11b66}\x{11dd9}\x{11f5a}\x{1611e}-\x{16129}\x{1612d}-\x{1612f}\x{16d40}-\x{16d42}\x{16d6b}"
    r"\x{16d6c}\x{16ff2}\x{16ff3}\x{1e5ee}\x{1e5ef}\x{1e6e3}\x{1e6e6}\x{1e6ee}\x{1e6ef}\x{1e6f5}\x{1e6ff}"
)
_CASED = (
    r"\p{Lu}\p{Ll}\p{Lt}\x{aa}\x{ba}\x{1c89}\x{1c8a}\x{2160}-\x{217f}\x{24b6}-\x{24e9}\x{a7cb}-\x{a7cf}\x{a7d2}\x{a7d4}"
    r"\x{a7da}-\x{a7dc}\x{10d50}-\x{10d65}\x{10d70}-\x{10d85}\x{16ea0}-\x{16eb8}\x{16ebb}-\x{16ed3}\x{1f130}-\x{1f149}"
    r"\x{1f150}-\x{1f169}\x{1f170}-\x{1f189}"
)
_FINAL = rf"([{_CASED}][{_IGNORABLE}]*)Σ([{_IGNORABLE}]*(?:[^{_CASED}{_IGNORABLE}]|$))"
_LOWER_MARKS = f"[İΣ{_YOUNG_UPPER}]"
_UPPER_MARKS = f"[{''.join(_SEVERAL).replace('ß', '')}{_YOUNG_LOWER}]"


def upper(text: str) -> str:
    """DuckDB text of `upper` as Spark has it."""
    pairs = ", ".join(f"{duckdb_text(key)}: {duckdb_text(value)}" for key, value in _SEVERAL.items())

    def build(s: str) -> str:
        young = f"translate({s}, '{_YOUNG_LOWER}', '{_YOUNG_UPPER}')"
        characters = f"regexp_extract_all({young}, '(?s).')"
        slow = f"list_transform({characters}, lambda c: coalesce(MAP {{{pairs}}}[c], upper(c)))"
        slow = f"array_to_string({slow}, '')"
        return _by_need(s, _UPPER_MARKS, f"upper({s})", f"upper(replace({s}, 'ß', 'SS'))", slow)

    return let(text, build)


def lower(text: str) -> str:
    """DuckDB text of `lower` as Spark has it."""

    def build(s: str) -> str:
        sigma = f"regexp_replace({s}, {duckdb_text(_FINAL)}, '\\1ς\\2', 'g')"
        slow = f"lower(translate(replace({sigma}, 'İ', 'i̇'), '{_YOUNG_UPPER}', '{_YOUNG_LOWER}'))"
        return _by_need(s, _LOWER_MARKS, f"lower({s})", f"lower({s})", slow)

    return let(text, build)


def _by_need(text: str, marks: str, plain: str, usual: str, full: str) -> str:
    """ASCII takes the first way, a text without the marks the second."""
    ascii_only, marked = f"strlen({text}) = length({text})", f"regexp_matches({text}, '{marks}')"
    return f"CASE WHEN {ascii_only} THEN {plain} WHEN {marked} THEN {full} ELSE {usual} END"
