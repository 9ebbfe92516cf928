"""The benchmark: the same job on the same events by Lodestream and by Spark, and a proof that the rows are equal."""
