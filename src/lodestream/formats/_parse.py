"""Parses one JSON record exactly as RFC 8259 has it: no duplicate keys, no NaN, bounded depth."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from lodestream.formats._values import NumberText

_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")


class BadRecordError(ValueError):
    """A record that is not one JSON object; the text is the reason's last word."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise BadRecordError("duplicate_key")
    return made


def _refuse_constant(text: str) -> NoReturn:
    raise BadRecordError("json")


_SPACES = " \t\r\n"


class Parser:
    """Parses records.

    Args:
        depth_max: how deep arrays and objects may nest.
        exact: keep numbers with a fraction or exponent as text, for decimal columns.
    """

    def __init__(self, depth_max: int, *, exact: bool) -> None:
        self._depth_max = depth_max
        self._decode = json.JSONDecoder(
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=NumberText if exact else None,
        ).raw_decode

    def __call__(self, line: bytes) -> dict[str, Any]:
        """The record as a dict. Raises BadRecordError: `utf8`, `depth`, `duplicate_key`, `json`, `object`."""
        try:
            text = line.decode().strip(_SPACES)
        except UnicodeDecodeError:
            raise BadRecordError("utf8") from None
        if line.count(b"{") + line.count(b"[") > self._depth_max and depth(line) > self._depth_max:
            raise BadRecordError("depth")
        if text[:1] == "{" and text[-1] != "}":  # torn, the usual damage: no need to parse it
            raise BadRecordError("json")
        try:
            value, end = self._decode(text)
        except json.JSONDecodeError:
            raise BadRecordError("json") from None
        except BadRecordError:
            raise
        except ValueError:  # a whole number with more digits than Python reads
            value, end = self._decode_long_numbers(text)
        if end != len(text):
            raise BadRecordError("json")
        if type(value) is not dict:
            raise BadRecordError("object")
        return value

    def _decode_long_numbers(self, text: str) -> tuple[Any, int]:
        """Read again with whole numbers as text where they are too long, so the column can refuse them by range."""
        reader = json.JSONDecoder(
            object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=NumberText, parse_int=_whole
        )
        try:
            return reader.raw_decode(text)
        except json.JSONDecodeError:
            raise BadRecordError("json") from None


def _whole(text: str) -> int | NumberText:
    return NumberText(text) if len(text) > 4000 else int(text)


def depth(line: bytes) -> int:
    """How deep arrays and objects nest, brackets inside text left out; in linear time."""
    deepest = level = 0
    for match in _BRACKETS.finditer(_TEXT.sub(b"", line)):
        level += 1 if match[0] in b"[{" else -1
        deepest = max(deepest, level)
    return deepest
