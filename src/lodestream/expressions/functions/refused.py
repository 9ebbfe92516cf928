"""Functions that people will look for and that are not admitted, each with the reason."""

from lodestream.expressions.registry import refuse

refuse("P102", "approximate", "count(distinct …)", "approx_count_distinct")
refuse("P107", "changes from run to run", None, "rand", "randn", "uuid", "current_timestamp", "now", "current_date")
