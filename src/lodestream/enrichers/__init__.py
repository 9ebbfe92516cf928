"""One file = one way to know more about a row."""
