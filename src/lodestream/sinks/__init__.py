"""One file is one way out."""
