"""Reads answers of others: JSON objects, each key of a declared column in its type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from lodestream.formats._parse import BadRecordError, Parser
from lodestream.formats._values import BadValueError, converter
from lodestream.model.arrow import to_arrow
from lodestream.model.types import DataType, Schema
from lodestream.ports.enricher import Enriched

_DEPTH_MAX = 64


class BadAnswerError(ValueError):
    """An answer that cannot be used; the text is the reason."""


class Answers:
    """Decodes answers to columns; keys that no column has are left alone.

    Args:
        schema: n columns; every answer must have all of them, null where it has no value.
    """

    def __init__(self, schema: Schema) -> None:
        self._columns = [(column.name, converter(column.type)) for column in schema]
        self._parse = Parser(_DEPTH_MAX, exact=any(_has_decimal(column.type) for column in schema))
        self._schema = to_arrow(schema, nullable=True)

    def values(self, data: bytes) -> list[Any]:
        """The n values of one answer.

        Raises:
            BadAnswerError: `answer:json`, `answer:score:missing`, `answer:score:type` and the like.
        """
        try:
            told = self._parse(data)
        except BadRecordError as error:
            raise BadAnswerError(f"answer:{error}") from None
        found = []
        for name, convert in self._columns:
            if name not in told:
                raise BadAnswerError(f"answer:{name}:missing")
            try:
                found.append(None if told[name] is None else convert(told[name]))
            except BadValueError as error:
                raise BadAnswerError(f"answer:{name}{error.path}:{error.what}") from None
        return found

    def table(self, texts: Sequence[str]) -> Enriched:
        """Answers as a table; one that `values` does not take is NULL, with its reason among the errors."""
        rows: list[list[Any]] = []
        errors: list[tuple[int, str]] = []
        for i, text in enumerate(texts):
            try:
                rows.append(self.values(text.encode()))
            except BadAnswerError as error:
                rows.append([None] * len(self._columns))
                errors.append((i, str(error)))
        columns = [pa.array([row[i] for row in rows], field.type) for i, field in enumerate(self._schema)]
        return Enriched(pa.table(columns, schema=self._schema), tuple(errors))


def _has_decimal(kind: DataType) -> bool:
    inner = [kind.element, kind.key, *(field.type for field in kind.fields)]
    return kind.name == "decimal" or any(_has_decimal(one) for one in inner if one is not None)
