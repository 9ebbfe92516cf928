"""The PostgreSQL protocol, version 3: ask the lake with psql, JDBC, ODBC and whatever else speaks it."""
