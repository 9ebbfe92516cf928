"""The whitelist of functions, one file per kind of value."""

from lodestream.expressions.functions import arrays, logic, moments, numbers, refused, texts
from lodestream.expressions.registry import AGGREGATES, REFUSED, SCALARS, Call, Function

__all__ = [
    "AGGREGATES", "REFUSED", "SCALARS", "Call", "Function", "arrays", "logic", "moments", "numbers", "refused", "texts",
]  # fmt: skip
