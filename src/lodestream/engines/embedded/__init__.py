"""The embedded engine: Arrow, DuckDB and Delta in this process."""
