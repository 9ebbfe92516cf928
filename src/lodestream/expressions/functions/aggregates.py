"""Names of the aggregate functions, with their lines on the reference page."""

from lodestream.expressions.registry import AGGREGATES

AGGREGATES.update(
    {
        "count": "* or value | bigint | rows, or rows whose value is not NULL",
        "count_if": "boolean | bigint | rows where it is true",
        "sum": "number | bigint for integers, decimal(p+10,s), double | raises when a bigint sum overflows at the end",
        "avg": "number | double, decimal(p+4,s+4) for decimals | exact for decimals",
        "mean": "number | as avg | avg by another name",
        "min": "value | its type | NaN is the largest number",
        "max": "value | its type | NaN is the largest number",
        "bool_and": "boolean | boolean | NULLs are skipped",
        "every": "boolean | boolean | bool_and by another name",
        "bool_or": "boolean | boolean | NULLs are skipped",
        "some": "boolean | boolean | bool_or by another name",
        "any": "boolean | boolean | bool_or by another name",
    }
)
