"""A year of real flights through bronze, silver and gold: data, project, run and report."""
