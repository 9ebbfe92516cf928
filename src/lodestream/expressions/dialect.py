"""Spark SQL text to a syntax tree in which every function call keeps the name the user wrote."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar

from sqlglot import exp
from sqlglot.dialects import Databricks
from sqlglot.errors import ParseError, TokenError
from sqlglot.parsers.databricks import DatabricksParser
from sqlglot.tokenizer_core import TokenType

from lodestream.expressions.errors import ExpressionError

_NUMBER = re.compile(r"[0-9.]+(?:[eE][+-]?[0-9]+)?")
_SPECIAL_SYNTAX = ("CAST", "TRY_CAST", "EXTRACT", "TRIM", "POSITION")


class _Parser(DatabricksParser):
    # sqlglot rewrites calls into its own dialect-free functions, and what a rewrite changes is silent. Without
    # its tables each call arrives as written, and the whitelist decides by Spark's own name.
    FUNCTIONS: ClassVar[dict[str, Any]] = {}
    FUNCTION_PARSERS = {k: v for k, v in DatabricksParser.FUNCTION_PARSERS.items() if k in _SPECIAL_SYNTAX}  # noqa: RUF012
    NO_PAREN_FUNCTION_PARSERS = {  # noqa: RUF012
        k: v for k, v in DatabricksParser.NO_PAREN_FUNCTION_PARSERS.items() if k in ("CASE", "IF")
    }
    COLON_IS_VARIANT_EXTRACT = False

    def _parse_paren(self) -> exp.Expr | None:
        node = super()._parse_paren()
        if isinstance(node, exp.Paren):
            node.meta["written"] = True  # sqlglot adds parentheses of its own where it finds the text ambiguous
        return node


class PortableSpark(Databricks):  # type: ignore[misc]
    """Databricks SQL as sqlglot reads it, minus its function rewrites."""

    Parser = _Parser


def parse_expression(text: str) -> exp.Expr:
    """The tree of one scalar expression.

    Raises:
        ExpressionError: P112, the text is not one expression.
    """
    return _parse(text, lambda dialect: dialect.parse_into(exp.Condition, text))


def parse_select(text: str) -> exp.Expr:
    """The tree of one SELECT, with its CTEs and set operations.

    Raises:
        ExpressionError: P112, the text is not one query.
    """
    return _parse(text, lambda dialect: dialect.parse(text))


def _parse(text: str, read: Callable[[PortableSpark], list[exp.Expr | None]]) -> exp.Expr:
    if not text.strip():
        raise ExpressionError("P112", "empty text", offset=0)
    try:
        trees = read(PortableSpark())
    except ParseError as error:
        fact = error.errors[0] if error.errors else {}
        where = _offset(text, fact.get("line"), fact.get("col"), fact.get("highlight"))
        message = str(fact.get("description") or "cannot be read").rstrip(".").lower().partition(" for <class")[0]
        raise ExpressionError("P112", message, offset=where) from error
    except TokenError as error:
        raise ExpressionError("P112", "a quote or comment is not closed") from error
    tree = trees[0] if trees else None
    if len(trees) != 1 or tree is None:
        raise ExpressionError("P112", "more than one statement", offset=0)
    _mark_suffixes(tree, text)
    return tree


def _mark_suffixes(tree: exp.Expr, text: str) -> None:
    """Set meta `suffix` on literals such as `2L`, which sqlglot gives as casts; Spark types the two differently."""
    found = [
        node for node in tree.find_all(exp.Cast) if isinstance(node.this, exp.Literal) and "format" not in node.args
    ]
    if not found or not any(char.isdigit() for char in text):
        return
    tokens = PortableSpark().tokenize(text)
    casts = [token for token in tokens if token.token_type == TokenType.DCOLON]
    written = [token for token in casts if text[token.start : token.end + 1] == "::"]
    if written and len(written) < len(casts):
        message = "a literal with a suffix beside ::"
        raise ExpressionError("P112", message, nearest="cast(… as …)", offset=written[0].start)
    if not written:
        for node in found:
            if _NUMBER.fullmatch(node.this.name):
                node.meta["suffix"] = True


def _offset(text: str, line: Any, column: Any, highlight: Any) -> int | None:
    if not isinstance(line, int) or not isinstance(column, int):
        return None
    before = sum(len(part) for part in text.splitlines(keepends=True)[: line - 1])
    return max(0, min(len(text), before + column - len(str(highlight or ""))))


def offset_of(node: exp.Expr) -> int | None:
    """Characters from the start of the text to the first part of `node` whose place is known."""
    found = [part.meta["start"] for part in node.walk() if "start" in (part.meta or {})]
    return min(found) if found else None
