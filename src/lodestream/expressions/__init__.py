"""What does this expression mean? Parse, whitelist, type, compile, lineage."""
