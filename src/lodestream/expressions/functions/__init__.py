"""The whitelist of functions, one file per kind of value."""

from lodestream.expressions.functions import (
    aggregates,
    arrays,
    bits,
    calendar,
    formats,
    higher,
    json,
    logic,
    maps,
    moments,
    numbers,
    parts,
    patterns,
    refused,
    sets,
    texts,
    trigonometry,
)
from lodestream.expressions.registry import AGGREGATES, REFUSED, SCALARS, Call, Function

__all__ = [
    "AGGREGATES", "REFUSED", "SCALARS", "Call", "Function", "aggregates", "arrays", "bits", "calendar", "formats",
    "higher", "json", "logic", "maps", "moments", "numbers", "parts", "patterns", "refused", "sets", "texts",
    "trigonometry",
]  # fmt: skip
