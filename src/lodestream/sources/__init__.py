"""Ways in; one file per source, named after its protocol."""
