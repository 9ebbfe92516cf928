"""Runs the same plans on Apache Spark: one Structured Streaming query per table, Delta tables in and out."""
