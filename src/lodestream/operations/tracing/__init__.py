"""Parts of `lodestream trace`: keys, the view of the lake, source records, windows, queries, and reasons of absence."""
