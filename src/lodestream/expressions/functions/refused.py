"""Functions that people will look for and that are not admitted, each with the reason and the way round."""

from lodestream.expressions.registry import refuse

refuse("P102", "approximate", "count(distinct …) in a query", "approx_count_distinct")
refuse("P102", "approximate", "max(…) or avg(…)", "approx_percentile", "percentile_approx", "approx_top_k")
refuse(
    "P107", "changes from run to run", None, "rand", "random", "randn", "uuid", "current_timestamp", "now",
    "current_date", "curdate", "localtimestamp", "monotonically_increasing_id", "spark_partition_id", "input_file_name",
    "current_user", "user", "shuffle",
)  # fmt: skip
refuse(
    "P105", "all times are UTC", "the timestamp itself", "from_utc_timestamp", "to_utc_timestamp", "convert_timezone"
)
refuse("P105", "all times are UTC", "to_timestamp(…)", "to_timestamp_ntz", "to_timestamp_ltz", "make_timestamp_ltz")
refuse("P101", "Spark reads malformed JSON leniently", "a struct column in the table's schema", "from_json")
refuse("P101", "makes columns out of one", "get_json_object(…, '$.name')", "json_tuple")
refuse("P101", "depends on the engine's tables of title case", "upper(left(…, 1))", "initcap")
refuse(
    "P104",
    "which row wins depends on the order of rows",
    "max(…) or min(…)",
    "first",
    "last",
    "any_value",
    "first_value",
)
refuse("P104", "ties decide", "max(…) or row_number() in a query", "max_by", "min_by")
refuse("P101", "DuckDB has no such hash", "md5(…) or sha2(…, 256)", "hash", "xxhash64", "crc32")
refuse(
    "P101",
    "written with within group",
    "percentile(…, 0.5) in a sql: table",
    "percentile_cont",
    "percentile_disc",
    "listagg",
)
refuse("P104", "ties decide", "max(…) or count(*) in a query", "mode", "array_agg")
refuse("P101", "digits of doubles are written differently", "round(…) or cast(… as decimal)", "format_number")
refuse("P101", "windows are declared", "window: {every: …} in the table", "window", "session_window", "window_time")
refuse("P101", "makes rows out of one row", None, "explode", "explode_outer", "posexplode", "inline", "stack")
