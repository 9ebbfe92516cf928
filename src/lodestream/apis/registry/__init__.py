"""The schema registry: the Confluent Schema Registry REST API over SQLite or PostgreSQL."""
