"""Who is calling: keys, networks, limits."""
