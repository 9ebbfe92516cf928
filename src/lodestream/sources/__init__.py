"""One file is one way in."""
