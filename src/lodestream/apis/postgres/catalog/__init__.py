"""What `pg_catalog` and `information_schema` say: the tables that somebody may see, the rest empty."""
