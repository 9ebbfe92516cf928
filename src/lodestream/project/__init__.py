"""What did the user declare? Files to model; errors with file, line and remedy."""
