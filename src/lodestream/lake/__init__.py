"""Delta tables: commit, read, maintain, repair."""
