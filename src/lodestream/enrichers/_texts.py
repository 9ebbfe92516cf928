"""Texts of a column, each different one looked at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

TEXT_CHARS_MAX = 100_000
TOO_LONG = "too_long"
"""Reason of a row whose text has more characters than an enricher looks at."""


def each_text(column: pa.ChunkedArray, compute: Callable[[str], Any]) -> tuple[list[Any], tuple[tuple[int, str], ...]]:
    """What `compute` gives for each of n texts, None for NULL; and the numbers of those that are too long."""
    texts = column.to_pylist()
    found: dict[str | None, Any] = {None: None}
    errors = []
    for i, text in enumerate(texts):
        if text is not None and len(text) > TEXT_CHARS_MAX:
            errors.append((i, TOO_LONG))
            found[text] = None
        elif text not in found:
            found[text] = compute(text)
    return [found[text] for text in texts], tuple(errors)
