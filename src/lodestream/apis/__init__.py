"""One folder or file = one protocol that others speak to us."""
