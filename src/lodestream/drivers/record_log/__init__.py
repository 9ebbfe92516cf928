"""A durable log of records: what a door that pushes (HTTP) writes, and what its source reads."""
