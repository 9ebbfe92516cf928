"""COPY … TO STDOUT: rows as lines of text, as CSV, or in COPY's binary form."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from lodestream.apis.postgres import encode, rows
from lodestream.apis.postgres.failures import PgError
from lodestream.apis.postgres.statements import Copy

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_ESCAPES = (("\\", "\\\\"), ("\b", "\\b"), ("\f", "\\f"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"), ("\v", "\\v"))
_YES, _NO = ("true", "on", "1", "match"), ("false", "off", "0")


class CopyOut:
    """Writes the rows of one COPY.

    Args:
        statement: with its options.
        schema: of the rows.

    Raises:
        PgError: an option is not possible.
    """

    def __init__(self, statement: Copy, schema: pa.Schema) -> None:
        options = dict(statement.options)
        self._form = statement.form
        if self._form not in ("text", "csv", "binary"):
            raise PgError("22023", f'COPY format "{self._form}" not recognized')
        csv = self._form == "csv"
        self._delimiter = options.pop("delimiter", "," if csv else "\t")
        self._null = options.pop("null", "" if csv else "\\N")
        self._quote = options.pop("quote", '"')
        self._escape = options.pop("escape", self._quote)
        header = options.pop("header", "false").lower()
        options.pop("encoding", None)
        options.pop("force_quote", None)
        if options:
            raise PgError("42601", f'option "{min(options)}" not recognized')
        if header not in (*_YES, *_NO):
            raise PgError("42601", "header requires a Boolean value")
        if len(self._delimiter) != 1 or len(self._quote) != 1 or len(self._escape) != 1:
            raise PgError("22023", "COPY delimiter, quote and escape must be single one-byte characters")
        self._names = schema.names
        self._header = header in _YES and self._form != "binary"
        self._begun = False

    @property
    def binary(self) -> int:
        """What CopyOutResponse says: 1 for the binary form."""
        return int(self._form == "binary")

    def begin(self) -> bytes:
        """Messages before the rows. The binary form's head goes with its first row, which some clients rely on."""
        if not self._header:
            return b""
        names = pa.record_batch(
            [pa.array([name], pa.string()) for name in self._names], names=list(map(str, range(len(self._names))))
        )
        return rows.copy_lines(self._lines(names))

    def rows(self, batch: pa.RecordBatch) -> bytes:
        """Messages of some rows."""
        if self._form == "binary":
            head = b"" if self._begun else _SIGNATURE
            self._begun |= bool(batch.num_rows)
            return rows.copy_binary(batch, head)
        return rows.copy_lines(self._lines(batch))

    def end(self) -> bytes:
        """Messages after the rows."""
        if self._form != "binary":
            return b""
        return rows.copy_lines(pa.array([_TRAILER if self._begun else _SIGNATURE + _TRAILER], pa.binary()))

    def _lines(self, batch: pa.RecordBatch) -> pa.Array:
        write = self._csv if self._form == "csv" else self._text
        columns = [write(encode.text(column)) for column in batch.columns]
        if not columns:
            return pa.array(["\n"] * batch.num_rows, pa.string())
        joined = pc.binary_join_element_wise(*columns, self._delimiter) if len(columns) > 1 else columns[0]
        return pc.binary_join_element_wise(joined, "\n", "")

    def _text(self, column: pa.Array) -> pa.Array:
        special = re.escape(self._delimiter) + r"\x00-\x1f\\\\"
        if pc.any(pc.match_substring_regex(column, f"[{special}]")).as_py():
            for found, told in _ESCAPES:
                column = pc.replace_substring(column, found, told)
            if self._delimiter not in "\t\\":
                column = pc.replace_substring(column, self._delimiter, "\\" + self._delimiter)
        return pc.fill_null(column, self._null)

    def _csv(self, column: pa.Array) -> pa.Array:
        special = "".join(re.escape(one) for one in (self._delimiter, self._quote, self._escape)) + r"\n\r"
        quoted = pc.or_(pc.match_substring_regex(column, f"[{special}]"), pc.equal(column, self._null))
        if len(self._names) == 1:
            quoted = pc.or_(quoted, pc.equal(column, "\\."))
        if pc.any(quoted).as_py():
            inner = (
                column if self._escape == self._quote else pc.replace_substring(column, self._escape, self._escape * 2)
            )
            inner = pc.replace_substring(inner, self._quote, self._escape + self._quote)
            column = pc.if_else(quoted, pc.binary_join_element_wise(self._quote, inner, self._quote, ""), column)
        return pc.fill_null(column, self._null)
