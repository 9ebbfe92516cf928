"""REST: tables, SQL and saved queries over HTTP, each an adapter over the one read path."""
