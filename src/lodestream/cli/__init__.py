"""How a person holds it: one file per verb."""
