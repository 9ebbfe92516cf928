"""What is this thing? Tables, columns, positions, batches and plan steps as frozen values."""
