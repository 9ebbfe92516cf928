"""Who may see which rows of which version? The one read path."""
