"""The whitelist of functions, one file per kind of value."""

from lodestream.expressions.functions import aggregates, arrays, logic, moments, numbers, patterns, refused, texts
from lodestream.expressions.registry import AGGREGATES, REFUSED, SCALARS, Call, Function

__all__ = [
    "AGGREGATES", "REFUSED", "SCALARS", "Call", "Function", "aggregates", "arrays", "logic", "moments", "numbers",
    "patterns", "refused", "texts",
]  # fmt: skip
