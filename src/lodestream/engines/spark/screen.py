"""The changes stage on Spark: which rows are changes that can be put in order, which delete, which come too late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lodestream.engines.embedded.merge import DELETES
from lodestream.engines.spark.expressions import error, quoted, value
from lodestream.engines.spark.rows import aside, listed
from lodestream.model.steps import ApplyChanges

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def screened(rows: DataFrame, step: ApplyChanges, late_us: int) -> DataFrame:
    """Give their fate to rows that are no change, or at or behind W(n-1), and `DELETES` to all.

    The reasons and their order are those of `engines.embedded.screen`.
    """
    missing = [(f"null_key:{name}", name) for name in step.changes.keys]
    missing += [(f"null_sequence:{name}", name) for name in step.changes.sequence_by]
    reasons = [(text, f"{quoted(name)} IS NULL") for text, name in missing]
    condition = step.delete_when
    if condition is not None and condition.error is not None:
        reasons.append(("delete_when:error", error(condition.text, condition.type)))
    rows = aside(rows, " OR ".join(f"({wrong})" for _, wrong in reasons), "'quarantine'", listed(reasons))
    if step.forgets:
        late = f"unix_micros({quoted(step.changes.sequence_by[0])}) <= {late_us}"
        rows = aside(rows, late, "'late'", "array('late')")
    deletes = "false" if condition is None else f"coalesce({value(condition)}, false)"
    return rows.selectExpr("*", f"{deletes} AS {DELETES}")
